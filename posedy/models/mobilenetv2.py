"""MobileNetV2 (Sandler et al., CVPR 2018) as a backbone, static or dynamic."""

from collections.abc import Collection

from torch import Tensor, nn

from posedy.models.blocks import (
    BNECK_LAYERS,
    Backbone,
    ConvFactory,
    InvertedResidual,
    classifier,
    conv_norm_act,
    initialise,
    static_conv,
)

# expansion, channels at width 1.0, blocks, stride of the first block
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM_CHANNELS = 32
_LAST_CHANNELS = 1280
# deeper is a slip of the pen that would fill the memory
_MAX_DEPTH = 8


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Rounds a number of channels to a multiple of the divisor, never down by more than 10 %."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class MobileNetV2(Backbone):
    """The convolutional part of MobileNetV2, of stride 32.

    In the dynamic form every convolution is dynamic but the stem and the last 1x1 (the paper's rule).

    Args:
        width: multiplier of all channels but the last layer's.
        conv: makes the convolutions of the blocks.
        in_channels: channels of the image.
        num_classes: ends in the classifier of so many classes (ImageNet's are 1000); None ends in the last map.
        depth: multiplier of the number of blocks of each stage, rounded to the nearest, at least one (Figure 6).
        dynamic_layers: which convolutions of a block `conv` makes (Table 5); the others are static.

    Raises:
        ValueError: if the depth is not positive or beyond 8.
    """

    def __init__(
        self,
        width: float = 1.0,
        conv: ConvFactory = static_conv,
        *,
        in_channels: int = 3,
        num_classes: int | None = None,
        depth: float = 1.0,
        dynamic_layers: Collection[str] = BNECK_LAYERS,
    ) -> None:
        super().__init__()
        if not 0 < depth <= _MAX_DEPTH:
            raise ValueError(
                f"depth is a positive multiplier of at most {_MAX_DEPTH} (the paper's are 1, 0.7 and 0.5), got {depth}"
            )
        channels = make_divisible(_STEM_CHANNELS * width)
        self.stem = conv_norm_act(static_conv(in_channels, channels, 3, stride=2), channels, nn.ReLU6())
        blocks = []
        for expansion, stage_channels, count, stage_stride in _STAGES:
            out_channels = make_divisible(stage_channels * width)
            for index in range(max(1, int(count * depth + 0.5))):
                stride = stage_stride if index == 0 else 1
                hidden = expansion * channels
                blocks.append(
                    InvertedResidual(channels, hidden, out_channels, 3, stride, conv, dynamic_layers=dynamic_layers)
                )
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.out_channels = max(_LAST_CHANNELS, make_divisible(_LAST_CHANNELS * width))
        self.last = conv_norm_act(static_conv(channels, self.out_channels, 1), self.out_channels, nn.ReLU6())
        self.classifier = nn.Identity() if num_classes is None else classifier(self.out_channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 1280, H / 32, W / 32), or logits (N, num_classes)."""
        return self.classifier(self.last(self.blocks(self.stem(x))))

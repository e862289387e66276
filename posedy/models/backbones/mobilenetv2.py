"""MobileNetV2 (Sandler et al., CVPR 2018) as a backbone, static or dynamic."""

from collections.abc import Collection

from torch import Tensor, nn

from posedy.models.blocks import (
    BNECK_LAYERS,
    Backbone,
    ConvFactory,
    InvertedResidual,
    Padding,
    classifier,
    conv_norm_act,
    initialize,
    maps_after,
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
# whose last maps `features` gives, of strides 4, 8 and 16
_TAPPED_STAGES = (1, 2, 3)
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
        last_channels: of the last layer; None is 1280, and in proportion at widths over 1.
        in_channels: channels of the image.
        num_classes: ends in the classifier of so many classes (ImageNet's are 1000); None ends in the last map.
        depth: multiplier of the number of blocks of each stage, rounded to the nearest, at least one (Figure 6).
        dynamic_layers: which convolutions of a block `conv` makes (Table 5); the others are static.
        padding: "symmetric", or "tensorflow" for weights that were trained there.

    Raises:
        ValueError: if the depth is not positive or beyond 8.
    """

    def __init__(
        self,
        width: float = 1.0,
        conv: ConvFactory = static_conv,
        last_channels: int | None = None,
        *,
        in_channels: int = 3,
        num_classes: int | None = None,
        depth: float = 1.0,
        dynamic_layers: Collection[str] = BNECK_LAYERS,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        if not 0 < depth <= _MAX_DEPTH:
            raise ValueError(
                f"depth is a positive multiplier of at most {_MAX_DEPTH} (the paper's are 1, 0.7 and 0.5), got {depth}"
            )
        channels = make_divisible(_STEM_CHANNELS * width)
        self.stem = conv_norm_act(
            static_conv(in_channels, channels, 3, stride=2, padding=padding), channels, nn.ReLU6()
        )
        blocks: list[nn.Module] = []
        ends = []  # of the stages: the index and the channels of the last block of each
        for expansion, stage_channels, count, stage_stride in _STAGES:
            out_channels = make_divisible(stage_channels * width)
            for index in range(max(1, int(count * depth + 0.5))):
                stride = stage_stride if index == 0 else 1
                hidden = expansion * channels
                blocks.append(
                    InvertedResidual(
                        channels,
                        hidden,
                        out_channels,
                        3,
                        stride,
                        conv,
                        dynamic_layers=dynamic_layers,
                        padding=padding,
                    )
                )
                channels = out_channels
            ends.append((len(blocks) - 1, channels))
        self.blocks = nn.Sequential(*blocks)
        last_channels = last_channels or max(_LAST_CHANNELS, make_divisible(_LAST_CHANNELS * width))
        taps = [ends[stage] for stage in _TAPPED_STAGES]
        self.taps = tuple(index for index, _ in taps)
        self.feature_channels = (taps[0][1], taps[1][1], taps[2][1], last_channels)
        self.last = conv_norm_act(static_conv(channels, last_channels, 1), last_channels, nn.ReLU6())
        self.classifier = nn.Identity() if num_classes is None else classifier(last_channels, num_classes)
        initialize(self)

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W) -> the maps after blocks 2, 5 and 9 (at depth 1) and after the last layer.

        The map of stride 16 is that of 64 channels (at width 1), not of 96: so does MoveNet.
        """
        *maps, x = maps_after(self.blocks, self.stem(x), self.taps)
        return [*maps, self.last(x)]

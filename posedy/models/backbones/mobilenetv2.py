"""MobileNetV2 (Sandler et al., CVPR 2018) as a backbone, static or dynamic."""

from collections.abc import Collection

from torch import Tensor, nn

from posedy.models.blocks import (
    BNECK_LAYERS,
    Backbone,
    ConvFactory,
    InvertedResidual,
    Padding,
    collect_features,
    conv_norm_act,
    init_weights,
    make_classifier,
    static_conv,
)

# expansion, channels at width 1.0, number of blocks, stride of the first block
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# stages whose last feature maps are returned, of strides 4, 8 and 16
_OUT_STAGES = (1, 2, 3)
_STEM_CHANNELS = 32
_LAST_CHANNELS = 1280
# larger values are typing errors that would exhaust the memory
_MAX_DEPTH = 8


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Rounds a number of channels to a multiple of the divisor, never down by more than 10 %."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class MobileNetV2(Backbone):
    """The convolutional layers of MobileNetV2, with an output stride of 32.

    In the dynamic form every convolution is dynamic except the stem and the last 1x1, as in the paper.

    Args:
        width: multiplier of the channels of all layers except the last.
        conv: creates the convolutions of the blocks.
        last_channels: channels of the last layer; None is 1280, times `width` if that is larger than 1.
        in_channels: channels of the input image.
        num_classes: number of classes of a final classifier (1000 for ImageNet); None returns the last feature map.
        dropout: probability of dropout before the classifier's last layer.
        depth: multiplier of the number of blocks of each stage, rounded to the nearest and at least one (Figure 6).
        dynamic_layers: the convolutions of a block that `conv` creates (Table 5); the others are static.
        padding: "symmetric", or "tensorflow" for weights trained with TensorFlow.

    Raises:
        ValueError: if the depth is not positive or larger than 8.
    """

    def __init__(
        self,
        width: float = 1.0,
        conv: ConvFactory = static_conv,
        last_channels: int | None = None,
        *,
        in_channels: int = 3,
        num_classes: int | None = None,
        dropout: float = 0.0,
        depth: float = 1.0,
        dynamic_layers: Collection[str] = BNECK_LAYERS,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        if not 0 < depth <= _MAX_DEPTH:
            raise ValueError(
                f"expected a depth multiplier in (0, {_MAX_DEPTH}] (the paper uses 1, 0.7 and 0.5), got {depth}"
            )
        channels = make_divisible(_STEM_CHANNELS * width)
        self.stem = conv_norm_act(
            static_conv(in_channels, channels, 3, stride=2, padding=padding), channels, nn.ReLU6()
        )
        blocks: list[nn.Module] = []
        stage_ends = []  # index and output channels of the last block of each stage
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
            stage_ends.append((len(blocks) - 1, channels))
        self.blocks = nn.Sequential(*blocks)
        last_channels = last_channels or max(_LAST_CHANNELS, make_divisible(_LAST_CHANNELS * width))
        outputs = [stage_ends[stage] for stage in _OUT_STAGES]
        self.out_indices = tuple(index for index, _ in outputs)
        self.feature_channels = (outputs[0][1], outputs[1][1], outputs[2][1], last_channels)
        self.last = conv_norm_act(static_conv(channels, last_channels, 1), last_channels, nn.ReLU6())
        self.set_classifier(make_classifier(last_channels, num_classes, dropout))
        init_weights(self)

    def features(self, x: Tensor) -> list[Tensor]:
        """Extracts the feature maps after blocks 2, 5 and 9 (at depth 1) and after the last layer.

        The feature map of stride 16 has 64 channels (at width 1) rather than 96, as in MoveNet.
        """
        *features, x = collect_features(self.blocks, self.stem(x), self.out_indices)
        return [*features, self.last(x)]

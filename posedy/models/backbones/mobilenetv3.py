"""MobileNetV3-Small (Howard et al., arXiv 1905.02244v1) as a backbone, static or dynamic."""

from collections.abc import Callable, Collection

from torch import Tensor, nn

from posedy.models.blocks import (
    BNECK_LAYERS,
    Backbone,
    ConvFactory,
    InvertedResidual,
    SqueezeExcitation,
    collect_features,
    conv_norm_act,
    init_weights,
    make_classifier,
    static_conv,
)

# kernel size, hidden channels, output channels, squeeze-and-excitation, activation, stride
_BNECKS: tuple[tuple[int, int, int, bool, Callable[[], nn.Module], int], ...] = (
    (3, 16, 16, True, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 2),
    (3, 88, 24, False, nn.ReLU, 1),
    (5, 96, 40, True, nn.Hardswish, 1),
    (5, 240, 40, True, nn.Hardswish, 2),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 120, 48, True, nn.Hardswish, 1),
    (5, 144, 48, True, nn.Hardswish, 1),
    (5, 288, 96, True, nn.Hardswish, 2),
    (5, 576, 96, True, nn.Hardswish, 1),
    (5, 576, 96, True, nn.Hardswish, 1),
)
# the last bnecks of strides 4, 8 and 16
_OUT_INDICES = (0, 3, 7)
_STEM_CHANNELS = 16
_LAST_CHANNELS = 576
_CLASSIFIER_CHANNELS = 1280


class MobileNetV3Small(Backbone):
    """The convolutional layers of MobileNetV3-Small, with an output stride of 32.

    This is the first arXiv version, the only one that matches the paper's #Param and MAdds. It differs from the final
    version (torchvision's) as follows: the fifth bneck instead of the fourth reduces 28x28 to 14x14 (at 224x224), the
    last 1x1 has squeeze-and-excitation, and the classifier has 1280 hidden channels. In the dynamic form every
    convolution is dynamic except the stem and the last 1x1; squeeze-and-excitation is static.

    Args:
        conv: creates the convolutions of the blocks.
        in_channels: channels of the input image.
        num_classes: number of classes of a final classifier (1000 for ImageNet); None returns the last feature map.
        dropout: probability of dropout before the classifier's last layer.
        se: whether to use squeeze-and-excitation; False removes all of it (Table 7).
        dynamic_layers: the convolutions of a block that `conv` creates (Table 5); the others are static.
    """

    def __init__(
        self,
        conv: ConvFactory = static_conv,
        *,
        in_channels: int = 3,
        num_classes: int | None = None,
        dropout: float = 0.0,
        se: bool = True,
        dynamic_layers: Collection[str] = BNECK_LAYERS,
    ) -> None:
        super().__init__()
        channels = _STEM_CHANNELS
        self.stem = conv_norm_act(static_conv(in_channels, channels, 3, stride=2), channels, nn.Hardswish())
        blocks = []
        for kernel_size, hidden, out_channels, has_se, activation, stride in _BNECKS:
            blocks.append(
                InvertedResidual(
                    channels,
                    hidden,
                    out_channels,
                    kernel_size,
                    stride,
                    conv,
                    activation=activation,
                    se=se and has_se,
                    dynamic_layers=dynamic_layers,
                )
            )
            channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        strides_4_to_16 = [_BNECKS[index][2] for index in _OUT_INDICES]
        self.feature_channels = (strides_4_to_16[0], strides_4_to_16[1], strides_4_to_16[2], _LAST_CHANNELS)
        self.last = conv_norm_act(static_conv(channels, _LAST_CHANNELS, 1), _LAST_CHANNELS, nn.Hardswish())
        self.se = SqueezeExcitation(_LAST_CHANNELS) if se else nn.Identity()
        self.set_classifier(make_classifier(_LAST_CHANNELS, num_classes, dropout, _CLASSIFIER_CHANNELS))
        init_weights(self)

    def features(self, x: Tensor) -> list[Tensor]:
        """Extracts the feature maps after bnecks 0, 3 and 7 (16, 40 and 48 channels) and after the last layer (576)."""
        *features, x = collect_features(self.blocks, self.stem(x), _OUT_INDICES)
        return [*features, self.se(self.last(x))]

"""ResNet-18 and ResNet-10 (He et al., CVPR 2016) as backbones, static or dynamic."""

from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor, nn

from posedy.models.blocks import (
    Backbone,
    ConvFactory,
    ResidualBlock,
    collect_features,
    conv_norm_act,
    init_weights,
    make_classifier,
    static_conv,
)

_STAGE_CHANNELS = (64, 128, 256, 512)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions with a shortcut, which is a static 1x1 convolution where the shape changes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution and the shortcut.
        conv: creates the 3x3 convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, conv: ConvFactory) -> None:
        super().__init__()
        self.conv1 = conv_norm_act(conv(in_channels, out_channels, 3, stride), out_channels, nn.ReLU())
        self.conv2 = conv_norm_act(conv(out_channels, out_channels, 3), out_channels)
        self.shortcut = (
            conv_norm_act(static_conv(in_channels, out_channels, 1, stride), out_channels)
            if stride != 1 or in_channels != out_channels
            else nn.Identity()
        )
        self.activation = nn.ReLU()

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm of the second convolution."""
        norm = self.conv2[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        return self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))


class ResNet(Backbone):
    """The convolutional layers of a ResNet with basic blocks, with an output stride of 32.

    In the dynamic form every 3x3 convolution is dynamic; the 7x7 stem and the 1x1 shortcuts are static.

    Args:
        blocks: number of blocks in each of the four stages.
        conv: creates the convolutions of the blocks.
        in_channels: channels of the input image.
        num_classes: number of classes of a final classifier (1000 for ImageNet); None returns the last feature map.
        dropout: probability of dropout before the classifier's last layer.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        conv: ConvFactory = static_conv,
        *,
        in_channels: int = 3,
        num_classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels = _STAGE_CHANNELS[0]
        self.stem = conv_norm_act(static_conv(in_channels, channels, 7, stride=2), channels, nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        layers: list[nn.Module] = []
        self.out_indices = tuple(end - 1 for end in accumulate(blocks[:-1]))
        for stage, (count, out_channels) in enumerate(zip(blocks, _STAGE_CHANNELS, strict=True)):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(BasicBlock(channels, out_channels, stride, conv))
                channels = out_channels
        self.blocks = nn.Sequential(*layers)
        self.feature_channels = _STAGE_CHANNELS
        self.set_classifier(make_classifier(channels, num_classes, dropout))
        init_weights(self)

    def features(self, x: Tensor) -> list[Tensor]:
        """Extracts the feature maps of the four stages, with 64, 128, 256 and 512 channels."""
        return collect_features(self.blocks, self.pool(self.stem(x)), self.out_indices)

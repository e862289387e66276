"""ResNet-18 and ResNet-10 (He et al., CVPR 2016) as backbones, static or dynamic."""

from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor, nn

from posedy.models.blocks import (
    Backbone,
    ConvFactory,
    ResidualBlock,
    classifier,
    conv_norm_act,
    initialize,
    maps_after,
    static_conv,
)

_STAGE_CHANNELS = (64, 128, 256, 512)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut, projected by a static 1x1 where the shape changes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution and the projection.
        conv: makes the 3x3 convolutions.
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
    def residual_norm(self) -> nn.BatchNorm2d:
        """The second convolution's."""
        norm = self.conv2[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H / stride, W / stride)."""
        return self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))


class ResNet(Backbone):
    """The convolutional part of a ResNet of basic blocks, of stride 32.

    In the dynamic form every 3x3 convolution is dynamic; the 7x7 stem and the projections of shortcuts are not.

    Args:
        blocks: number of blocks in each of the four stages.
        conv: makes the convolutions of the blocks.
        in_channels: channels of the image.
        num_classes: ends in the classifier of so many classes (ImageNet's are 1000); None ends in the last map.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        conv: ConvFactory = static_conv,
        *,
        in_channels: int = 3,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        channels = _STAGE_CHANNELS[0]
        self.stem = conv_norm_act(static_conv(in_channels, channels, 7, stride=2), channels, nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        layers: list[nn.Module] = []
        self.taps = tuple(end - 1 for end in accumulate(blocks[:-1]))
        for stage, (count, out_channels) in enumerate(zip(blocks, _STAGE_CHANNELS, strict=True)):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(BasicBlock(channels, out_channels, stride, conv))
                channels = out_channels
        self.blocks = nn.Sequential(*layers)
        self.feature_channels = _STAGE_CHANNELS
        self.classifier = nn.Identity() if num_classes is None else classifier(channels, num_classes)
        initialize(self)

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W) -> the maps of the four stages, of 64, 128, 256 and 512 channels."""
        return maps_after(self.blocks, self.pool(self.stem(x)), self.taps)

"""The heads that turn a backbone's map of stride 32 into heatmaps of stride 4 (paper, section 6)."""

from collections.abc import Collection

from torch import Tensor, nn

from posedy.models.blocks import BNECK_LAYERS, ConvFactory, InvertedResidual, initialise, static_conv
from posedy.models.upsampling import BilinearUpsample

# Table 9: hidden channels (None: those of the input) and output channels of the bnecks after each upsampling
_BNECK_STAGES: tuple[tuple[tuple[int | None, int], ...], ...] = (
    ((None, 256), (768, 256)),
    ((768, 128),),
    ((384, 128),),
)
_DECONV_CHANNELS = 256
_DECONV_STAGES = 3


class DeconvHead(nn.Sequential):
    """Type-A: three 4x4 stride-2 deconvolutions of 256 channels with norm and ReLU, then a 1x1 convolution.

    (N, in_channels, h, w) -> (N, num_keypoints, 8 h, 8 w). Deconvolutions and the last layer start at N(0, 0.001)
    (Xiao et al., ECCV 2018).
    """

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        layers: list[nn.Module] = []
        channels = in_channels
        for _ in range(_DECONV_STAGES):
            deconv = nn.ConvTranspose2d(channels, _DECONV_CHANNELS, 4, stride=2, padding=1, bias=False)
            nn.init.normal_(deconv.weight, std=0.001)
            layers += [deconv, nn.BatchNorm2d(_DECONV_CHANNELS), nn.ReLU()]
            channels = _DECONV_CHANNELS
        super().__init__(*layers, _heatmap_conv(channels, num_keypoints))


class BneckHead(nn.Module):
    """Type-B (Table 9): three times bilinear upsampling and bnecks with a 5x5 depthwise convolution, then a 1x1.

    (N, in_channels, h, w) -> (N, num_keypoints, 8 h, 8 w). The first bneck has no expansion. In the dynamic form every
    convolution is dynamic but the last.

    Args:
        in_channels: channels of the backbone's map.
        num_keypoints: K heatmaps.
        conv: makes the convolutions of the bnecks.
        dynamic_layers: which convolutions of a bneck `conv` makes (Table 5); the others are static.
    """

    def __init__(
        self,
        in_channels: int,
        num_keypoints: int,
        conv: ConvFactory = static_conv,
        *,
        dynamic_layers: Collection[str] = BNECK_LAYERS,
    ) -> None:
        super().__init__()
        stages = []
        channels = in_channels
        for bnecks in _BNECK_STAGES:
            layers: list[nn.Module] = [BilinearUpsample()]
            for hidden, out_channels in bnecks:
                layers.append(
                    InvertedResidual(
                        channels, hidden or channels, out_channels, 5, 1, conv, dynamic_layers=dynamic_layers
                    )
                )
                channels = out_channels
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        initialise(self.stages)
        self.heatmap = _heatmap_conv(channels, num_keypoints)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) -> (N, num_keypoints, 8 h, 8 w)."""
        return self.heatmap(self.stages(x))


def _heatmap_conv(channels: int, num_keypoints: int) -> nn.Conv2d:
    """The last layer, always static, which starts at N(0, 0.001) and bias 0."""
    conv = nn.Conv2d(channels, num_keypoints, 1)
    nn.init.normal_(conv.weight, std=0.001)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv

"""Heads: modules that convert the feature maps of a backbone to heatmaps of stride 4, or to logits of coordinates.

`DeconvHead` and `BneckHead` are from the paper (section 6) and use the feature map of stride 32. `FPNHead` is not from
the paper and uses the feature maps of strides 4, 8, 16 and 32. `SimCCHead` is not from the paper either and has no
heatmaps.
"""

from collections.abc import Collection, Sequence
from typing import ClassVar

from torch import Tensor, nn

from posedy.codecs import SPLIT_RATIO
from posedy.models.blocks import BNECK_LAYERS, ConvFactory, InvertedResidual, conv_norm_act, init_weights, static_conv
from posedy.models.ops import BilinearUpsample

# Table 9: hidden channels (None: same as the input) and output channels of the bnecks after each upsampling
_BNECK_STAGES: tuple[tuple[tuple[int | None, int], ...], ...] = (
    ((None, 256), (768, 256)),
    ((768, 128),),
    ((384, 128),),
)
# channels of the lateral convolutions of strides 32, 16, 8 and 4, and of the blocks of strides 16, 8 and 4
_FPN_LATERALS = (64, 64, 32, 24)
_FPN_CHANNELS = (32, 24, 24)
_FPN_HIDDEN = 96
_DECONV_CHANNELS = 256
_DECONV_STAGES = 3
_STRIDE = 32  # of the last feature map


class DeconvHead(nn.Sequential):
    """Type-A head: three 4x4 stride-2 deconvolutions of 256 channels with norm and ReLU, then a 1x1 convolution.

    (N, in_channels, h, w) -> (N, num_keypoints, 8 h, 8 w). Deconvolutions and the last layer are initialized with
    N(0, 0.001) (Xiao et al., ECCV 2018).
    """

    codec: ClassVar[str] = "msra"

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
    """Type-B head (Table 9): three stages of bilinear upsampling and bnecks with 5x5 depthwise, then a 1x1 convolution.

    (N, in_channels, h, w) -> (N, num_keypoints, 8 h, 8 w). The first bneck has no expansion. In the dynamic form every
    convolution except the last is dynamic.

    Args:
        in_channels: channels of the backbone's last feature map.
        num_keypoints: K, the number of heatmaps.
        conv: creates the convolutions of the bnecks.
        dynamic_layers: the convolutions of a bneck that `conv` creates (Table 5); the others are static.
    """

    codec: ClassVar[str] = "msra"

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
        init_weights(self.stages)
        self.heatmap = _heatmap_conv(channels, num_keypoints)

    def forward(self, x: Tensor) -> Tensor:
        """Maps a feature map (N, in_channels, h, w) to heatmaps (N, num_keypoints, 8 h, 8 w)."""
        return self.heatmap(self.stages(x))


class FPNHead(nn.Module):
    """A light feature pyramid, the decoder of MoveNet: 24 M multiply-adds at 256x192, compared with 728 M of Type-B.

    With lateral 1x1 convolutions with bias L_s of the backbone's feature maps f_s, from stride 32 to stride 4,

        m_32 = L_32 f_32,    m_s = block_s(upsample(m_2s) + L_s f_s)

    where a block is a depthwise 3x3 convolution, a 1x1 convolution, a norm and a ReLU. The heatmaps are computed from
    m_4 by a depthwise 3x3 convolution, a 1x1 convolution to 96 channels with bias, a ReLU and a 1x1 convolution. In the
    dynamic form every convolution except the last is dynamic.

    Args:
        feature_channels: channels of the feature maps of strides 4, 8, 16 and 32.
        num_keypoints: K, the number of heatmaps.
        conv: creates the convolutions.
    """

    codec: ClassVar[str] = "msra"
    reads_pyramid: ClassVar[bool] = True

    def __init__(self, feature_channels: Sequence[int], num_keypoints: int, conv: ConvFactory = static_conv) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            conv(channels, lateral, 1, bias=True)
            for channels, lateral in zip(reversed(feature_channels), _FPN_LATERALS, strict=True)
        )
        self.upsample = BilinearUpsample()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                conv(channels, channels, 3, groups=channels),
                conv_norm_act(conv(channels, out_channels, 1), out_channels, nn.ReLU()),
            )
            for channels, out_channels in zip(_FPN_LATERALS[1:], _FPN_CHANNELS, strict=True)
        )
        channels = _FPN_CHANNELS[-1]
        self.hidden = nn.Sequential(
            conv(channels, channels, 3, groups=channels), conv(channels, _FPN_HIDDEN, 1, bias=True), nn.ReLU()
        )
        init_weights(self)
        self.heatmap = _heatmap_conv(_FPN_HIDDEN, num_keypoints)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Predicts heatmaps (N, num_keypoints, H / 4, W / 4) from feature maps (N, C_i, H / s, W / s), s = 4 to 32."""
        return self.predict_outputs(self.fuse_features(features))

    def fuse_features(self, features: Sequence[Tensor]) -> Tensor:
        """Fuses the backbone's feature maps into m_4 (N, 24, H / 4, W / 4)."""
        f_32, *finer = reversed(features)
        first, *laterals = self.laterals
        m = first(f_32)
        for f, lateral, block in zip(finer, laterals, self.blocks, strict=True):
            m = block(self.upsample(m) + lateral(f))
        return m

    def predict_outputs(self, m_4: Tensor) -> Tensor:
        """Predicts heatmaps (N, num_keypoints, H / 4, W / 4) from m_4."""
        return self.heatmap(self.hidden(m_4))


class SimCCHead(nn.Module):
    """The head of SimCC without deconvolutions (Li et al., ECCV 2022), for the codec "simcc": logits of coordinates.

    A 1x1 convolution maps the last feature map to one map m_k for each keypoint, and two linear layers, which all
    keypoints share, map its h w pixels to the bins of each axis:

        x_logits_k = W_x m_k + b_x,    y_logits_k = W_y m_k + b_y

    (N, in_channels, H / 32, W / 32) -> (N, num_keypoints, 2 W) and (N, num_keypoints, 2 H). The linear layers start at
    N(0, 0.01), so that the distributions start almost uniform. The logits have the rank h w: 48 at 256x192, but only 2
    at 64x32, which is too few.

    Args:
        in_channels: channels of the backbone's last feature map.
        num_keypoints: K.
        input_size: (W, H) of the crops; the head supports no other size.
    """

    codec: ClassVar[str] = "simcc"

    def __init__(self, in_channels: int, num_keypoints: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        width, height = input_size
        self.input_size = (width, height)
        pixels = (width // _STRIDE) * (height // _STRIDE)
        self.keypoint_maps = nn.Conv2d(in_channels, num_keypoints, 1)
        self.x_logits = nn.Linear(pixels, width * SPLIT_RATIO)
        self.y_logits = nn.Linear(pixels, height * SPLIT_RATIO)
        for linear in (self.x_logits, self.y_logits):
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts the logits of x (N, K, 2 W) and of y (N, K, 2 H) from (N, in_channels, H / 32, W / 32)."""
        maps = self.keypoint_maps(x).flatten(2)
        return self.x_logits(maps), self.y_logits(maps)


def _heatmap_conv(channels: int, num_keypoints: int) -> nn.Conv2d:
    """Creates the last layer, always static, initialized with N(0, 0.001) and bias 0."""
    conv = nn.Conv2d(channels, num_keypoints, 1)
    nn.init.normal_(conv.weight, std=0.001)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv

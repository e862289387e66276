"""RTMPose-t and RTMPose-s (Jiang et al., 2023) with random weights, for measurements of time.

Written from the published description. The backbone CSPNeXt has a stem of three 3x3 convolutions and four stages, each

    3x3 convolution with stride 2,    [spatial pyramid pooling, in the last stage,]    cross-stage partial layer

where a cross-stage partial layer sends half of the channels through n residual blocks of a 3x3 convolution and a 5x5
depthwise convolution with a 1x1 convolution, and weighs the channels of both halves by their means. All convolutions
have batch norm and SiLU. The head maps features of stride 32 to SimCC logits: with a 7x7 convolution to one 8x6 map for
each keypoint, T = its 48 values as a token of 256 channels, and a gated attention unit between the tokens,

    [U, V, z] = silu(W norm(T)),    q = z g_q + b_q,    k = z g_k + b_k
    T' = s T + W_o (U * (relu(q k^T / sqrt(128))^2 V))

and two linear layers to two logits for each crop pixel along x and along y.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Variant = Literal["t", "s"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

_FACTORS: dict[Variant, tuple[float, float]] = {"t": (0.167, 0.375), "s": (0.33, 0.5)}  # of depth and of width
_CHANNELS = (64, 128, 256, 512, 1024)
_BLOCKS = (3, 6, 6, 3)
_POOL_SIZES = (5, 9, 13)
_STRIDE = 32
_FINAL_KERNEL = 7
_TOKEN_CHANNELS = 256
_EXPANDED_CHANNELS = 512
_QUERY_CHANNELS = 128
_SPLIT_RATIO = 2


class RTMPose(nn.Module):
    """RTMPose with random weights: normalized crops (N, 3, H, W) -> logits (N, K, 2 W) and (N, K, 2 H).

    Args:
        variant: "t" or "s".
        num_keypoints: K.
        input_size: (width, height) of the crops.
    """

    def __init__(self, variant: Variant, num_keypoints: int = 17, input_size: tuple[int, int] = (192, 256)) -> None:
        super().__init__()
        depth, width = _FACTORS[variant]
        self.backbone = _backbone(depth, width)
        self.head = _SimCCAttentionHead(int(_CHANNELS[-1] * width), num_keypoints, input_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the logits along x and along y."""
        return self.head(self.backbone(images))


def _conv(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.SiLU(),
    )


def _backbone(depth: float, width: float) -> nn.Sequential:
    channels = [int(count * width) for count in _CHANNELS]
    half = channels[0] // 2
    layers: list[nn.Module] = [_conv(3, half, 3, 2), _conv(half, half, 3), _conv(half, channels[0], 3)]
    for index, blocks in enumerate(_BLOCKS):
        is_last = index == len(_BLOCKS) - 1
        out_channels = channels[index + 1]
        layers.append(_conv(channels[index], out_channels, 3, 2))
        if is_last:
            layers.append(_PyramidPooling(out_channels))
        layers.append(_CrossStageLayer(out_channels, max(round(blocks * depth), 1), is_residual=not is_last))
    return nn.Sequential(*layers)


class _PyramidPooling(nn.Module):
    """Concatenates a feature map with its maxima over windows of three sizes, between two 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = _conv(channels, channels // 2)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in _POOL_SIZES)
        self.fuse = _conv(channels // 2 * (1 + len(_POOL_SIZES)), channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return self.fuse(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))


class _CrossStageLayer(nn.Module):
    """A cross-stage partial layer with channel attention, see the module's docstring."""

    def __init__(self, channels: int, blocks: int, is_residual: bool) -> None:
        super().__init__()
        half = channels // 2
        self.main, self.short = _conv(channels, half), _conv(channels, half)
        self.blocks = nn.Sequential(*(_Block(half, is_residual) for _ in range(blocks)))
        self.attention = nn.Conv2d(channels, channels, 1)
        self.fuse = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.blocks(self.main(x)), self.short(x)], dim=1)
        return self.fuse(x * F.hardsigmoid(self.attention(x.mean(dim=(2, 3), keepdim=True))))


class _Block(nn.Module):
    def __init__(self, channels: int, is_residual: bool) -> None:
        super().__init__()
        self.is_residual = is_residual
        self.layers = nn.Sequential(
            _conv(channels, channels, 3), _conv(channels, channels, 5, groups=channels), _conv(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class _SimCCAttentionHead(nn.Module):
    """The head of the module's docstring: (N, C, H / 32, W / 32) -> logits (N, K, 2 W) and (N, K, 2 H)."""

    def __init__(self, in_channels: int, num_keypoints: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        width, height = input_size
        size = (width // _STRIDE) * (height // _STRIDE)
        self.maps = nn.Conv2d(in_channels, num_keypoints, _FINAL_KERNEL, padding=_FINAL_KERNEL // 2)
        self.tokens = nn.Sequential(_ScaleNorm(size), nn.Linear(size, _TOKEN_CHANNELS, bias=False))
        self.attention = _GatedAttentionUnit()
        self.x = nn.Linear(_TOKEN_CHANNELS, _SPLIT_RATIO * width, bias=False)
        self.y = nn.Linear(_TOKEN_CHANNELS, _SPLIT_RATIO * height, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.attention(self.tokens(self.maps(features).flatten(2)))
        return self.x(tokens), self.y(tokens)


class _GatedAttentionUnit(nn.Module):
    """A gated attention unit between the tokens (N, K, C), see the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = _ScaleNorm(_TOKEN_CHANNELS)
        self.expand = nn.Linear(_TOKEN_CHANNELS, 2 * _EXPANDED_CHANNELS + _QUERY_CHANNELS, bias=False)
        self.gamma = nn.Parameter(torch.rand(2, _QUERY_CHANNELS))
        self.beta = nn.Parameter(torch.rand(2, _QUERY_CHANNELS))
        self.project = nn.Linear(_EXPANDED_CHANNELS, _TOKEN_CHANNELS, bias=False)
        self.residual_scale = nn.Parameter(torch.ones(_TOKEN_CHANNELS))

    def forward(self, tokens: Tensor) -> Tensor:
        expanded = F.silu(self.expand(self.norm(tokens)))
        gate, values, shared = expanded.split((_EXPANDED_CHANNELS, _EXPANDED_CHANNELS, _QUERY_CHANNELS), dim=-1)
        query, key = (shared[..., None, :] * self.gamma + self.beta).unbind(dim=-2)
        weights = F.relu(query @ key.transpose(1, 2) / _QUERY_CHANNELS**0.5).square()
        return self.residual_scale * tokens + self.project(gate * (weights @ values))


class _ScaleNorm(nn.Module):
    """Divides vectors by their root mean square, and multiplies them by one learned number."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * self.size**-0.5
        return x / norm.clamp(min=1e-5) * self.scale

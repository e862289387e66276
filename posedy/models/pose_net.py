"""The pose network: a backbone and a head; and the heatmaps of crops, with or without the flip test."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from posedy.codecs import Coding, HeatmapCodec, default_sigma, make_codec
from posedy.models.blocks import Backbone
from posedy.models.heads import FPNHead
from posedy.skeleton import Skeleton

HeatmapOutput = Literal["linear", "softmax", "sigmoid"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# ITU-R BT.601
_LUMA = (0.299, 0.587, 0.114)


class SpatialSoftmax(nn.Module):
    """Maps as distributions over the cells, scaled so that a perfect heatmap peaks at 1.

        heatmap = 2 pi sigma^2 * softmax(map over its h * w cells)

    A Gaussian target of the codec divided by its sum has the peak 1 / (2 pi sigma^2).

    Args:
        sigma: standard deviation of a target in heatmap pixels; None is the codec's default for the height of the maps.
    """

    def __init__(self, sigma: float | None = None) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, maps: Tensor) -> Tensor:
        """(N, K, h, w) maps -> (N, K, h, w) float32 heatmaps."""
        sigma = self.sigma if self.sigma is not None else default_sigma(maps.shape[-2])
        return (2 * math.pi * sigma**2) * maps.float().flatten(2).softmax(dim=-1).reshape(maps.shape)


_OUTPUTS: dict[HeatmapOutput, Callable[[float | None], nn.Module]] = {
    "linear": lambda sigma: nn.Identity(),
    "softmax": SpatialSoftmax,
    "sigmoid": lambda sigma: nn.Sigmoid(),
}


class PoseNet(nn.Module):
    """A network from crops to heatmaps, with what others need to know to use it.

    Args:
        backbone: (N, C, H, W) -> (N, B, H / 32, W / 32); a `Backbone` if the head is an `FPNHead`.
        head: (N, B, H / 32, W / 32), or for an `FPNHead` all maps of the backbone -> (N, K, H / 4, W / 4).
        name: the model's name, `[dy_]BACKBONE-[dy_]HEAD`.
        skeleton: the meaning of the K heatmaps; None if unknown.
        input_size: (width, height) of the crops that the network was made for; it takes any size divisible by 32.
        options: what `create_model` was given beside the name, to build the network again.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        name: str,
        skeleton: Skeleton | None,
        input_size: tuple[int, int],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._reads_pyramid = isinstance(head, FPNHead)
        self.name = name
        self.skeleton = skeleton
        self.input_size = input_size
        self.options = dict(options)
        self.output = _OUTPUTS[options["output"]](self.sigma)

    @property
    def num_keypoints(self) -> int:
        """The number K of heatmaps."""
        return self.options["num_keypoints"]

    @property
    def coding(self) -> Coding:
        """How its heatmaps are decoded."""
        return self.options.get("coding", "paper")

    @property
    def sigma(self) -> float | None:
        """Standard deviation of its targets in heatmap pixels; None is the codec's default."""
        return self.options.get("sigma")

    @property
    def codec(self) -> HeatmapCodec:
        """The codec of its heatmaps, for crops of its input size."""
        return make_codec(self.coding, self.input_size, self.sigma)

    @property
    def in_channels(self) -> int:
        """The number C of channels of the crops."""
        return self.options.get("in_channels", 3)

    def forward(self, x: Tensor) -> Tensor:
        """Crops (N, C, H, W), RGB ImageNet-normalized float -> heatmaps (N, K, H / 4, W / 4).

        A gray-scale network (C = 1) sees the luma of RGB crops, or gray crops as they are.

        Raises:
            ValueError: if H or W is not divisible by 32 or the channels are not the network's.
        """
        if x.ndim != 4 or any(side == 0 or side % 32 for side in x.shape[-2:]):
            raise ValueError(f"the network takes (N, C, H, W) with H and W divisible by 32, got {tuple(x.shape)}")
        x = self.match_channels(x)
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"{self.name} was built with in_channels={self.in_channels}, got crops of {x.shape[1]} channels "
                "(crops of photos have 3)"
            )
        if self._reads_pyramid:
            assert isinstance(self.backbone, Backbone)
            return self.output(self.head(self.backbone.features(x)))
        return self.output(self.head(self.backbone(x)))

    def match_channels(self, x: Tensor) -> Tensor:
        """Crops (N, 3, H, W) as a gray-scale network sees them, (N, 1, H, W); others as they are."""
        if self.in_channels == 1 and x.shape[1] == 3:
            return (x * torch.tensor(_LUMA, dtype=x.dtype, device=x.device)[:, None, None]).sum(dim=1, keepdim=True)
        return x


def normalize_crops(crops: Tensor) -> Tensor:
    """Normalizes RGB crops (N, H, W, 3) uint8 with ImageNet's mean and std: (N, 3, H, W) float32, on their device."""
    mean = torch.tensor(IMAGENET_MEAN, device=crops.device) * 255
    std = torch.tensor(IMAGENET_STD, device=crops.device) * 255
    return ((crops.float() - mean) / std).permute(0, 3, 1, 2).contiguous()


def predict_heatmaps(
    net: Callable[[Tensor], Tensor], crops: Tensor, codec: HeatmapCodec, flip_permutation: Sequence[int] | None = None
) -> Tensor:
    """Predicts the heatmaps of crops; with the flip test they are averaged with those of the flipped crops.

    Args:
        net: normalized crops (N, 3, H, W) -> heatmaps (N, K, h, w).
        crops: (N, H, W, 3) uint8 RGB on the network's device.
        codec: merges the heatmaps of the flip test.
        flip_permutation: K indices for the flip test, `Skeleton.flip_permutation`; None is no flip test.

    Returns:
        (N, K, h, w) float32.
    """
    images = normalize_crops(crops)
    heatmaps = net(images).float()
    if flip_permutation is None:
        return heatmaps
    return codec.merge_flipped(heatmaps, net(images.flip(-1)).float(), flip_permutation)

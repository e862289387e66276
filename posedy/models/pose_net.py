"""The pose network: a backbone, a head, and what makes heatmaps of the head's maps."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from posedy.skeleton import Skeleton

HeatmapOutput = Literal["linear", "softmax"]


class SpatialSoftmax(nn.Module):
    """Maps as distributions over the cells, scaled so that a perfect heatmap peaks at 1.

        heatmap = 2 pi sigma^2 * softmax(map over its h * w cells),    sigma = h / 32

    A Gaussian target of the codec's default sigma divided by its sum has the peak 1 / (2 pi sigma^2).
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(N, K, h, w) maps -> (N, K, h, w) float32 heatmaps."""
        sigma = maps.shape[-2] / 32
        return (2 * math.pi * sigma**2) * maps.float().flatten(2).softmax(dim=-1).reshape(maps.shape)


class PoseNet(nn.Module):
    """A network from crops to heatmaps, with what others need to know to use it.

    Args:
        backbone: (N, C, H, W) -> (N, B, H / 32, W / 32).
        head: (N, B, H / 32, W / 32) -> (N, K, H / 4, W / 4).
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
        self.output = SpatialSoftmax() if options["output"] == "softmax" else nn.Identity()
        self.name = name
        self.skeleton = skeleton
        self.input_size = input_size
        self.options = dict(options)

    @property
    def num_keypoints(self) -> int:
        """The number K of heatmaps."""
        return self.options["num_keypoints"]

    def forward(self, x: Tensor) -> Tensor:
        """RGB crops (N, 3, H, W), ImageNet-normalised float -> heatmaps (N, K, H / 4, W / 4).

        Raises:
            ValueError: if H or W is not divisible by 32.
        """
        if x.ndim != 4 or x.shape[-2] % 32 or x.shape[-1] % 32:
            raise ValueError(f"the network takes (N, C, H, W) with H and W divisible by 32, got {tuple(x.shape)}")
        return self.output(self.head(self.backbone(x)))

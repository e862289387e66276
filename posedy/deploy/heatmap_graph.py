"""Exported graphs of heatmaps in the place of networks."""

from typing import Any

import torch
from torch import Tensor

from posedy.deploy.graph_file import GraphInfo
from posedy.deploy.runtimes import GraphRunner
from posedy.skeleton import Skeleton


class HeatmapGraph:
    """A graph that is called as the network that it was: (N, C, H, W) -> (N, K, h, w) on the crops' device.

    Attributes:
        name: of the network.
        options: that the network was made with.
        num_keypoints: the number K of keypoints.
        input_size: (width, height) of the crops, which cannot be others.
        skeleton: the meaning of the keypoints, if it is known.
        codec: of the heatmaps.
    """

    def __init__(self, runner: GraphRunner, info: GraphInfo) -> None:
        self._runner = runner
        self.name: str = info.record["name"]
        self.options: dict[str, Any] = info.record["options"]
        self.num_keypoints = info.num_keypoints
        self.input_size = info.input_size
        self.skeleton: Skeleton | None = info.skeleton
        self.codec = info.codec

    def __call__(self, images: Tensor) -> Tensor:
        """Heatmaps of normalised crops."""
        (heatmaps,) = self._runner(images.detach().cpu().numpy())
        return torch.from_numpy(heatmaps).to(images.device)

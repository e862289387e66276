"""Exported graphs of heatmaps in the place of networks."""

import os
from typing import Any

import torch
from torch import Tensor

from posedy.deploy.graph_file import GraphInfo, read_graph
from posedy.deploy.runtimes import GraphRunner, Runtime, graph_device, make_runner
from posedy.skeleton import Skeleton


class HeatmapGraph:
    """A graph that is called as the network that it was: (N, C, H, W) -> (N, K, h, w) on the crops' device.

    Attributes:
        device: that it computes on.
        name: of the network.
        options: that the network was made with.
        num_keypoints: the number K of keypoints.
        input_size: (width, height) of the crops, which cannot be others.
        skeleton: the meaning of the keypoints, if it is known.
    """

    def __init__(self, runner: GraphRunner, info: GraphInfo, device: torch.device) -> None:
        self._runner = runner
        self.device = device
        self.name: str = info.record["name"]
        self.options: dict[str, Any] = info.record["options"]
        self.num_keypoints = info.num_keypoints
        self.input_size = info.input_size
        self.skeleton: Skeleton | None = info.skeleton

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "auto", runtime: Runtime | None = None) -> "HeatmapGraph":
        """Loads an exported file; the runtime is the one that it was exported for unless another is named.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it was not exported by posedy, gives no heatmaps, or the device is absent.
        """
        model, info = read_graph(path)
        if info.decodes:
            raise ValueError(f"{path} gives keypoints, heatmaps are wanted: export it without --decode")
        runtime = info.runtime if runtime is None else runtime
        chosen = graph_device(device, runtime)
        return cls(make_runner(model.SerializeToString(), info.batch, runtime, chosen), info, chosen)

    def __call__(self, images: Tensor) -> Tensor:
        """Heatmaps of normalised crops."""
        (heatmaps,) = self._runner(images.detach().cpu().numpy())
        return torch.from_numpy(heatmaps).to(images.device)

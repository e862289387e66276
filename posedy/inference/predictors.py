"""What turns crops into keypoints: a network, or a graph in another runtime."""

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from posedy.export.fuse import fuse
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint
from posedy.prediction import predict_keypoints
from posedy.skeleton import COCO17, Skeleton
from posedy.system import choose_device

if TYPE_CHECKING:
    from posedy.export.graph_file import GraphInfo
    from posedy.export.runtimes import GraphRunner, Runtime

Keypoints = tuple[NDArray[np.float32], NDArray[np.float32]]


class Predictor(Protocol):
    """Finds the keypoints of crops; several threads may share one.

    Attributes:
        device: that it computes on.
        input_size: (width, height) of the crops.
        skeleton: the meaning of the keypoints.
    """

    device: torch.device
    input_size: tuple[int, int]
    skeleton: Skeleton

    def __call__(self, crops: NDArray[np.uint8]) -> Keypoints:
        """Keypoints (N, K, 2) in crop pixels and scores (N, K) of crops (N, H, W, 3) uint8 RGB."""


def make_predictor(
    model: str | os.PathLike[str] | PoseNet, device: str, flip: bool, runtime: "Runtime | None" = None
) -> Predictor:
    """The predictor of a network, of a file or of a shipped network's name.

    Args:
        model: a network, which is copied, a path or a name.
        device: see `choose_device`.
        flip: whether heatmaps are averaged with those of the mirrored crop.
        runtime: of an ONNX file; None is the one that it was exported for.

    Raises:
        OSError: if the file cannot be read.
        TypeError: if the model is of another type.
        ValueError: if the file holds no network, the device is absent, or an argument does not fit the model.
    """
    if not isinstance(model, PoseNet | str | os.PathLike):
        raise TypeError(f"a model is a path, the name of a shipped model, or a PoseNet, got {type(model).__name__}")
    if not isinstance(model, PoseNet) and Path(model).suffix == ".onnx":
        return _graph_predictor(Path(model), device, flip, runtime)
    if runtime is not None:
        raise ValueError(f"runtime={runtime!r} is for .onnx files: posedy export writes them")
    chosen = choose_device(device)
    net = copy.deepcopy(model) if isinstance(model, PoseNet) else load_checkpoint(model)
    return NetworkPredictor(net, chosen, flip)


class NetworkPredictor:
    """A network in PyTorch, which it takes for its own; see `make_predictor`."""

    def __init__(self, net: PoseNet, device: torch.device, flip: bool) -> None:
        self.device = device
        self.input_size = net.input_size
        self.skeleton = _known(net.skeleton, net.num_keypoints)
        self._flip_permutation = _flip_permutation(net.skeleton) if flip else None
        # fused networks were not measured on GPUs
        self._net = fuse(net).to(device) if device.type == "cpu" else net.eval().to(device)
        self._codec = net.codec

    def __call__(self, crops: NDArray[np.uint8]) -> Keypoints:
        """Keypoints and scores of crops."""
        return predict_keypoints(self._net, crops, self._codec, self._flip_permutation, self.device)


class HeatmapGraphPredictor:
    """A graph from normalised crops to heatmaps; see `make_predictor`."""

    def __init__(self, runner: "GraphRunner", info: "GraphInfo", device: torch.device, flip: bool) -> None:
        from posedy.export.graph_file import HeatmapGraph

        self.device = device
        self.input_size = info.input_size
        self.skeleton = _known(info.skeleton, info.num_keypoints)
        self._flip_permutation = _flip_permutation(info.skeleton) if flip else None
        self._heatmaps = HeatmapGraph(runner, info)
        self._codec = info.codec

    def __call__(self, crops: NDArray[np.uint8]) -> Keypoints:
        """Keypoints and scores of crops."""
        return predict_keypoints(self._heatmaps, crops, self._codec, self._flip_permutation)


class DecodingGraphPredictor:
    """A graph from crops to keypoints; see `make_predictor`."""

    def __init__(self, runner: "GraphRunner", info: "GraphInfo", device: torch.device, flip: bool) -> None:
        if flip != info.flip:
            inside, wanted = ("averages", "flip=True") if info.flip else ("does not average", "flip=False")
            raise ValueError(
                f"the graph decodes inside and {inside} with the mirrored crop: use it with {wanted}, or export it anew"
            )
        self.device = device
        self.input_size = info.input_size
        self.skeleton = _known(info.skeleton, info.num_keypoints)
        self._runner = runner

    def __call__(self, crops: NDArray[np.uint8]) -> Keypoints:
        """Keypoints and scores of crops."""
        keypoints, scores = self._runner(crops)
        if np.isnan(scores).any():
            raise ValueError("heatmaps contain NaN: the network's weights or its input are broken")
        return keypoints, scores


def _graph_predictor(path: Path, device: str, flip: bool, runtime: "Runtime | None") -> Predictor:
    from posedy.export.graph_file import load_graph

    runner, info, chosen = load_graph(path, device, runtime)
    kind = DecodingGraphPredictor if info.decodes else HeatmapGraphPredictor
    return kind(runner, info, chosen, flip)


def _flip_permutation(skeleton: Skeleton | None) -> list[int]:
    """The skeleton's, for averaging with the mirrored crop.

    Raises:
        ValueError: if there is no skeleton.
    """
    if skeleton is None:
        raise ValueError(
            "the network does not say which of its keypoints are left and right: flip=True needs a skeleton "
            "(create_model(..., skeleton=...)); flip=False does without"
        )
    return list(skeleton.flip_permutation)


def _known(skeleton: Skeleton | None, num_keypoints: int) -> Skeleton:
    """The skeleton; for one that is not known, numbered keypoints without limbs, sigmas the mean of COCO's."""
    if skeleton is not None:
        return skeleton
    names = tuple(f"keypoint_{index}" for index in range(num_keypoints))
    return Skeleton(names, (), (), (float(np.mean(COCO17.sigmas)),) * num_keypoints)

"""Prediction: one interface for PyTorch networks and exported graphs, and the keypoints of crops in image pixels.

    model = load_model("dy_mobilenetv2_050-dy_bneck")
    keypoints, scores = predict_keypoints(model, crops, image_to_crop, model.skeleton.flip_permutation)

The estimator and the evaluator both use `predict_keypoints`, so that they predict the same keypoints.
"""

import copy
import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from posedy.codecs import HeatmapCodec
from posedy.export.fuse import fuse
from posedy.export.graph_file import GraphInfo, load_graph
from posedy.export.runtimes import GraphRunner, Runtime
from posedy.geometry import FloatArray, apply_affine, invert_affine
from posedy.models.pose_net import PoseNet, predict_heatmaps
from posedy.models.pretrained import load_checkpoint
from posedy.skeleton import Skeleton
from posedy.system import choose_device


class Model(ABC):
    """Predicts heatmaps or keypoints of crops, in PyTorch or another runtime; several threads may share one.

    Args:
        name: the network's name in `list_models`.
        options: the options that the network was created with.
        skeleton: the meaning of the K keypoints; None if unknown.
        num_keypoints: the number K of keypoints.
        codec: of the heatmaps; it has the size of the crops.
        device: the device that computes.
    """

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, Any],
        skeleton: Skeleton | None,
        num_keypoints: int,
        codec: HeatmapCodec,
        device: torch.device,
    ) -> None:
        self.name = name
        self.options = options
        self.skeleton = skeleton
        self.num_keypoints = num_keypoints
        self.codec = codec
        self.device = device

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the crops."""
        return self.codec.input_size

    @abstractmethod
    def __call__(self, crops: NDArray[np.uint8], flip_permutation: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Predicts the outputs of crops, which `decode` turns into keypoints.

        Args:
            crops: (N, H, W, 3) uint8 RGB.
            flip_permutation: K indices for the flip test, `Skeleton.flip_permutation`; None is no flip test.

        Returns:
            `heatmaps` (N, K, h, w) float32, or, of a graph that decodes, `keypoints` (N, K, 2) in crop pixels and
            `scores` (N, K).
        """

    def decode(self, outputs: Mapping[str, Tensor]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decodes the outputs of a call.

        Returns:
            Keypoints (N, K, 2) float32 in crop pixels and scores (N, K) float32.

        Raises:
            ValueError: if heatmaps contain NaN.
        """
        keypoints, scores = self.codec.decode(outputs["heatmaps"])
        return keypoints.cpu().numpy(), scores.cpu().numpy()

    def check_flip(self, flip: bool) -> None:
        """Checks that the model can predict with its own skeleton's flip test, or without it.

        Raises:
            ValueError: if it cannot.
        """
        if flip and self.skeleton is None:
            raise ValueError(
                "the network does not say which of its keypoints are left and right: flip=True needs a skeleton "
                "(create_model(..., skeleton=...)); flip=False does without"
            )

    def with_input_size(self, input_size: tuple[int, int]) -> "Model":
        """Returns the same model for crops of another size, (width, height).

        Raises:
            ValueError: if the size is not divisible by 32, or the model takes one size only.
        """
        model = copy.copy(self)
        model.codec = dataclasses.replace(self.codec, input_size=input_size)
        return model


class TorchModel(Model):
    """A network in PyTorch.

    Args:
        net: the network in evaluation mode, on the device; it is not copied.
        device: its device.
    """

    def __init__(self, net: PoseNet, device: torch.device | str = "cpu") -> None:
        super().__init__(
            name=net.name,
            options=net.options,
            skeleton=net.skeleton,
            num_keypoints=net.num_keypoints,
            codec=net.codec,
            device=torch.device(device),
        )
        self._net = net

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8], flip_permutation: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Predicts `heatmaps` (N, K, h, w) of crops, see `Model`."""
        batch = torch.from_numpy(crops).to(self.device)
        return {"heatmaps": predict_heatmaps(self._net, batch, self.codec, flip_permutation)}


class GraphModel(Model):
    """An exported graph in ONNX Runtime or OpenVINO; see `load_model`.

    Args:
        runner: runs the graph.
        info: the metadata of its file.
        device: the runner's device.
    """

    def __init__(self, runner: GraphRunner, info: GraphInfo, device: torch.device) -> None:
        super().__init__(
            name=info.record["name"],
            options=info.record["options"],
            skeleton=info.skeleton,
            num_keypoints=info.num_keypoints,
            codec=info.codec,
            device=device,
        )
        self.info = info
        self._runner = runner

    def __call__(self, crops: NDArray[np.uint8], flip_permutation: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Predicts `heatmaps`, or `keypoints` and `scores`, of crops, see `Model`.

        Raises:
            ValueError: if the graph decodes, and its flip test is not the requested one.
        """
        if self.info.decodes:
            self.check_flip(flip_permutation is not None)
            keypoints, scores = self._runner(crops)
            return {"keypoints": torch.from_numpy(keypoints), "scores": torch.from_numpy(scores)}
        return {"heatmaps": predict_heatmaps(self._heatmaps, torch.from_numpy(crops), self.codec, flip_permutation)}

    def _heatmaps(self, images: Tensor) -> Tensor:
        """Heatmaps (N, K, h, w) of normalized crops (N, 3, H, W), on the CPU."""
        (heatmaps,) = self._runner(images.numpy())
        return torch.from_numpy(heatmaps)

    def decode(self, outputs: Mapping[str, Tensor]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decodes the outputs of a call, see `Model`; a graph that decodes has done so already."""
        if not self.info.decodes:
            return super().decode(outputs)
        if outputs["scores"].isnan().any():
            raise ValueError("heatmaps contain NaN: the network's weights or its input are broken")
        return outputs["keypoints"].numpy(), outputs["scores"].numpy()

    def check_flip(self, flip: bool) -> None:
        """Checks that the graph can predict with or without the flip test: one that decodes has it inside, or not.

        Raises:
            ValueError: if it cannot.
        """
        if not self.info.decodes:
            super().check_flip(flip)
        elif flip != self.info.flip:
            inside, wanted = ("averages", "flip=True") if self.info.flip else ("does not average", "flip=False")
            raise ValueError(
                f"the graph decodes inside and {inside} with the flipped crop: use it with {wanted}, or export it again"
            )

    def with_input_size(self, input_size: tuple[int, int]) -> "Model":
        """Returns the model; a graph takes crops of one size only.

        Raises:
            ValueError: if the size is another.
        """
        if input_size != self.input_size:
            raise ValueError(f"the graph takes crops of {self.input_size} only, got input_size={input_size}")
        return self


def load_model(
    model: str | os.PathLike[str] | PoseNet, device: str = "auto", runtime: Runtime | None = None, fused: bool = True
) -> Model:
    """Loads a model for inference.

    Args:
        model: a network, which is copied; a checkpoint (.pt), .safetensors or exported .onnx file; or the name of a
            shipped model.
        device: see `choose_device`, and for .onnx files `graph_device`.
        runtime: of an .onnx file; None is the one that it was exported for.
        fused: whether a PyTorch network is fused on the CPU (`posedy.export.fuse`): faster, and equal up to rounding.

    Raises:
        OSError: if the file cannot be read.
        TypeError: if the model is of another type.
        ValueError: if the file contains no network, the device is absent, or an argument does not fit the model.
    """
    if not isinstance(model, PoseNet | str | os.PathLike):
        raise TypeError(f"a model is a path, the name of a shipped model, or a PoseNet, got {type(model).__name__}")
    if not isinstance(model, PoseNet) and Path(model).suffix == ".onnx":
        return GraphModel(*load_graph(model, device, runtime))
    if runtime is not None:
        raise ValueError(f"runtime={runtime!r} is for .onnx files: posedy export writes them")
    chosen = choose_device(device)
    net = copy.deepcopy(model) if isinstance(model, PoseNet) else load_checkpoint(model)
    # fused networks were not measured on GPUs
    net = fuse(net) if fused and chosen.type == "cpu" else net.eval()
    return TorchModel(net.to(chosen), chosen)


def predict_keypoints(
    model: Model, crops: NDArray[np.uint8], image_to_crop: ArrayLike, flip_permutation: Sequence[int] | None = None
) -> tuple[FloatArray, NDArray[np.float32]]:
    """Predicts the keypoints of crops in image pixels: network, flip test, decoding, and the map back to the image.

    Args:
        model: predicts the crops.
        crops: (N, H, W, 3) uint8 RGB, of `warp_crop`.
        image_to_crop: (N, 2, 3), the affine maps of the crops.
        flip_permutation: K indices for the flip test, `Skeleton.flip_permutation`; None is no flip test.

    Returns:
        Keypoints (N, K, 2) float64 in image pixels and scores (N, K) float32.

    Raises:
        ValueError: if heatmaps contain NaN, or the flip test does not fit a graph that decodes.
    """
    in_crop, scores = model.decode(model(crops, flip_permutation))
    return apply_affine(invert_affine(image_to_crop), in_crop), scores

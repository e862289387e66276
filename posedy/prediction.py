"""Prediction: one interface for PyTorch networks and exported graphs, and the keypoints of crops in image pixels.

    model = load_model("balanced")
    keypoints, scores = predict_keypoints(model, crops, image_to_crop, model.skeleton.flip_permutation)

The estimator and the evaluator both use `predict_keypoints`, so that they predict the same keypoints.
"""

import copy
import dataclasses
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from posedy.codecs import Codec, Outputs
from posedy.export.fuse import fuse
from posedy.export.graph_file import GraphInfo, load_graph
from posedy.export.runtimes import GraphRunner, prefers_openvino
from posedy.geometry import FloatArray, apply_affine, invert_affine
from posedy.models.pose_net import PoseNet, predict_outputs
from posedy.models.pretrained import load_checkpoint
from posedy.skeleton import Skeleton
from posedy.system import choose_device, one_torch_thread, use_one_thread_after_fork

_LOGGER = logging.getLogger("posedy")
# Few crops use the cores better together with the flipped ones; of many, one batch is enough.
_MAX_IN_ONE_BATCH = 8
# With more crops torch's threads gain more than they cost.
_MAX_ON_ONE_THREAD = 2


class Model(ABC):
    """Predicts the codec's outputs or keypoints of crops, in PyTorch or another runtime; several threads may share one.

    Args:
        name: the network's name in `list_models`.
        options: the options that the network was created with.
        skeleton: the skeleton of the K keypoints; None if unknown.
        num_keypoints: the number K of keypoints.
        codec: the codec of the outputs, with the size of the crops.
        device: the device of the model.

    Attributes:
        runtime: "torch", "onnxruntime" or "openvino".
    """

    runtime: str

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, Any],
        skeleton: Skeleton | None,
        num_keypoints: int,
        codec: Codec,
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
        """The size (width, height) of the crops."""
        return self.codec.input_size

    @abstractmethod
    def __call__(self, crops: NDArray[np.uint8], flip_permutation: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Predicts the outputs of crops, which `decode` turns into keypoints.

        Args:
            crops: (N, H, W, 3) uint8 RGB.
            flip_permutation: K indices for the flip test, `Skeleton.flip_permutation`; None is no flip test.

        Returns:
            The codec's outputs, for heatmap codecs `heatmaps` (N, K, h, w) float32; of a graph that decodes,
            `keypoints` (N, K, 2) in crop pixels and `scores` (N, K).
        """

    def decode(self, outputs: Outputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decodes the outputs of a call.

        Returns:
            Keypoints (N, K, 2) float32 in crop pixels and scores (N, K) float32.

        Raises:
            TypeError: if the codec does not return two tensors.
            ValueError: if they have the wrong shape, or a coordinate or a score is NaN.
        """
        decoded: object = self.codec.decode(outputs)
        if not (isinstance(decoded, tuple | list) and len(decoded) == 2):
            raise TypeError(
                f"expected decode of codec {self.codec.name!r} to return (keypoints, scores), got "
                f"{type(decoded).__name__}"
            )
        keypoints, scores = decoded
        if not (isinstance(keypoints, Tensor) and isinstance(scores, Tensor)):
            raise TypeError(
                f"expected decode of codec {self.codec.name!r} to return tensors, got {type(keypoints).__name__} and "
                f"{type(scores).__name__}"
            )
        shape = (len(next(iter(outputs.values()))), self.num_keypoints)
        if keypoints.shape != (*shape, 2) or scores.shape != shape:
            raise ValueError(
                f"expected decode of codec {self.codec.name!r} to return keypoints {(*shape, 2)} and scores {shape}, "
                f"got {tuple(keypoints.shape)} and {tuple(scores.shape)}"
            )
        return _checked(keypoints.detach(), scores.detach())

    def check_flip(self, flip: bool) -> None:
        """Checks that the model can predict with its own skeleton's flip test, or without it.

        Raises:
            ValueError: if it cannot.
        """
        if flip and self.skeleton is None:
            raise ValueError(
                "the network has no skeleton with left and right keypoints, which the flip test requires: use "
                "create_model(..., skeleton=...), or predict without the flip test (flip=False, --no-flip)"
            )

    def with_input_size(self, input_size: tuple[int, int]) -> "Model":
        """Returns the same model for crops of another size, (width, height).

        Raises:
            ValueError: if the size is not divisible by 32, or the model supports only another size.
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

    runtime = "torch"

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
        """Predicts the outputs of crops, see `Model`."""
        batch = crops if self.device.type == "cpu" else torch.from_numpy(crops).to(self.device)
        return predict_outputs(self._net, batch, self.codec, flip_permutation, len(crops) <= _MAX_IN_ONE_BATCH)

    def with_input_size(self, input_size: tuple[int, int]) -> "Model":
        """Returns the same model for crops of another size, see `Model`."""
        self._net.check_input_size(input_size)
        return super().with_input_size(input_size)


class GraphModel(Model):
    """A graph in ONNX Runtime or OpenVINO: an exported file, or a network converted in memory; see `load_model`.

    Args:
        runner: runs the graph.
        info: its metadata.
        device: the runner's device.
        runtime: the runner's runtime.
    """

    def __init__(self, runner: GraphRunner, info: GraphInfo, device: torch.device, runtime: str) -> None:
        super().__init__(
            name=info.record["name"],
            options=info.record["options"],
            skeleton=info.skeleton,
            num_keypoints=info.num_keypoints,
            codec=info.codec,
            device=device,
        )
        self.info = info
        self.runtime = runtime
        self._runner = runner

    def __call__(self, crops: NDArray[np.uint8], flip_permutation: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Predicts the outputs of crops, or their `keypoints` and `scores`, see `Model`.

        Raises:
            ValueError: if the graph decodes, and its flip test is not the requested one.
        """
        if self.info.decodes:
            self.check_flip(flip_permutation is not None)
            keypoints, scores = self._runner(crops)
            return {"keypoints": torch.from_numpy(keypoints), "scores": torch.from_numpy(scores)}
        with self._torch_threads(len(crops)):
            return predict_outputs(self._run, crops, self.codec, flip_permutation, len(crops) <= _MAX_IN_ONE_BATCH)

    def _run(self, images: Tensor) -> list[Tensor]:
        """Returns the graph's outputs for normalized crops (N, 3, H, W), on the CPU."""
        return [torch.from_numpy(output) for output in self._runner(images.numpy())]

    def decode(self, outputs: Outputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decodes the outputs of a call, see `Model`; a graph that decodes has done so already."""
        if self.info.decodes:
            return _checked(outputs["keypoints"], outputs["scores"])
        with self._torch_threads(len(next(iter(outputs.values())))):
            return super().decode(outputs)

    def _torch_threads(self, crops: int) -> AbstractContextManager[None]:
        """Limits torch to one thread for a few crops on a CPU."""
        return one_torch_thread() if crops <= _MAX_ON_ONE_THREAD and self.device.type == "cpu" else nullcontext()

    def check_flip(self, flip: bool) -> None:
        """Checks that the graph can predict with or without the flip test, which is fixed in a graph that decodes.

        Raises:
            ValueError: if it cannot.
        """
        if not self.info.decodes:
            super().check_flip(flip)
        elif flip != self.info.flip:
            inside, wanted = (
                ("averages", "with the flip test (flip=True, the default)")
                if self.info.flip
                else ("does not average", "without the flip test (flip=False, --no-flip)")
            )
            raise ValueError(
                f"the graph decodes keypoints and {inside} with the flipped crop: predict {wanted}, or export it again"
            )

    def with_input_size(self, input_size: tuple[int, int]) -> "Model":
        """Returns the model; a graph supports crops of one size only.

        Raises:
            ValueError: if the size differs from the graph's.
        """
        if input_size != self.input_size:
            raise ValueError(f"the graph supports only crops of {self.input_size}, got input_size={input_size}")
        return self


RuntimeChoice = Literal["auto", "torch", "onnxruntime", "openvino"]
"""The runtime: PyTorch, ONNX Runtime or OpenVINO, or "auto".

"auto" is the runtime that an .onnx file was exported for. For pretrained networks and network files it is OpenVINO on a
CPU, if it is installed and supports the network, otherwise PyTorch; the environment variable POSEDY_RUNTIME=torch
selects PyTorch, too. For a network object, which may still change, it is PyTorch.
"""


def load_model(
    model: str | os.PathLike[str] | PoseNet, device: str = "auto", runtime: RuntimeChoice = "auto", fused: bool = True
) -> Model:
    """Loads a network or an exported graph for inference on a device, in a runtime.

    Args:
        model: a network, which is copied; a checkpoint (.pt), .safetensors or exported .onnx file; or the name of a
            pretrained network.
        device: see `choose_device`, and for .onnx files `graph_device`.
        runtime: see `RuntimeChoice`; .onnx files do not run in PyTorch, and networks not in ONNX Runtime.
        fused: whether a PyTorch network is fused on the CPU (`posedy.export.fuse`): faster, and equal up to rounding.

    Raises:
        OSError: if the file cannot be read.
        TypeError: if the model has the wrong type.
        ValueError: if the file contains no network, the device is absent, or an argument does not fit the model.
    """
    if not isinstance(model, PoseNet | str | os.PathLike):
        raise TypeError(
            f"a model is a path, the name of a pretrained network, or a PoseNet, got {type(model).__name__}"
        )
    if runtime not in get_args(RuntimeChoice):
        raise ValueError(f"runtime must be one of {list(get_args(RuntimeChoice))}, got {runtime!r}")
    use_one_thread_after_fork()
    if not isinstance(model, PoseNet) and Path(model).suffix.lower() == ".onnx":
        if runtime == "torch":
            raise ValueError(f"{model} runs in onnxruntime or openvino, got runtime='torch'")
        return GraphModel(*load_graph(model, device, None if runtime == "auto" else runtime))
    if runtime == "onnxruntime":
        raise ValueError("runtime='onnxruntime' is for .onnx files: posedy export writes them")
    net = copy.deepcopy(model) if isinstance(model, PoseNet) else load_checkpoint(model)
    if runtime == "openvino":
        if device != "auto" and choose_device(device).type != "cpu":
            raise ValueError(f"expected device cpu for OpenVINO, got {device!r}")
        return _load_in_openvino(net.cpu().eval(), keep=not isinstance(model, PoseNet))
    chosen = choose_device(device)
    if runtime == "auto" and chosen.type == "cpu" and not isinstance(model, PoseNet) and prefers_openvino():
        from posedy.export.openvino_graph import has_known_classes

        if has_known_classes(net):
            try:
                return _load_in_openvino(net.eval())
            except ValueError as error:
                _LOGGER.warning("%s runs in PyTorch: %s", net.name, error)
    # fused networks were not measured on GPUs
    net = fuse(net) if fused and chosen.type == "cpu" else net.eval()
    return TorchModel(net.to(chosen), chosen)


def _load_in_openvino(net: PoseNet, keep: bool = True) -> GraphModel:
    from posedy.export.openvino_graph import load_network_graph  # imports parts of torch that other runtimes don't need

    return GraphModel(*load_network_graph(net, keep))


def _checked(keypoints: Tensor, scores: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns decoded keypoints as arrays.

    Raises:
        ValueError: if a coordinate or a score is NaN.
    """
    if scores.isnan().any() or keypoints.isnan().any():
        raise ValueError("the network's outputs contain NaN: its weights or its input are broken")
    return keypoints.cpu().numpy(), scores.cpu().numpy()


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
        ValueError: if outputs contain NaN, or the flip test does not fit a graph that decodes.
    """
    in_crop, scores = model.decode(model(crops, flip_permutation))
    return apply_affine(invert_affine(image_to_crop), in_crop), scores

"""Export of networks to ONNX files, which are verified against PyTorch before they are written.

With `half`, weights are stored in float16, each followed by a Cast to float32. This halves the file size, computations
stay in float32, and every runtime supports it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posedy.codecs import Codec
from posedy.export.graph_file import METADATA_KEY, GraphInfo
from posedy.export.onnx_layers import Batch, prepare_for_export
from posedy.export.runtimes import RUNTIMES, GraphRunner, Runtime, make_runner, require
from posedy.export.tracing import random_inputs, relative_difference, silence_exporter, smooth_inputs
from posedy.files import atomic_write
from posedy.models.pose_net import PoseNet, name_outputs, predict_outputs

TOLERANCE = 1e-4
"""Largest allowed difference from PyTorch, relative to the largest output."""
HALF_TOLERANCE = 2e-2
"""Largest allowed difference of a graph with float16 weights, which have relative errors of up to 5e-4."""

# rounding may resolve near ties of heatmap pixels differently, so a few keypoints may move
_MAX_MOVED_FRACTION = 0.05
_MOVED_PIXELS = 0.05

_LARGEST_VERIFIED_BATCH = 5

FASTEST_BATCH: dict[Runtime, Batch] = {"onnxruntime": 1, "openvino": 1}
"""The fastest batch size of a graph in each runtime, also for several persons.

Measured earlier on a CPU with AVX512: eight crops with the dynamic MobileNetV2 x0.5 backbone on one thread took 39 ms
in ONNX Runtime and 18 ms in OpenVINO with eight calls of the graph of batch size 1, and 54 and 64 ms with one call of
the graph of any batch size.
"""


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Attributes:
        info: metadata of the file.
        difference: largest difference from PyTorch relative to the largest output (of scores, if the graph decodes).
        tolerance: largest allowed difference.
        moved_fraction: fraction of keypoints at other positions than in PyTorch; 0 if the graph outputs heatmaps.
    """

    info: GraphInfo
    difference: float
    tolerance: float
    moved_fraction: float


def export_onnx(
    net: PoseNet,
    path: str | Path,
    *,
    batch: Batch | None = None,
    runtime: Runtime = "onnxruntime",
    with_decoding: bool = False,
    flip: bool = True,
    half: bool = False,
) -> ExportReport:
    """Exports a network to an ONNX file, which is only written if its output equals the network's.

    The graph has one input and one or two outputs:

        images (N, C, H, W) float32, ImageNet-normalized RGB -> heatmaps (N, K, H / 4, W / 4)
        crops (N, H, W, 3) uint8 RGB -> keypoints (N, K, 2) in crop pixels and scores (N, K), with decoding

    Args:
        net: the network; it is not changed.
        path: NAME.onnx.
        batch: "free" for any N, or 1; None is the fastest for the runtime.
        runtime: runtime that verifies the file, and the default for running it; other runtimes can run it too.
        with_decoding: whether the graph decodes keypoints, see above.
        flip: with decoding, whether heatmaps are averaged with those of the flipped crop.
        half: whether large weights are stored in float16, which halves the file size; they are computed in float32.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if an argument is invalid, a package is missing, or the graph's output differs from the network's.
    """
    if Path(path).suffix.lower() != ".onnx":
        raise ValueError(f"expected a file name NAME.onnx, got {path}")
    if runtime not in RUNTIMES:
        raise ValueError(f"expected runtime to be one of {list(RUNTIMES)}, got {runtime!r}")
    batch = FASTEST_BATCH[runtime] if batch is None else batch
    if batch not in ("free", 1):
        raise ValueError(f"expected batch to be 'free' or 1, got {batch!r}")
    if with_decoding and net.in_channels not in (1, 3):
        raise ValueError(
            f"decoding needs a network with 1 or 3 input channels, got {net.in_channels}: use with_decoding=False"
        )
    if with_decoding and flip and net.skeleton is None:
        raise ValueError(
            "the flip test needs a skeleton with left and right keypoints, the network has none: use flip=False"
        )
    require("onnx", "onnxscript", runtime)
    reference = _wrap_network(copy.deepcopy(net).cpu().float().eval(), with_decoding, flip)
    info = GraphInfo.from_network(net, batch=batch, runtime=runtime, decodes=with_decoding, flip=flip, half=half)
    with atomic_write(path) as temporary:
        _write_graph(_make_export_module(reference, batch, runtime), temporary, info)
        runner = make_runner(temporary.read_bytes(), batch, runtime)
        return _verify(runner, reference, info)


class _Outputs(nn.Module):
    """A module with normalized crops as input and the network's outputs, such as heatmaps, as outputs."""

    inputs = ("images",)

    def __init__(self, net: PoseNet) -> None:
        super().__init__()
        self.net, self.outputs = net, net.codec.output_names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Computes the outputs of crops (N, C, H, W) float32, in the order of the codec's names."""
        return tuple(name_outputs(self.net(images), self.net.codec).values())


class _Keypoints(nn.Module):
    """A module with uint8 crops as input and keypoints and scores as output."""

    inputs, outputs = ("crops",), ("keypoints", "scores")

    def __init__(self, net: PoseNet, codec: Codec, flip: bool) -> None:
        super().__init__()
        self.net, self.codec = net, codec
        self.flip_permutation = net.skeleton.flip_permutation if flip and net.skeleton is not None else None

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Computes keypoints (N, K, 2) and scores (N, K) of crops (N, H, W, 3) uint8."""
        return self.codec.decode(predict_outputs(self.net, crops, self.codec, self.flip_permutation))


def _wrap_network(net: PoseNet, with_decoding: bool, flip: bool) -> _Outputs | _Keypoints:
    return _Keypoints(net, net.codec, flip) if with_decoding else _Outputs(net)


def _make_export_module(reference: _Outputs | _Keypoints, batch: Batch, runtime: Runtime) -> _Outputs | _Keypoints:
    """Returns a copy whose layers are replaced for export."""
    module = copy.deepcopy(reference)
    module.net = prepare_for_export(module.net, batch, runtime)
    return module.eval().requires_grad_(False)


def _write_graph(module: _Outputs | _Keypoints, path: Path, info: GraphInfo) -> None:
    """Traces a module and writes its graph and metadata."""
    import onnx

    # tracing with a batch of one would fix the batch size
    example = random_inputs(module.net, info.decodes, 1 if info.batch == 1 else 2)
    free_dims = {0: torch.export.Dim("batch")} if info.batch == "free" else None
    trace(module, example, path, module.inputs, module.outputs, free_dims)
    model = onnx.load(path)
    if info.half:
        cast_weights_to_float16(model)
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    model.producer_name, model.producer_version = "posedy", info.version
    onnx.save(model, path)


def _verify(runner: GraphRunner, reference: _Outputs | _Keypoints, info: GraphInfo) -> ExportReport:
    """Compares the outputs of a graph and of PyTorch for noise and for smooth images.

    Raises:
        ValueError: if they differ by more than the tolerance.
    """
    tolerance = HALF_TOLERANCE if info.half else TOLERANCE
    difference, moved, keypoints = 0.0, 0, 0
    for size in (1, _LARGEST_VERIFIED_BATCH) if info.batch == "free" else (1, 1):
        for inputs in (
            random_inputs(reference.net, info.decodes, size),
            smooth_inputs(reference.net, info.decodes, size),
        ):
            with torch.no_grad():
                expected = reference(inputs)
            outputs = [torch.from_numpy(output) for output in runner(inputs.numpy())]
            if info.decodes:
                distances = (outputs[0] - expected[0]).abs().amax(dim=-1)
                moved += int((distances > _MOVED_PIXELS).sum())
                keypoints += distances.numel()
            for output, wanted in list(zip(outputs, expected, strict=True))[1 if info.decodes else 0 :]:
                if output.shape != wanted.shape:
                    raise ValueError(
                        f"expected a graph output of shape {tuple(wanted.shape)}, got {tuple(output.shape)}"
                    )
                difference = max(difference, relative_difference(output, wanted))
    moved_fraction = moved / keypoints if keypoints else 0.0
    if difference > tolerance:
        raise ValueError(
            f"the graph's output differs from PyTorch's by {difference:.1e} of the largest output "
            f"(allowed: {tolerance:.0e}), no file was written{_float16_hint(info)}"
        )
    if moved_fraction > _MAX_MOVED_FRACTION and not info.half:
        raise ValueError(f"{moved_fraction:.0%} of the graph's keypoints differ from PyTorch's, no file was written")
    return ExportReport(info, difference, tolerance, moved_fraction)


def _float16_hint(info: GraphInfo) -> str:
    return ": export with half=False, float16 is not precise enough for these weights" if info.half else ""


_OPSET = 18


def trace(
    module: nn.Module,
    example: Tensor,
    path: Path,
    inputs: Sequence[str] = ("images",),
    outputs: Sequence[str] = ("features",),
    free_dims: Mapping[int, Any] | None = None,
) -> None:
    """Traces a module with one input and writes its graph.

    Args:
        module: module in evaluation mode.
        example: an input; two or more images if the batch size is free.
        path: path of the ONNX file.
        inputs: name of the input.
        outputs: names of the outputs.
        free_dims: dimensions of the input that may have other sizes than in the example, as `torch.export.Dim`.
    """
    from onnxscript.optimizer import fold_constants

    with silence_exporter(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=None if free_dims is None else (free_dims,),
            optimize=False,  # runtimes optimize graphs when they load them; this would double the export time
            verbose=False,
        )
    assert program is not None  # with dynamo
    # ONNX Runtime keeps casts of constants, such as the limits of ReLU6, and then doesn't fuse activations and
    # convolutions: static MobileNets took 1.5 times as long
    fold_constants(program.model)
    program.save(path)


_MIN_FLOAT16_SIZE = 256
"""Tensors with fewer values, such as biases and constants, stay in float32."""


def cast_weights_to_float16(model: Any) -> None:
    """Converts the large float32 tensors of an onnx.ModelProto to float16, in place.

    Raises:
        ValueError: if a weight exceeds the range of float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _MIN_FLOAT16_SIZE:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ValueError(f"{tensor.name} exceeds the range of float16: export with half=False")
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    converted = {cast.output[0] for cast in casts}
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    # the exporter's type entries of these initializers now belong to the outputs of the casts
    kept = [value for value in graph.value_info if value.name not in converted]
    del graph.value_info[:]
    graph.value_info.extend(kept)

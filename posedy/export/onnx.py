"""Export of networks to ONNX files, which are verified against PyTorch before they are written."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posedy.codecs import Codec
from posedy.export.graph_file import METADATA_KEY, GraphInfo
from posedy.export.int8_search import (
    Agreement,
    Calibration,
    check_agreement,
    compare_keypoints,
    predict,
    quantize_statically,
)
from posedy.export.onnx_layers import Batch, prepare_for_export
from posedy.export.onnx_weights import Weights, remove_traces, replace_weights, store_weights
from posedy.export.runtimes import RUNTIMES, GraphRunner, Runtime, make_runner, require
from posedy.export.tracing import random_inputs, relative_difference, silence_exporter, smooth_inputs
from posedy.files import atomic_write, named_write_errors
from posedy.models.pose_net import PoseNet, name_outputs, predict_outputs

TOLERANCE = 1e-4
"""Largest allowed difference from PyTorch, relative to the largest output."""
_MAX_ROUNDING = 0.5
"""Largest allowed difference of a graph with float16 or int8 weights by their rounding.

It depends on the network: on noise it is 0.04 in float16 and 0.2 in int8 for `balanced`, whose AP changes by less than
0.003. Therefore the limit only excludes broken weights; that the graph is right follows from `TOLERANCE` before and
after the rounding.
"""

# rounding may resolve near ties of heatmap pixels differently, so a few keypoints may move
_MAX_MOVED_FRACTION = 0.05
MOVED_PIXELS = 0.05
"""A keypoint has moved if it is farther than this from PyTorch's in x or y, in crop pixels."""

_LARGEST_VERIFIED_BATCH = 5

FASTEST_BATCH: dict[Runtime, Batch] = {"onnxruntime": 1, "openvino": 1}
"""The fastest batch size of a graph in each runtime, also for several persons.

Measured earlier on a CPU with AVX512: eight crops with the dynamic MobileNetV2 x0.5 backbone on one thread took 39 ms
in ONNX Runtime and 18 ms in OpenVINO with eight calls of the graph of batch size 1, and 54 and 64 ms with one call of
the graph of any batch size.
"""


@dataclass(frozen=True)
class ExportReport:
    """The metadata of an exported file and its numerical difference from PyTorch.

    Attributes:
        info: metadata of the file.
        difference: largest difference from PyTorch relative to the largest output (of scores, if the graph decodes);
            with weights in float16 or int8, that from the graph with the rounded weights in float32; if convolutions
            compute in int8, too, that of the float graph from PyTorch.
        moved_fraction: fraction of keypoints at other positions than in PyTorch, by more than `MOVED_PIXELS`, on noise
            and smooth shapes; 0 if the graph outputs heatmaps. With a calibration, of the float graph.
        largest_distance: largest distance of these keypoints in x or y, in crop pixels.
        rounding: with weights in float16 or int8, the largest difference from PyTorch, by the rounding of weights; 0
            with a calibration, where `agreement` has the differences.
        agreement: if convolutions compute in int8, the comparison with the float graph.
        accuracy: a sentence about the accuracy of such a graph, of `Calibration.check`.
    """

    info: GraphInfo
    difference: float
    moved_fraction: float
    largest_distance: float = 0.0
    rounding: float = 0.0
    agreement: Agreement | None = None
    accuracy: str | None = None


def export_onnx(
    net: PoseNet,
    path: str | Path,
    *,
    batch: Batch | None = None,
    runtime: Runtime = "onnxruntime",
    with_decoding: bool = False,
    flip: bool = True,
    half: bool = False,
    int8: bool = False,
    calibration: Calibration | None = None,
    log: Callable[[str], None] = print,
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
        int8: whether they are stored in int8, which takes a quarter of the file size.
        calibration: with int8, crops on which convolutions with constant kernels are quantized to compute in int8.
        log: receives progress messages of the calibration.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if the network is not a `PoseNet`.
        ValueError: if an argument is invalid, a package is missing, the graph's output differs from the network's, or
            an int8 graph is less accurate than the calibration allows.
    """
    if not isinstance(net, PoseNet):
        raise TypeError(f"expected a posedy.PoseNet, got {net!r:.100}: posedy.load_checkpoint loads files and presets")
    if half and int8:
        raise ValueError("expected half or int8, got both: weights are stored in float16 or in int8")
    if calibration is not None and not int8:
        raise ValueError("calibration is for int8: use int8=True, or leave it out")
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
    weights: Weights = "int8" if int8 else "float16" if half else "float32"
    info = GraphInfo.from_network(net, batch=batch, runtime=runtime, decodes=with_decoding, flip=flip, weights=weights)
    _check_outputs(reference, info)
    with atomic_write(path) as temporary:
        module = _make_export_module(reference, batch, runtime)
        with named_write_errors(path):
            model = _trace_graph(module, temporary, info)
        report = _verify(_make_runner(model, info), reference, reference.net, info)
        if calibration is not None:
            model, report = _quantize(model, report, calibration, log)
        elif weights != "float32":
            report = _round_weights(model, reference, report)
        with named_write_errors(path):
            _save(model, temporary, report.info)
        return report


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


def _check_outputs(reference: _Outputs | _Keypoints, info: GraphInfo) -> None:
    """Checks that a network has outputs with which those of a graph can be compared.

    Raises:
        ValueError: if they are not finite, or all 0.
    """
    with torch.no_grad():
        outputs = reference(random_inputs(reference.net, info.decodes, 1))
    problem = None
    if not all(output.isfinite().all() for output in outputs):
        problem = "not finite (NaN or infinity)"
    elif not outputs[-1].any():
        problem = "all 0"
    if problem is not None:
        raise ValueError(
            f"the outputs of {reference.net.name} are {problem}, no file was written: its weights are broken, export "
            "another checkpoint"
        )


def _trace_graph(module: _Outputs | _Keypoints, path: Path, info: GraphInfo) -> Any:
    """Traces a module, by way of a file, and returns its graph with float32 weights."""
    import onnx

    # tracing with a batch of one would fix the batch size
    example = random_inputs(module.net, info.decodes, 1 if info.batch == 1 else 2)
    free_dims = {0: torch.export.Dim("batch")} if info.batch == "free" else None
    trace(module, example, path, module.inputs, module.outputs, free_dims)
    model = onnx.load(path)
    remove_traces(model)
    return model


def _save(model: Any, path: Path, info: GraphInfo) -> None:
    """Writes a graph with its metadata."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    model.producer_name, model.producer_version = "posedy", info.version
    onnx.save(model, path)


def _make_runner(model: Any, info: GraphInfo) -> GraphRunner:
    return make_runner(model.SerializeToString(), info.batch, info.runtime)


def _round_weights(model: Any, reference: _Outputs | _Keypoints, report: ExportReport) -> ExportReport:
    """Stores weights in float16 or int8, in place, and compares with float32 weights of the same values.

    Raises:
        ValueError: if the outputs differ from theirs, or from PyTorch's by more than rounding may change.
    """
    info = report.info
    rounded = copy.deepcopy(model)
    replace_weights(rounded, store_weights(model, info.weights))
    runner, same = _make_runner(model, info), _make_runner(rounded, info)

    def run(inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(output) for output in same(inputs.numpy()))

    verified = _verify(runner, run, reference.net, info, "the float32 graph's")
    rounding, moved_fraction, distance = _compare(runner, reference, reference.net, info)
    if rounding > _MAX_ROUNDING:
        raise ValueError(
            f"rounding weights to {info.weights} changes the output by {rounding:.1e} of the largest (allowed: "
            f"{_MAX_ROUNDING:g}), no file was written: export without half and int8"
        )
    return dataclasses.replace(verified, rounding=rounding, moved_fraction=moved_fraction, largest_distance=distance)


def _quantize(
    model: Any, report: ExportReport, calibration: Calibration, log: Callable[[str], None]
) -> tuple[Any, ExportReport]:
    """Quantizes activations, and compares keypoints with those of the float graph on other crops.

    Raises:
        ValueError: if the int8 graph is too inaccurate, and the calibration does not allow it.
    """
    quantized, float_layers = quantize_statically(model, report.info, calibration.crops, log)
    store_weights(quantized, "int8", kept=float_layers)
    info = dataclasses.replace(report.info, float_layers=float_layers)
    before, after = _make_runner(model, info), _make_runner(quantized, info)
    crops = calibration.check_crops
    agreement = compare_keypoints(predict(before, crops, info), predict(after, crops, info), info)
    if calibration.check is not None:
        accuracy = calibration.check(before, after, info)
    else:
        accuracy = None
        if not calibration.allow_drop:
            check_agreement(agreement)
    return quantized, dataclasses.replace(report, info=info, agreement=agreement, accuracy=accuracy)


def _verify(
    runner: GraphRunner,
    expected: Callable[[Tensor], tuple[Tensor, ...]],
    net: PoseNet,
    info: GraphInfo,
    source: str = "PyTorch's",
) -> ExportReport:
    """Compares the outputs of a graph and those expected for noise and for smooth images.

    Args:
        runner: the graph.
        expected: returns the expected outputs.
        net: the network.
        info: metadata of the graph.
        source: where the expected outputs come from, for errors.

    Raises:
        ValueError: if they differ by more than the tolerance.
    """
    difference, moved_fraction, distance = _compare(runner, expected, net, info)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the graph's output differs from {source} by {difference:.1e} of the largest output "
            f"(allowed: {TOLERANCE:.0e}), no file was written"
        )
    if moved_fraction > _MAX_MOVED_FRACTION:
        raise ValueError(f"{moved_fraction:.0%} of the graph's keypoints differ from {source}, no file was written")
    return ExportReport(info, difference, moved_fraction, distance)


def _compare(
    runner: GraphRunner, expected: Callable[[Tensor], tuple[Tensor, ...]], net: PoseNet, info: GraphInfo
) -> tuple[float, float, float]:
    """Returns the largest relative difference of outputs, the fraction of moved keypoints and the largest distance.

    Raises:
        ValueError: if an output has another shape.
    """
    difference, moved, keypoints, largest_distance = 0.0, 0, 0, 0.0
    # several images, also for batch size 1: OpenVINO then runs two at a time
    for size in (1, _LARGEST_VERIFIED_BATCH if info.batch == "free" else 2):
        for inputs in (random_inputs(net, info.decodes, size), smooth_inputs(net, info.decodes, size)):
            with torch.no_grad():
                wanted_outputs = expected(inputs)
            outputs = [torch.from_numpy(output) for output in runner(inputs.numpy())]
            if info.decodes:
                distances = (outputs[0] - wanted_outputs[0]).abs().amax(dim=-1)
                moved += int((~(distances <= MOVED_PIXELS)).sum())  # NaN, too
                keypoints += distances.numel()
                largest_distance = max(largest_distance, float(distances.max()))
            for output, wanted in list(zip(outputs, wanted_outputs, strict=True))[1 if info.decodes else 0 :]:
                if output.shape != wanted.shape:
                    raise ValueError(
                        f"expected a graph output of shape {tuple(wanted.shape)}, got {tuple(output.shape)}"
                    )
                difference = max(difference, relative_difference(output, wanted))
    return difference, moved / keypoints if keypoints else 0.0, largest_distance


_OPSET = 18


def trace(
    module: nn.Module,
    example: Tensor,
    path: Path,
    inputs: Sequence[str] = ("images",),
    outputs: Sequence[str] = ("features",),
    free_dims: Mapping[int, Any] | None = None,
) -> None:
    """Traces a module with one input and writes its graph to an ONNX file.

    Args:
        module: module in evaluation mode.
        example: an input; two or more images if the batch size is free.
        path: path of the ONNX file.
        inputs: name of the input.
        outputs: names of the outputs.
        free_dims: dimensions of the input that may have other sizes than in the example, as `torch.export.Dim`.
    """
    from onnxscript import optimizer

    with silence_exporter(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=None if free_dims is None else (free_dims,),
            optimize=False,  # below, as torch's own optimization takes longer
            verbose=False,
        )
        assert program is not None  # with dynamo
        # Folds casts of constants, such as the limits of ReLU6: ONNX Runtime keeps them, and then doesn't fuse
        # activations and convolutions (static MobileNets took 1.5 times as long), and OpenCV's runtime lacks them.
        optimizer.optimize(program.model)
        program.save(path)

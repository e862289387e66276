"""Networks written as ONNX files, checked against PyTorch before the file is there.

Weights of an ONNX graph stored in float16.

A Cast to float32 follows each, so that everything is computed in float32: half the size of the file, and any runtime
takes it.
"""

import copy
import importlib.metadata
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.codecs import HeatmapCodec
from posedy.export.graph_file import METADATA_KEY, GraphInfo
from posedy.export.onnx_layers import Batch, exportable
from posedy.export.runtimes import RUNTIMES, GraphRunner, Runtime, make_runner, require
from posedy.files import atomic_write
from posedy.models.dynamic_conv import temperatures
from posedy.models.pose_net import PoseNet, normalize_crops, predict_heatmaps
from posedy.models.pretrained import network_record

TOLERANCE = 1e-4
"""Largest difference from PyTorch, relative to the largest output."""
HALF_TOLERANCE = 2e-2
"""The same with weights in float16, which are off by up to 5e-4 each."""

# Of near ties rounding may choose either: so many keypoints may move.
_SAME_KEYPOINTS = 0.95
_SAME_PIXELS = 0.05

_LARGEST_CHECKED_BATCH = 5

FASTEST_BATCH: dict[Runtime, Batch] = {"onnxruntime": 1, "openvino": 1}
"""The batch whose graph is the fastest in a runtime, also for several persons.

Measured earlier on a CPU with AVX512: eight crops with the dynamic MobileNetV2 x0.5 backbone on one thread took 39 ms
by eight calls of the graph of batch 1 in ONNX Runtime and 18 ms in OpenVINO, 54 and 64 ms by one call of the graph of
any batch.
"""


@dataclass(frozen=True)
class ExportReport:
    """What an export tells.

    Attributes:
        info: the file's metadata.
        difference: the largest difference from PyTorch relative to the largest output (of the scores, where keypoints
            come out).
        tolerance: what it was allowed to be.
        moved: share of keypoints that are elsewhere; 0 where heatmaps come out.
    """

    info: GraphInfo
    difference: float
    tolerance: float
    moved: float


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
    """Writes a network to an ONNX file, whole or not at all, and only if it computes what the network computes.

    It has one input and one or two outputs:

        images (N, C, H, W) float32, ImageNet-normalized RGB -> heatmaps (N, K, H / 4, W / 4)
        crops (N, H, W, 3) uint8 RGB -> keypoints (N, K, 2) in crop pixels and scores (N, K), with decoding inside

    Args:
        net: the network; it is not changed.
        path: NAME.onnx.
        batch: "free" for any N, or 1; None is what is fastest in the runtime.
        runtime: what the file is checked with, and what runs it unless another is asked for. Any runtime can run it.
        with_decoding: see above.
        flip: with decoding, whether heatmaps are averaged with those of the mirrored crop.
        half: store large weights in float16, at half the size; computed with in float32.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if an argument does not fit, a package is missing, or the file differs from the network.
    """
    if Path(path).suffix != ".onnx":
        raise ValueError(f"ONNX files are written as NAME.onnx, got {path}")
    if runtime not in RUNTIMES:
        raise ValueError(f"a runtime is one of {list(RUNTIMES)}, got {runtime!r}")
    batch = FASTEST_BATCH[runtime] if batch is None else batch
    if batch not in ("free", 1):
        raise ValueError(f"batch is 'free' or 1, got {batch!r}")
    if with_decoding and net.in_channels not in (1, 3):
        raise ValueError(
            f"crops of photos have 3 channels, the network takes {net.in_channels}: export without decoding"
        )
    if with_decoding and flip and net.skeleton is None:
        raise ValueError("the network does not say which of its keypoints are left and right: flip=False does without")
    require("onnx", "onnxscript", runtime)
    reference = _graph_module(copy.deepcopy(net).cpu().float().eval(), with_decoding, flip)
    info = GraphInfo(
        record=network_record(net),
        version=importlib.metadata.version("posedy"),
        batch=batch,
        runtime=runtime,
        decodes=with_decoding,
        flip=with_decoding and flip,
        half=half,
        temperature=min(temperatures(net), default=None),
    )
    with atomic_write(path) as temporary:
        _write(_exportable(reference, batch), temporary, info)
        runner = make_runner(temporary.read_bytes(), batch, runtime)
        return _checked(runner, reference, info)


class _Heatmaps(nn.Module):
    """Normalized crops -> heatmaps."""

    inputs, outputs = ("images",), ("heatmaps",)

    def __init__(self, net: PoseNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> (N, K, h, w)."""
        return self.net(images)


class _Keypoints(nn.Module):
    """Crops as they are cut -> keypoints and scores."""

    inputs, outputs = ("crops",), ("keypoints", "scores")

    def __init__(self, net: PoseNet, codec: HeatmapCodec, flip: bool) -> None:
        super().__init__()
        self.net, self.codec = net, codec
        self.flip_permutation = net.skeleton.flip_permutation if flip and net.skeleton is not None else None

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 -> (N, K, 2), (N, K)."""
        return self.codec.decode_unchecked(predict_heatmaps(self.net, crops, self.codec, self.flip_permutation))


def _graph_module(net: PoseNet, with_decoding: bool, flip: bool) -> _Heatmaps | _Keypoints:
    return _Keypoints(net, net.codec, flip) if with_decoding else _Heatmaps(net)


def _exportable(reference: _Heatmaps | _Keypoints, batch: Batch) -> _Heatmaps | _Keypoints:
    """A copy whose layers have the forms that are exported."""
    module = copy.deepcopy(reference)
    module.net = exportable(module.net, batch)
    return module.eval().requires_grad_(False)


def _write(module: _Heatmaps | _Keypoints, path: Path, info: GraphInfo) -> None:
    """Traces a module and writes its graph with the metadata."""
    import onnx

    # A batch of one would be traced as one for good.
    example = _random_inputs(module.net, info.decodes, 1 if info.batch == 1 else 2)
    trace(module, example, path, module.inputs, module.outputs, free_batch=info.batch == "free")
    model = onnx.load(path)
    if info.half:
        halve_weights(model)
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    model.producer_name, model.producer_version = "posedy", info.version
    onnx.save(model, path)


def _checked(runner: GraphRunner, reference: _Heatmaps | _Keypoints, info: GraphInfo) -> ExportReport:
    """Compares a graph with PyTorch on noise and on soft shapes.

    Raises:
        ValueError: if they differ.
    """
    tolerance = HALF_TOLERANCE if info.half else TOLERANCE
    difference, moved, keypoints = 0.0, 0, 0
    for size in (1, _LARGEST_CHECKED_BATCH) if info.batch == "free" else (1, 1):
        for inputs in (
            _random_inputs(reference.net, info.decodes, size),
            _smooth_inputs(reference.net, info.decodes, size),
        ):
            with torch.no_grad():
                wanted = reference(inputs)
            got = [torch.from_numpy(output) for output in runner(inputs.numpy())]
            if isinstance(wanted, tuple):
                distances = (got[0] - wanted[0]).abs().amax(dim=-1)
                moved += int((distances > _SAME_PIXELS).sum())
                keypoints += distances.numel()
            heat, expected = got[-1], wanted[-1] if isinstance(wanted, tuple) else wanted
            if heat.shape != expected.shape:
                raise ValueError(f"the graph gives {tuple(heat.shape)}, the network {tuple(expected.shape)}")
            # a difference that is NaN counts as the largest
            ratio = ((heat - expected).abs().max() / expected.abs().max()).item()
            difference = max(difference, ratio if ratio == ratio else float("inf"))
    share = moved / keypoints if keypoints else 0.0
    if difference > tolerance:
        raise ValueError(
            f"the graph's output differs from the network's by {difference:.1e} of the largest output, {tolerance:.0e} "
            f"is allowed: no file is written{_advice(info)}"
        )
    if share > 1 - _SAME_KEYPOINTS and not info.half:
        raise ValueError(f"{share:.0%} of the graph's keypoints are elsewhere than the network's: no file is written")
    return ExportReport(info, difference, tolerance, share)


def _advice(info: GraphInfo) -> str:
    return "; leave out half, float16 does not hold these weights well enough" if info.half else ""


def _random_inputs(net: PoseNet, decodes: bool, size: int) -> Tensor:
    """Crops of noise, in uint8 for a graph that decodes."""
    width, height = net.input_size
    generator = torch.Generator().manual_seed(size)
    if decodes:
        return torch.randint(0, 256, (size, height, width, 3), generator=generator, dtype=torch.uint8)
    channels = 3 if net.in_channels == 1 else net.in_channels
    return torch.randn(size, channels, height, width, generator=generator)


def _smooth_inputs(net: PoseNet, decodes: bool, size: int) -> Tensor:
    """Crops of soft shapes of all sizes, whose statistics are nearer to images than those of noise."""
    if net.in_channels not in (1, 3):
        return _random_inputs(net, decodes, size + 100)
    width, height = net.input_size
    generator = torch.Generator().manual_seed(size)
    crops = torch.zeros(size, 3, height, width)
    for cells in (2, 4, 8, 16):
        grid = torch.rand(size, 3, cells, cells, generator=generator)
        crops += F.interpolate(grid, (height, width), mode="bicubic", align_corners=False) / 4
    crops = (255 * crops).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return crops if decodes else normalize_crops(crops)


_OPSET = 18


def trace(
    module: nn.Module,
    example: Tensor,
    path: Path,
    inputs: Sequence[str] = ("images",),
    outputs: Sequence[str] = ("features",),
    *,
    free_batch: bool = False,
) -> None:
    """Writes the graph that a module of one input computes.

    Args:
        module: in evaluation mode.
        example: an input; of two or more images if the batch is free.
        path: the ONNX file.
        inputs: names.
        outputs: names.
        free_batch: whether the graph takes any number of images, or as many as the example has.
    """
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            module,
            (example,),
            path,
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},) if free_batch else None,
            external_data=False,
            optimize=False,  # runtimes optimize what they load; it would double the time
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what concerns its own authors."""
    loggers: list[Any] = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.__trace")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


_SMALLEST = 256
"""Tensors with fewer values stay as they are: biases and constants gain nothing."""


def halve_weights(model: Any) -> None:
    """Stores the large float32 tensors of an onnx.ModelProto in float16, in place.

    Raises:
        ValueError: if a weight is too large for float16.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ValueError(f"{tensor.name} has values that float16 does not hold: export without half")
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    halved = {cast.output[0] for cast in casts}
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    # types that the exporter noted of what are no longer initializers are still true of the casts' outputs
    kept = [value for value in graph.value_info if value.name not in halved]
    del graph.value_info[:]
    graph.value_info.extend(kept)

"""Networks written as ONNX files, checked against PyTorch before the file is there."""

import copy
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posedy.codec import HeatmapCodec
from posedy.deploy.export_layers import Batch, exportable
from posedy.deploy.graph_file import METADATA_KEY, GraphInfo
from posedy.deploy.half import halve_weights
from posedy.deploy.packages import require
from posedy.deploy.runtimes import RUNTIMES, GraphRunner, Runtime, make_runner
from posedy.deploy.tracing import trace
from posedy.files import replacing
from posedy.models.dynamic_conv import temperatures
from posedy.models.pose_net import PoseNet
from posedy.prediction import normalise_crops, predict_heatmaps
from posedy.weights.network_file import network_record

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

        images (N, C, H, W) float32, ImageNet-normalised RGB -> heatmaps (N, K, H / 4, W / 4)
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
    with replacing(path) as temporary:
        _write(_exportable(reference, batch), temporary, info)
        runner = make_runner(temporary.read_bytes(), batch, runtime)
        return _checked(runner, reference, info)


class _Heatmaps(nn.Module):
    """Normalised crops -> heatmaps."""

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
    """Compares a graph with PyTorch on random and on drawn crops.

    Raises:
        ValueError: if they differ.
    """
    tolerance = HALF_TOLERANCE if info.half else TOLERANCE
    difference, moved, keypoints = 0.0, 0, 0
    for size in (1, _LARGEST_CHECKED_BATCH) if info.batch == "free" else (1, 1):
        for inputs in (
            _random_inputs(reference.net, info.decodes, size),
            _drawn_inputs(reference.net, info.decodes, size),
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


def _drawn_inputs(net: PoseNet, decodes: bool, size: int) -> Tensor:
    """Crops of drawn people; noise for networks that do not take photos."""
    if net.in_channels not in (1, 3):
        return _random_inputs(net, decodes, size + 100)
    crops = torch.from_numpy(_drawn_crops(net.input_size, size))
    return crops if decodes else normalise_crops(crops)


def _drawn_crops(input_size: tuple[int, int], size: int) -> NDArray[np.uint8]:
    """(size, H, W, 3) uint8 RGB crops of drawn people."""
    from posedy.data.synthetic.scene import draw_photo
    from posedy.geometry import image_to_crop_matrix, padded_region, warp_crop, xywh_to_xyxy

    rng = np.random.default_rng(size)
    crops: list[NDArray[np.uint8]] = []
    while len(crops) < size:
        photo = draw_photo(rng, with_crowd=False, with_far_people=False)
        boxes = xywh_to_xyxy([annotation["bbox"] for annotation in photo.annotations])
        matrices = image_to_crop_matrix(*padded_region(boxes, input_size[0] / input_size[1]), input_size)
        rgb = np.ascontiguousarray(photo.picture[..., ::-1])
        crops += [warp_crop(rgb, matrix, input_size) for matrix in matrices]
    return np.stack(crops[:size])

"""Export of the person detector to ONNX files, which are verified against PyTorch before they are written.

The graph has the equations of `posedy.models.nanodet`, without the suppression of duplicates:

    images (1, H, W, 3) uint8 RGB -> boxes (1, A, 4) xyxy in pixels of the image, clipped to it, and scores (1, A)

for any H and W that are multiples of 32 up to 1312; A = H W (1 / 8^2 + 1 / 16^2 + 1 / 32^2).
"""

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posedy.export.graph_file import DETECTOR_KEY, read_metadata
from posedy.export.onnx import TOLERANCE, trace
from posedy.export.onnx_weights import remove_traces, store_weights
from posedy.export.openvino_graph import FreeSizeRunner
from posedy.export.runtimes import (
    RUNTIMES,
    Array,
    Runtime,
    is_installed,
    make_runner,
    openvino_core,
    prefers_openvino,
    require,
)
from posedy.export.tracing import relative_difference
from posedy.files import atomic_write, named_write_errors
from posedy.models.nanodet import (
    INPUT_MULTIPLE,
    MAX_SIDE,
    PERSON_WEIGHTS,
    NanoDet,
    decode_outputs,
    load_nanodet,
    normalize_images,
)

_HALF_TOLERANCE = 2e-2
"""Largest allowed difference of a graph with float16 weights, which have relative errors of up to 5e-4."""
_VERIFIED_SIZES = ((96, 128), (192, 64), (416, 416))  # (height, width)


@dataclass(frozen=True)
class DetectorExportReport:
    """The numerical difference of an exported detector from PyTorch, and the largest allowed one.

    Attributes:
        difference: largest difference from PyTorch, relative to the largest coordinate or score.
        tolerance: largest allowed difference.
    """

    difference: float
    tolerance: float


def export_detector_onnx(
    path: str | Path,
    weights: str | Path = PERSON_WEIGHTS,
    *,
    runtime: Runtime = "onnxruntime",
    half: bool = False,
) -> DetectorExportReport:
    """Exports the person detector to an ONNX file, which is only written if its outputs equal PyTorch's.

    Args:
        path: NAME.onnx.
        weights: a .safetensors file of the detector's weights.
        runtime: runtime that verifies the file, and the default for running it; the other one can run it too.
        half: whether large weights are stored in float16, which halves the file size; they are computed in float32.

    Raises:
        OSError: if the weights cannot be read or the file cannot be written.
        ValueError: if an argument is invalid, a package is missing, or the graph's outputs differ from PyTorch's.
    """
    if Path(path).suffix.lower() != ".onnx":
        raise ValueError(f"expected a file name NAME.onnx, got {path}")
    if runtime not in RUNTIMES:
        raise ValueError(f"expected runtime to be one of {list(RUNTIMES)}, got {runtime!r}")
    require("onnx", "onnxscript", runtime)
    module = _Boxes(load_nanodet(weights)).eval().requires_grad_(False)
    with atomic_write(path) as temporary:
        with named_write_errors(path):
            _write_graph(module, temporary, runtime, half)
        difference = _largest_difference(_make_runner(temporary.read_bytes(), runtime), module)
        tolerance = _HALF_TOLERANCE if half else TOLERANCE
        if not difference <= tolerance:
            raise ValueError(
                f"the graph's outputs differ from PyTorch's by {difference:.1e} of the largest (allowed: "
                f"{tolerance:.0e}), no file was written"
            )
    return DetectorExportReport(difference, tolerance)


def load_detector_graph(
    path: str | Path, runtime: Runtime | None = None, threads: int = 0
) -> tuple[Callable[[Array], list[Array]], Runtime]:
    """Loads an exported detector: a function from images to boxes and scores, and its runtime.

    Args:
        path: NAME.onnx.
        runtime: None is ONNX Runtime if the file was exported for it and it is installed. For other files, also earlier
            ones without a runtime, it is OpenVINO if that is installed, otherwise ONNX Runtime.
        threads: number of threads; 0 is the runtime's default.

    Returns:
        A function from images (N, H, W, 3) uint8 RGB to boxes (N, A, 4) and scores (N, A), and the name of the runtime.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no detector that posedy exported, or the runtime is missing or does not support it.
    """
    model, entries = read_metadata(path)
    if DETECTOR_KEY not in entries:
        raise ValueError(
            f"{path} is not a detector that posedy exported; export one with posedy export {PERSON_WEIGHTS.stem} "
            "--out detector.onnx"
        )
    if runtime is None:
        is_for_onnxruntime = _recorded_runtime(entries[DETECTOR_KEY]) == "onnxruntime" and is_installed("onnxruntime")
        runtime = "openvino" if prefers_openvino() and not is_for_onnxruntime else "onnxruntime"
    return _make_runner(model.SerializeToString(), runtime, threads), runtime


def _recorded_runtime(text: str) -> Any:
    """Returns the runtime in the metadata of a detector; None if there is none."""
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return fields.get("runtime") if isinstance(fields, dict) else None


def _free_sides() -> dict[int, Any]:
    """Returns the height and the width of images (1, H, W, 3) as `torch.export.Dim`, by their axes."""
    units = MAX_SIDE // INPUT_MULTIPLE
    return {axis: INPUT_MULTIPLE * torch.export.Dim(name, max=units) for axis, name in ((1, "rows"), (2, "columns"))}


class _Boxes(nn.Module):
    """The detector with uint8 images as input, and boxes and scores of all locations as outputs."""

    def __init__(self, net: NanoDet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes boxes (1, A, 4) and scores (1, A) of images (1, H, W, 3) uint8 RGB."""
        logits, bins = self.net(normalize_images(images.flip(-1)))
        return decode_outputs(logits, bins, (images.shape[2], images.shape[1]))


def _write_graph(module: _Boxes, path: Path, runtime: Runtime, half: bool) -> None:
    """Traces the module and writes its graph and metadata."""
    import onnx

    trace(module, _random_images(*_VERIFIED_SIZES[0]), path, ("images",), ("boxes", "scores"), _free_sides())
    model = onnx.load(path)
    remove_traces(model)
    store_weights(model, "float16" if half else "float32")
    version = importlib.metadata.version("posedy")
    metadata = {"name": PERSON_WEIGHTS.stem, "version": version, "runtime": runtime}
    onnx.helper.set_model_props(model, {DETECTOR_KEY: json.dumps(metadata)})
    model.producer_name, model.producer_version = "posedy", version
    onnx.save(model, path)


def _make_runner(model: bytes, runtime: Runtime, threads: int = 0) -> Callable[[Array], list[Array]]:
    if runtime == "onnxruntime":
        return make_runner(model, 1, runtime, "cpu", threads)
    require("openvino")
    try:
        return FreeSizeRunner(openvino_core().read_model(model), threads)
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot load the graph: {error}") from error


def _largest_difference(runner: Callable[[Array], list[Array]], module: _Boxes) -> float:
    """Returns the largest relative difference of the outputs of a graph and a module for noise of several sizes."""
    differences = []
    for height, width in _VERIFIED_SIZES:
        images = _random_images(height, width)
        with torch.no_grad():
            expected = module(images)
        for output, wanted in zip(runner(images.numpy()), expected, strict=True):
            if output.shape != wanted.shape:
                raise ValueError(f"expected a graph output of shape {tuple(wanted.shape)}, got {tuple(output.shape)}")
            differences.append(relative_difference(torch.from_numpy(output), wanted))
    return max(differences)


def _random_images(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (1, height, width, 3), generator=generator, dtype=torch.uint8)

"""The person detector in the package: NanoDet-g."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posedy.export.fuse import fold_norms
from posedy.export.onnx_detector import load_detector_graph
from posedy.export.openvino_graph import FreeSizeRunner, convert, network_key
from posedy.export.runtimes import Runtime, prefers_openvino
from posedy.inference.boxes import checked_box_threshold
from posedy.inference.detectors.base import BoxThresholds, Detections, register_detector
from posedy.models.nanodet import (
    INPUT_MULTIPLE,
    MAX_SIDE,
    PERSON_WEIGHTS,
    Locations,
    NanoDet,
    boxes_from_bins,
    load_nanodet,
    make_locations,
    normalize_images,
)
from posedy.system import choose_device

FloatArray = NDArray[np.float32]
Size = tuple[int, int]
_Candidates = Callable[[NDArray[np.uint8], float], list[Detections]]

THRESHOLDS = BoxThresholds(display=0.4, files=0.05, track_start=0.4, track_keep=0.2)
"""Thresholds of `PersonDetector`, chosen on the dev split (`python -m tools.lab.detector_accuracy`)."""

NMS_IOU = 0.5
"""Boxes that overlap a box of a higher score by more are duplicates."""

MAX_CANDIDATES = 1000
"""Largest number of boxes before NMS."""
MAX_BOXES = 100
"""Largest number of boxes of an image, as in COCO's evaluation."""
MAX_EXCESS = 1.25
"""Largest number of pixels of the network's input, relative to size x size."""
LARGEST_BILINEAR_FACTOR = 2
"""Images that are reduced by more are averaged over areas, since bilinear interpolation skips pixels.

On the dev split AP is 0.322 at size 160 (a factor of about 4) and 0.336 with averaged areas; at 416 and 320 both are
equal within 0.004.
"""

_BATCH = 8


@register_detector("posedy")
class PersonDetector:
    """NanoDet-g, a light person detector whose weights are in the package; several threads may share one.

    Args:
        size: an image is resized to about size x size pixels with its aspect ratio kept, see `network_size`; 416 is
            accurate, 320 faster. A pair (width, height) stretches all images to this size.
        threshold: boxes with lower scores, from 0 to 1, are dropped. The default is the threshold of tracked persons,
            the lowest one of `PoseEstimator`, which drops boxes of images below its own `box_threshold`.
        device: as for `PoseEstimator`; OpenVINO runs on the CPU.
        runtime: "torch", "openvino" or, for an exported file, "onnxruntime". "auto" is the runtime that an .onnx file
            was exported for, see `posedy.export.onnx_detector.load_detector_graph`; for weights it is OpenVINO on a
            CPU, if it is installed, as for `PoseEstimator`.
        weights: a .safetensors file of other weights of the same network, or an .onnx file of `posedy export`, which
            runs on the CPU; None for the weights in the package.
        nms_iou: boxes that overlap a box of a higher score by more are dropped as duplicates.

    Raises:
        OSError: if the weights cannot be read.
        ValueError: if the file contains something else, the device is absent, or another argument is invalid.
    """

    thresholds = THRESHOLDS

    def __init__(
        self,
        size: int | Size = 416,
        threshold: float = THRESHOLDS.lowest_drawn,
        device: str = "auto",
        runtime: str = "auto",
        weights: str | Path | None = None,
        nms_iou: float = NMS_IOU,
    ) -> None:
        is_graph = weights is not None and Path(weights).suffix.lower() == ".onnx"
        runtimes = ["auto", "openvino", "onnxruntime" if is_graph else "torch"]
        if runtime not in runtimes:
            raise ValueError(f"expected the runtime of the detector to be one of {runtimes}, got {runtime!r}")
        if not (isinstance(nms_iou, int | float) and 0 < nms_iou <= 1):
            raise ValueError(f"expected nms_iou above 0 and at most 1, got {nms_iou!r}")
        self._size = _checked_size(size)
        self._threshold = checked_box_threshold(threshold)
        self._nms_iou = nms_iou
        self.device = choose_device(device)
        if is_graph:
            assert weights is not None
            self.device = torch.device("cpu")
            exported = _ExportedFile(weights, None if runtime == "auto" else cast(Runtime, runtime))
            self.runtime: str = exported.runtime
            self._run: _Candidates = exported
        else:
            if runtime == "openvino" and self.device.type != "cpu":
                if device != "auto":
                    raise ValueError(f"expected device cpu for OpenVINO, got {device!r}")
                self.device = torch.device("cpu")
            is_default = runtime == "auto" and self.device.type == "cpu" and prefers_openvino()
            self.runtime = "openvino" if runtime == "openvino" or is_default else "torch"
            net = load_nanodet(PERSON_WEIGHTS if weights is None else weights).requires_grad_(False)
            self._run = _Network(net, self.runtime, self.device)

    def detect(self, image_bgr: NDArray[np.uint8]) -> Detections:
        """Detects persons: boxes (P, 4) xyxy in image pixels and scores (P,), in descending order of scores.

        Raises:
            ValueError: if the image is not an array (H, W, 3) uint8 with H, W >= 1.
        """
        return self.detect_many([image_bgr])[0]

    def detect_many(self, images_bgr: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detects persons in several images, in batches of those of equal size for the network.

        Args:
            images_bgr: images (H, W, 3) uint8 of any sizes.

        Returns:
            For each image its boxes and scores, see `detect`.

        Raises:
            ValueError: if an image is not an array (H, W, 3) uint8 with H, W >= 1; the message has its index.
        """
        indices_by_size: dict[Size, list[int]] = defaultdict(list)
        for index, image in enumerate(images_bgr):
            _check_image(image, index)
            indices_by_size[self.input_size(image)].append(index)
        detected: dict[int, Detections] = {}
        for size, indices in indices_by_size.items():
            for start in range(0, len(indices), _BATCH):
                batch = indices[start : start + _BATCH]
                candidates = self.candidates(np.stack([resize(images_bgr[index], size) for index in batch]))
                for index, (boxes, scores) in zip(batch, candidates, strict=True):
                    kept = suppress_duplicates(boxes, scores, self._nms_iou)[:MAX_BOXES]
                    detected[index] = scale_boxes(boxes[kept], size, images_bgr[index].shape), scores[kept]
        return [detected[index] for index in range(len(images_bgr))]

    def input_size(self, image_bgr: NDArray[np.uint8]) -> Size:
        """Returns the size (width, height) of an image for the network."""
        if isinstance(self._size, tuple):
            return self._size
        return network_size(image_bgr.shape[1], image_bgr.shape[0], self._size)

    def candidates(self, images: NDArray[np.uint8]) -> list[Detections]:
        """Detects persons in resized BGR images (N, H, W, 3), with duplicates: boxes and scores, see `decode_boxes`."""
        return self._run(images, self._threshold)


class _Network:
    """The network in PyTorch or OpenVINO: candidates of resized BGR images (N, H, W, 3) for a threshold."""

    def __init__(self, net: NanoDet, runtime: str, device: torch.device) -> None:
        self._device = device
        if runtime == "openvino":
            self._run: Callable[[Tensor], Sequence[FloatArray]] = _run_graph(net)
        else:
            net = net.to(device).to(memory_format=torch.channels_last)
            self._run = lambda inputs: [output.cpu().numpy() for output in net(inputs)]

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8], threshold: float) -> list[Detections]:
        logits, bins = self._run(normalize_images(torch.from_numpy(images).to(self._device)))
        size = images.shape[2], images.shape[1]
        return [decode_boxes(*outputs, size, threshold) for outputs in zip(logits[..., 0], bins, strict=True)]


class _ExportedFile:
    """An exported file in ONNX Runtime or OpenVINO: candidates of resized BGR images (N, H, W, 3) for a threshold."""

    def __init__(self, path: str | Path, runtime: Runtime | None) -> None:
        self._run, self.runtime = load_detector_graph(path, runtime, torch.get_num_threads())

    def __call__(self, images: NDArray[np.uint8], threshold: float) -> list[Detections]:
        all_boxes, all_scores = self._run(images[..., ::-1])
        detections = []
        for boxes, scores in zip(all_boxes, all_scores, strict=True):
            kept = _best_candidates(scores, threshold)
            detections.append((boxes[kept], scores[kept]))
        return detections


def _run_graph(net: NanoDet) -> Callable[[Tensor], Sequence[FloatArray]]:
    runner = FreeSizeRunner(_openvino_graph(net), torch.get_num_threads())

    def run(inputs: Tensor) -> list[FloatArray]:
        maps = [torch.from_numpy(output) for output in runner(inputs.numpy())]
        return [output.numpy() for output in net.join_maps(maps)]

    return run


class _Maps(nn.Module):
    """The part of the detector before its maps are flattened, which would have the size of the images as a constant."""

    def __init__(self, net: NanoDet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.net.compute_maps(images)


def _openvino_graph(net: NanoDet) -> Any:
    """Returns the OpenVINO graph of the detector's maps for any size, from the user's cache folder or converted."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 3, *size, generator=generator) for size in ((96, 128), (192, 32))]
    key = network_key(net.state_dict(), {"name": "nanodet"})
    return convert("nanodet", lambda: _Maps(fold_norms(net)), net.compute_maps, inputs, key, has_free_size=True)


def network_size(width: int, height: int, size: int) -> Size:
    """Returns the size (width, height) to which an image is resized for the network, in multiples of 32.

    With r = sqrt(height / width) it is (size / r, size r), which has the image's aspect ratio and size x size pixels,
    each rounded to 32, from 32 to 1312. The longer side is reduced while rounding leaves more than 1.25 times as many
    pixels.
    """
    ratio = math.sqrt(height / width)
    units, largest = [size / ratio / INPUT_MULTIPLE, size * ratio / INPUT_MULTIPLE], MAX_SIDE // INPUT_MULTIPLE
    sides = [min(max(round(unit), 1), largest) for unit in units]
    longer = sides.index(max(sides))
    allowed = MAX_EXCESS * (size / INPUT_MULTIPLE) ** 2
    sides[longer] = max(min(sides[longer], int(allowed / sides[1 - longer])), 1)
    return INPUT_MULTIPLE * sides[0], INPUT_MULTIPLE * sides[1]


def resize(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resizes an image (H, W, 3) to (width, height): bilinearly, or to less than half by averaging areas."""
    height, width = image.shape[:2]
    is_reduced = min(width / size[0], height / size[1]) > LARGEST_BILINEAR_FACTOR
    interpolation = cv2.INTER_AREA if is_reduced else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation).astype(np.uint8, copy=False)


def decode_boxes(logits: FloatArray, bins: FloatArray, size: Size, threshold: float) -> Detections:
    """Decodes the outputs of `NanoDet` for one image, see the equations of its module.

    Args:
        logits: (A,) person logits of all locations.
        bins: (A, 4, 11).
        size: (width, height) of the network's input.
        threshold: minimum score.

    Returns:
        Boxes (C, 4) xyxy in pixels of the input, clipped to it, and scores (C,), in descending order of scores; at most
        1,000, with duplicates.
    """
    scores = (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).astype(np.float32, copy=False)
    kept = _best_candidates(scores, threshold)
    centers, strides = _locations(*size)
    boxes = boxes_from_bins(torch.from_numpy(bins[kept]), Locations(centers[kept], strides[kept])).numpy()
    return np.clip(boxes, 0, np.array([*size, *size], dtype=np.float32)), scores[kept]


def _best_candidates(scores: FloatArray, threshold: float) -> NDArray[np.intp]:
    """Returns the indices of at most 1,000 scores (A,) from the threshold, in descending order."""
    kept = np.flatnonzero(scores >= threshold)
    return kept[np.argsort(-scores[kept], kind="stable")[:MAX_CANDIDATES]]


_locations = lru_cache(maxsize=64)(make_locations)


def suppress_duplicates(boxes: FloatArray, scores: FloatArray, iou: float) -> NDArray[np.intp]:
    """Returns the indices that greedy NMS keeps, in descending order of scores.

    Args:
        boxes: (C, 4) xyxy.
        scores: (C,).
        iou: boxes that overlap a kept box of a higher score by more are dropped.
    """
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)
    kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), 0.0, iou)
    return np.asarray(kept, dtype=np.intp).reshape(-1)


def scale_boxes(boxes: FloatArray, size: Size, image_shape: Sequence[int]) -> FloatArray:
    """Scales boxes (P, 4) of an image that was resized to (width, height) to its shape (H, W, ...)."""
    height, width = image_shape[:2]
    limit = np.array([width, height] * 2, dtype=np.float32)
    return np.minimum(boxes * (limit / np.array([*size, *size], dtype=np.float32)), limit)


def _checked_size(size: int | Size) -> int | Size:
    sides = size if isinstance(size, tuple) else (size, size)
    is_valid = all(type(side) is int and side % INPUT_MULTIPLE == 0 and 0 < side <= MAX_SIDE for side in sides)
    if len(sides) != 2 or not is_valid:
        raise ValueError(
            f"expected size, or width and height, to be multiples of {INPUT_MULTIPLE} up to {MAX_SIDE}, got {size!r}"
        )
    return size


def _check_image(image: NDArray[np.uint8], index: int) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"shape {image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image {index}: expected an array (H, W, 3) uint8 in BGR order, got {got}")
    if image.size == 0:
        raise ValueError(f"image {index} is empty: its shape is {image.shape}")

"""What finds the persons of an image when no boxes are given."""

import io
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from posedy.data.findings import name_reasons
from posedy.files import read_bytes
from posedy.inference.boxes import BOX_THRESHOLD, checked_box_threshold, clean_detections
from posedy.system import choose_device

_count_lock = threading.Lock()


@runtime_checkable
class Detector(Protocol):
    """Anything that finds persons."""

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[ArrayLike, ArrayLike]:
        """Boxes (P, 4) xyxy in image pixels and scores (P,) of the persons in an image (H, W, 3) uint8 BGR."""


class TorchvisionDetector:
    """Torchvision's small Faster R-CNN (fasterrcnn_mobilenet_v3_large_320_fpn), trained on COCO's 91 categories.

    Args:
        weights: a file with its state dict; None takes torchvision's, which it fetches at first use and keeps.
        device: as for `PoseEstimator`.
        threshold: persons with lower scores, from 0 to 1, are left out.

    Raises:
        OSError: if the weights cannot be read or fetched.
        ValueError: if the file holds something else, the device is absent, or the threshold is not from 0 to 1.
    """

    _PERSON = 1

    def __init__(
        self, weights: str | Path | None = None, device: str = "auto", threshold: float = BOX_THRESHOLD
    ) -> None:
        from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn  # heavy, and only used here

        checked_box_threshold(threshold)
        self.device = choose_device(device)
        state = _fetched_weights() if weights is None else _read_state(Path(weights))
        net = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, box_score_thresh=threshold)
        try:
            net.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{weights} holds no weights of torchvision's fasterrcnn_mobilenet_v3_large_320_fpn: {error!s:.300}"
            ) from error
        self._net = net.eval().to(self.device)

    @torch.inference_mode()
    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (P, 4) xyxy in image pixels and scores (P,) of persons, by falling score."""
        rgb = torch.from_numpy(np.ascontiguousarray(image_bgr[..., ::-1])).to(self.device)
        found = self._net([rgb.permute(2, 0, 1).float() / 255])[0]
        boxes = found["boxes"].cpu().numpy().astype(np.float32)
        usable = (found["labels"].cpu().numpy() == self._PERSON) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return boxes[usable], found["scores"].cpu().numpy().astype(np.float32)[usable]


def _fetched_weights() -> dict[str, Any]:
    from torchvision.models.detection import FasterRCNN_MobileNet_V3_Large_320_FPN_Weights

    try:
        return dict(FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.DEFAULT.get_state_dict(check_hash=True))
    except (OSError, RuntimeError) as error:  # no network; a file cut short
        raise OSError(
            f"the detector's weights could not be fetched ({error}). Without them: give a file of them "
            "(--detector-weights FILE, TorchvisionDetector(weights=FILE)), boxes (--boxes FILE, --box x1,y1,x2,y2), or "
            'take photos as a whole for one person (--whole, detector="whole")'
        ) from error


def _read_state(path: Path) -> Any:
    data = read_bytes(path)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever a spoiled file runs into
        raise ValueError(f"{path} is not a file of torch's with tensors only") from error


class FullImageDetector:
    """Takes the whole image for one person, with a score of 1."""

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The box of the whole image (1, 4) and its score (1,)."""
        height, width = image_bgr.shape[:2]
        return np.array([[0, 0, width, height]], dtype=np.float32), np.ones(1, dtype=np.float32)


class CleanedDetector:
    """A detector whose boxes are clipped to the image, without the invalid ones.

    Boxes that are not finite, have no area, are outside the image, or are in fractions of it are dropped and counted. A
    warning tells of the first ones. Several threads may share a detector.

    Args:
        detector: finds the persons.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._dropped: Counter[str] = Counter()

    @property
    def dropped(self) -> dict[str, int]:
        """How many boxes have been dropped, by reason."""
        with _count_lock:
            return dict(self._dropped)

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (P, 4) xyxy inside an image (H, W, 3) uint8 BGR, in its pixels, and scores (P,).

        Raises:
            ValueError: if the detector returns arrays of another shape.
        """
        height, width = image_bgr.shape[:2]
        found, found_scores = self._detector.detect(image_bgr)
        name = type(self._detector).__name__
        try:
            boxes, scores, dropped = clean_detections(found, found_scores, width, height)
        except ValueError as error:
            raise ValueError(f"the detector {name} returned invalid arrays: {error}") from error
        if dropped:
            with _count_lock:
                is_first = not self._dropped
                self._dropped.update(dropped)
            if is_first:
                warnings.warn(
                    f"boxes of the detector {name} were dropped: {name_reasons(dropped)}, in an image of {width} x "
                    f"{height} pixels; from now on such boxes are dropped without a warning",
                    stacklevel=3,
                )
        return boxes, scores


_NAMED: dict[str, Callable[[], Detector]] = {"whole": FullImageDetector, "torchvision": TorchvisionDetector}


def as_detector(detector: str | Detector) -> Detector:
    """A detector by name, or the object itself if it has `detect`.

    Raises:
        TypeError: if it is neither a name nor a detector.
        ValueError: if no detector has this name.
    """
    if isinstance(detector, str):
        if detector not in _NAMED:
            raise ValueError(f"unknown detector {detector!r}: the names are {sorted(_NAMED)}")
        return _NAMED[detector]()
    if not isinstance(detector, Detector) or isinstance(detector, type):
        raise TypeError(
            f"a detector is one of {sorted(_NAMED)} or an object with detect(image_bgr) -> (boxes, scores), "
            f"got {detector!r:.100}"
        )
    return detector

"""The protocol of person detectors, their registry, and the cleaning of their boxes."""

import inspect
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.data.issues import format_reasons
from posedy.inference.boxes import BOX_THRESHOLD, checked_box_threshold, clean_detections
from posedy.registration import nearest_name, register

Detections = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Boxes (P, 4) xyxy in image pixels and scores (P,)."""

_count_lock = threading.Lock()
_SCORE_TOLERANCE = 1e-3  # of scores that are rounded, such as in half precision


@runtime_checkable
class Detector(Protocol):
    """A person detector: any object with `detect`.

    To add a detector, register a class (or a function that creates one):

        @posedy.register_detector("my_detector")
        class MyDetector:
            def detect(self, image_bgr):
                return boxes, scores

    It is called with those arguments of `create_detector` that it accepts: `device`, `weights`, `threshold`. Two
    attributes are optional: `thresholds`, a `BoxThresholds`, and the method `detect_many(images_bgr)`, which returns
    the boxes and scores of each image of a list; folders and lists of images are then detected in groups of 8.
    """

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[ArrayLike, ArrayLike]:
        """Detects persons in an image (H, W, 3) uint8 BGR: boxes (P, 4) xyxy in image pixels and scores (P,)."""


class BoxThresholds(NamedTuple):
    """Minimum box scores of a detector for images, box files, new tracks and tracked persons.

    Attributes:
        display: for the poses of images, where few boxes should be no persons.
        files: in box files for AP, which counts low scores, too.
        track_start: for new tracks.
        track_keep: for persons that are already tracked.
    """

    display: float = BOX_THRESHOLD
    files: float = 0.01
    track_start: float = BOX_THRESHOLD
    track_keep: float = BOX_THRESHOLD

    @property
    def lowest_drawn(self) -> float:
        """The lowest score of boxes in drawings of images and of videos."""
        return min(self.display, self.track_keep)

    def with_box_threshold(self, threshold: float | None) -> "BoxThresholds":
        """Returns the thresholds with another one for images and new tracks; with None they stay as they are.

        Persons that are already tracked keep their threshold, unless the other one is lower.

        Raises:
            ValueError: if the threshold is not from 0 to 1.
        """
        if threshold is None:
            return self
        threshold = checked_box_threshold(threshold)
        return self._replace(display=threshold, track_start=threshold, track_keep=min(self.track_keep, threshold))


_DETECTORS: dict[str, Callable[..., Detector]] = {}
_Factory = TypeVar("_Factory", bound=Callable[..., Detector])


def register_detector(name: str) -> Callable[[_Factory], _Factory]:
    """Registers a detector by name: a decorator of a class or a function that creates one, see `Detector`.

    Args:
        name: the name in `PoseEstimator(detector=...)` and on the command line.

    Raises:
        ValueError: if another detector has the name.
    """
    return register(_DETECTORS, "detector", name, r"[\w-]+")


def list_detectors() -> list[str]:
    """Lists the names of the detectors, sorted."""
    return sorted(_DETECTORS)


def check_detector(detector: str | Detector) -> None:
    """Checks that a detector is a registered name or an object with `detect`, without creating it.

    Raises:
        TypeError: if it is neither a name nor a detector.
        ValueError: if no detector has the name.
    """
    if isinstance(detector, str):
        if detector not in _DETECTORS:
            nearest = nearest_name(detector.lower(), list_detectors())
            raise ValueError(
                f"unknown detector {detector!r}; the nearest name is {nearest!r}, all are {list_detectors()}. A "
                f"detector of your own must be registered first: @posedy.register_detector({detector!r}) in Python, "
                "--import MODULE on the command line"
            )
    elif not isinstance(detector, Detector) or isinstance(detector, type):
        raise TypeError(
            f"a detector is one of {list_detectors()} or an object with detect(image_bgr) -> (boxes, scores), got "
            f"{detector!r:.100}"
        )


def detector_thresholds(detector: str | Detector | None) -> BoxThresholds:
    """Returns the thresholds of a detector, or of the detector with a name, without creating it.

    Detectors without an attribute `thresholds` have the defaults of `BoxThresholds`.
    """
    owner = _DETECTORS.get(detector) if isinstance(detector, str) else detector
    return getattr(owner, "thresholds", BoxThresholds())


def create_detector(
    detector: str | Detector,
    device: str = "auto",
    weights: str | Path | None = None,
    threshold: float | None = None,
) -> Detector:
    """Creates a detector by its name; an object with `detect` is returned unchanged.

    Args:
        detector: one of `list_detectors()`, or an object with `detect`.
        device: the device of the detector, if its factory accepts one.
        weights: the file of the detector's weights; None for its default.
        threshold: minimum box score, passed to factories that take it, to save time; `CleanedDetector` drops boxes with
            lower scores of all detectors. None for its default.

    Raises:
        TypeError: if it is neither a name nor a detector.
        ValueError: if no detector has the name, or the detector takes no weights.
        OSError: if its weights cannot be read or downloaded.
    """
    check_detector(detector)
    parameters = inspect.signature(_DETECTORS[detector]).parameters if isinstance(detector, str) else {}
    if weights is not None and "weights" not in parameters:
        raise ValueError(f"the detector {detector!r:.100} takes no weights, got {weights}")
    if not isinstance(detector, str):
        return detector
    options: dict[str, Any] = {"device": device, "weights": weights, "threshold": threshold}
    return _DETECTORS[detector](
        **{name: value for name, value in options.items() if name in parameters and value is not None}
    )


@register_detector("full-image")
class FullImageDetector:
    """The full image as the box of one person, with a score of 1."""

    def detect(self, image_bgr: NDArray[np.uint8]) -> Detections:
        """Returns the box of the full image (1, 4) and its score (1,)."""
        height, width = image_bgr.shape[:2]
        return np.array([[0, 0, width, height]], dtype=np.float32), np.ones(1, dtype=np.float32)


class CleanedDetector:
    """Wraps a detector: clips its boxes to the image and drops invalid boxes and boxes with low scores.

    Boxes that are not finite, have no area, are outside the image, or are in fractions of it are dropped and counted,
    with a warning for the first ones. Several threads may share a detector.

    Args:
        detector: the detector.
        threshold: boxes with lower scores, from 0 to 1, are dropped; 0 keeps all.

    Raises:
        ValueError: if the threshold is not from 0 to 1.
    """

    def __init__(self, detector: Detector, threshold: float = 0.0) -> None:
        self._detector = detector
        self._threshold = checked_box_threshold(threshold)
        self._dropped: Counter[str] = Counter()
        self._warned: set[str] = set()

    @property
    def thresholds(self) -> BoxThresholds:
        """The thresholds of the wrapped detector."""
        return detector_thresholds(self._detector)

    @property
    def dropped(self) -> dict[str, int]:
        """The numbers of invalid boxes by reason."""
        with _count_lock:
            return dict(self._dropped)

    @property
    def has_detect_many(self) -> bool:
        """Whether the wrapped detector has `detect_many`."""
        return hasattr(self._detector, "detect_many")

    def detect(self, image_bgr: NDArray[np.uint8], threshold: float | None = None) -> Detections:
        """Detects persons: boxes (P, 4) xyxy inside an image (H, W, 3) uint8 BGR, in its pixels, and scores (P,).

        Args:
            image_bgr: the image.
            threshold: another threshold for this image; None is the one of the constructor.

        Raises:
            TypeError: if the detector does not return two arrays.
            ValueError: if the detector returns arrays of the wrong shape, or the threshold is not from 0 to 1.
        """
        return self._clean(image_bgr, self._call(self._detector.detect, image_bgr), threshold)

    def detect_many(self, images_bgr: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detects persons in several images, with one call of the detector's `detect_many`.

        Args:
            images_bgr: images (H, W, 3) uint8 BGR of any sizes.

        Returns:
            For each image its boxes and scores, see `detect`.

        Raises:
            TypeError, ValueError: see `detect`.
        """
        returned = self._call(self._detector.detect_many, images_bgr)  # type: ignore[attr-defined] # has_detect_many
        if not isinstance(returned, tuple | list) or len(returned) != len(images_bgr):
            got = f"{len(returned)}" if isinstance(returned, tuple | list) else f"a {type(returned).__name__}"
            raise TypeError(
                f"expected detect_many of the detector {type(self._detector).__name__} to return a list with "
                f"(boxes, scores) for each of {len(images_bgr)} images, got {got}"
            )
        return [self._clean(image, one) for image, one in zip(images_bgr, returned, strict=True)]

    def _warn_once(self, message: str, kind: str) -> None:
        """Warns, at the caller of `detect`, unless there was a warning of the kind before."""
        with _count_lock:
            is_first = kind not in self._warned
            self._warned.add(kind)
        if is_first:
            warnings.warn(message, stacklevel=4)

    def _call(self, method: Callable[[Any], Any], images: Any) -> Any:
        """Calls the detector; errors of other types than OSError, TypeError and ValueError become ValueErrors."""
        try:
            return method(images)
        except (OSError, TypeError, ValueError, MemoryError):
            raise
        except Exception as error:
            name = type(self._detector).__name__
            raise ValueError(f"the detector {name} failed: {type(error).__name__}: {error}") from error

    def _clean(self, image_bgr: NDArray[np.uint8], returned: object, threshold: float | None = None) -> Detections:
        """Checks and cleans what the detector returned for an image."""
        threshold = self._threshold if threshold is None else checked_box_threshold(threshold)
        height, width = image_bgr.shape[:2]
        name = type(self._detector).__name__
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            got = f"a {type(returned).__name__}"
            got += f" of length {len(returned)}" if isinstance(returned, tuple | list) else ""
            raise TypeError(f"expected detect of the detector {name} to return a tuple (boxes, scores), got {got}")
        raw_boxes, raw_scores = returned
        try:
            boxes, scores, dropped = clean_detections(raw_boxes, raw_scores, width, height)
        except ValueError as error:
            raise ValueError(f"the detector {name} returned invalid arrays: {error}") from error
        if dropped:
            with _count_lock:
                self._dropped.update(dropped)
            self._warn_once(
                f"boxes of the detector {name} were dropped: {format_reasons(dropped)}, in an image of {width} x "
                f"{height} pixels; further ones are dropped without a warning",
                "dropped",
            )
        outside = scores[(scores < 0) | (scores > 1 + _SCORE_TOLERANCE)]
        if len(outside):
            self._warn_once(
                f"the detector {name} returned a score of {outside[0]:g}: expected scores from 0 to 1, for which "
                "thresholds and the scores of poses are meant",
                "range",
            )
        is_kept = (scores >= threshold) | (threshold == 0)
        return boxes[is_kept], scores[is_kept]

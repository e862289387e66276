"""What finds the persons of an image when no boxes are given."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray


@runtime_checkable
class Detector(Protocol):
    """Anything that finds persons."""

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[ArrayLike, ArrayLike]:
        """Boxes (P, 4) xyxy in image pixels and scores (P,) of the persons in an image (H, W, 3) uint8 BGR."""


class WholeImage:
    """Takes the whole image for one person, with a score of 1."""

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The box of the whole image (1, 4) and its score (1,)."""
        height, width = image_bgr.shape[:2]
        return np.array([[0, 0, width, height]], dtype=np.float32), np.ones(1, dtype=np.float32)


_NAMED: dict[str, Callable[[], Detector]] = {"whole": WholeImage}


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

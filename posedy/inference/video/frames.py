"""Frames of videos and cameras, one after the other, with their times; damaged ones are counted and left out."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_DAMAGED_IN_A_ROW = 50  # frames that cannot be read, after which a file has ended
_USUAL_RATE = 30.0
_LONGEST_SIDE = 16384  # pixels of a frame: more than 16k has


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture (H, W, 3) uint8 BGR, its number in the video and its time in seconds."""

    number: int
    time: float
    image: NDArray[np.uint8]


class _Place(NamedTuple):
    """Where a video stands: the number of a frame and its time in seconds."""

    number: int
    time: float


class FrameSource:
    """The frames of a video file or of a camera.

    Args:
        source: a file, or the number of a camera.

    Raises:
        OSError: if the file is missing or the camera cannot be opened.
        ValueError: if the file is no video that OpenCV can read, or one of impossible size.
    """

    def __init__(self, source: Path | int) -> None:
        self.is_camera = isinstance(source, int)
        self.name = str(source)
        if isinstance(source, Path) and not source.is_file():
            raise FileNotFoundError(f"no video at {source.absolute()}")
        self._capture = _open(source)
        if not self._capture.isOpened():
            self._capture.release()
            if self.is_camera:
                raise OSError(f"camera {source} cannot be opened: is it connected, and does no other program use it?")
            raise ValueError(f"{source} is no video that OpenCV can read")
        width, height = (int(self._capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if max(width, height) > _LONGEST_SIDE:
            self._capture.release()
            raise ValueError(
                f"{source} promises frames of {width}x{height} pixels, {_LONGEST_SIDE} a side at most: is it damaged?"
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if np.isfinite(rate) and 0 < rate <= 1000 else _USUAL_RATE
        self.damaged = 0
        """Frames that could not be read so far, before one that could."""
        self.missing = 0
        """Frames that a file's header promises beyond the last one that could be read."""
        self.count: int | None = None
        """Frames of a file as its header has them."""
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not self.is_camera and np.isfinite(count) and count > 0:
            self.count = int(count)

    def __iter__(self) -> Iterator[Frame]:
        """The frames; ends with the file, or when a camera gives no more."""
        began, number, in_a_row = time.perf_counter(), 0, 0
        last = _Place(-1, -1 / self.rate)
        while True:
            good, image = self._capture.read()
            if not good or image is None:
                ended = self.is_camera or self.count is None or number >= self.count
                if ended or in_a_row >= _DAMAGED_IN_A_ROW:
                    if self.count is not None:
                        self.missing = max(self.count - (number - in_a_row), 0)
                    return
                in_a_row, number = in_a_row + 1, number + 1
                continue
            self.damaged, in_a_row = self.damaged + in_a_row, 0
            when = time.perf_counter() - began if self.is_camera else self._time_in_file(number, last)
            yield Frame(number, when, image.astype(np.uint8, copy=False))
            last = _Place(number, when)
            number += 1

    def _time_in_file(self, number: int, last: "_Place") -> float:
        """The time that the file gives the frame just read, whose rate may vary; where it gives none, by the rate."""
        stamped = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if np.isfinite(stamped) and stamped > last.time and stamped >= 0:
            return stamped
        return last.time + (number - last.number) / self.rate

    def close(self) -> None:
        """Gives the file or the camera back."""
        self._capture.release()


def _open(source: Path | int) -> cv2.VideoCapture:
    """Opens a file or a camera; OpenCV's pages about what it tried are kept from the terminal."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(str(source) if isinstance(source, Path) else source)
    finally:
        logging.setLogLevel(level)

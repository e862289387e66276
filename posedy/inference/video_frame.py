"""Frames of videos, and what the readers of frames have in common."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

DEFAULT_RATE = 30.0
MAX_GAP = 3600.0
"""Seconds between frames; writers treat larger differences as invalid timestamps."""
INSTALL_PYAV = 'pip install "posedy[video]"'
_MIN_STEP = 2e-4  # seconds between frames, whose times are written with four decimals
_MAX_SIDE = 16384  # pixels of a frame: larger than 16K video


@dataclass(frozen=True, eq=False)
class Frame:
    """An image of a video, with its frame number and its time in seconds.

    Attributes:
        number: frame number from 0, including damaged frames.
        time: time in seconds from the beginning of the video.
        image: (H, W, 3) uint8 BGR, upright.
    """

    number: int
    time: float
    image: NDArray[np.uint8]


class ReadFrame(NamedTuple):
    """A decoded frame, whose conversion to BGR may be left out."""

    number: int
    time: float
    to_bgr: Callable[[], NDArray[np.uint8]]


class FrameReader(Protocol):
    """A video file, stream or camera that is open.

    Attributes:
        is_live: whether it is a camera or a stream without an end, of which late frames are dropped.
        has_sound: whether it has sound, which OpenCV does not tell.
        rate: frames per second, 30 if unknown.
        count: frames of a file according to its header; None if unknown.
        damaged: unreadable frames so far, without those after the last readable one.
        missing: frames that a file's header promises beyond the last readable one.
    """

    is_live: bool
    has_sound: bool
    rate: float
    count: int | None
    damaged: int
    missing: int

    def frames(self) -> Iterator[ReadFrame]:
        """Yields the frames until the source ends; times increase."""
        ...

    def close(self) -> None:
        """Releases the source."""
        ...


def has_pyav() -> bool:
    """Returns whether PyAV is installed, which the extra `video` does."""
    return find_spec("av") is not None


def check_frame_size(name: str, width: int, height: int) -> None:
    """Checks the size of frames before memory is allocated for them.

    Raises:
        ValueError: if a side is too large.
    """
    if max(width, height) > _MAX_SIDE:
        raise ValueError(
            f"{name}: expected frames of at most {_MAX_SIDE} pixels a side, got {width} x {height} (width x height) "
            "in the header; check whether the file is damaged"
        )


def pad_to_even_sides(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image (H, W, 3) with a copy of its last row or column at odd sides, which codecs of videos need."""
    odd = image.shape[0] % 2, image.shape[1] % 2
    if not any(odd):
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE), np.uint8)


class Clock:
    """Increasing times of frames: their timestamps, and steps of the frame rate where these are invalid.

    Args:
        rate: frames per second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._number, self._time = -1, -1 / rate

    def tick(self, number: int, timestamp: float | None, duration: float | None = None) -> float:
        """Returns the time of the next frame in seconds.

        Args:
            number: its frame number.
            timestamp: its timestamp in seconds, if it has one.
            duration: the duration of a frame in seconds, if known.
        """
        is_valid = timestamp is not None and math.isfinite(timestamp) and timestamp >= 0
        if timestamp is None or not is_valid or timestamp < self._time + _MIN_STEP:
            timestamp = max(self._time + (number - self._number) * (duration or 1 / self._rate), 0.0)
        self._number, self._time = number, timestamp
        return timestamp

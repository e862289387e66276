"""Reading frames of videos and cameras, and writing videos and keypoints per frame."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

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


_CODECS = {".mp4": "mp4v", ".webm": "VP80"}
_LONGEST_STILL = 10.0  # seconds: a time that jumps by more is taken for a wrong one


class VideoRecording:
    """Writes frames to a file, which is there, and can be played, once `close` was called.

    It plays as fast as it was, whether a rate varies, frames were damaged, or a camera was slow: at each tick of the
    rate it shows the last frame until then.

    Args:
        path: NAME.mp4 (MPEG-4 part 2: quick to write, for players on the desktop), or NAME.webm (VP8: for browsers).
        rate: ticks per second.

    Raises:
        ValueError: for another ending.
    """

    def __init__(self, path: Path, rate: float) -> None:
        if path.suffix.lower() not in _CODECS:
            raise ValueError(f"drawn videos are written as NAME.mp4 or NAME.webm, got {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._rate = path, rate
        self._temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix.lower()}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._waiting: NDArray[np.uint8] | None = None
        self._tick, self._ticks_passed, self._last_time = 0, 0.0, 0.0

    def write(self, picture: NDArray[np.uint8], time: float) -> None:
        """Adds a frame (H, W, 3) BGR at a time in seconds; frames of another size than the first are scaled to it.

        Raises:
            OSError: if OpenCV cannot write the file.
        """
        if self._writer is None:
            self._open(picture.shape[1], picture.shape[0])
        else:
            passed = time - self._last_time
            self._ticks_passed += passed * self._rate if 0 < passed <= _LONGEST_STILL else 1
            self._write_waiting(round(self._ticks_passed) - self._tick)
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size).astype(np.uint8, copy=False)
        self._waiting, self._last_time = picture, time

    def close(self) -> None:
        """Ends the file and puts it in its place, if there was a frame."""
        if self._writer is not None:
            self._write_waiting(1)
            self._writer.release()
            self._writer = None
            self._temporary.replace(self._path)

    def _open(self, width: int, height: int) -> None:
        self._size = width, height
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._temporary.suffix])
        writer = cv2.VideoWriter(str(self._temporary), codec, self._rate, self._size)
        if not writer.isOpened():
            raise OSError(f"OpenCV cannot write {self._path}: is the disk full, or the folder write-protected?")
        self._writer = writer

    def _write_waiting(self, ticks: int) -> None:
        if self._writer is not None and self._waiting is not None:
            for _ in range(ticks):
                self._writer.write(self._waiting)
            self._tick += max(ticks, 0)


class KeypointLines:
    """Writes a JSON object a line, each to the disk at once.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Adds a line."""
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

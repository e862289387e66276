"""Reading of frames from videos and cameras, and writing of videos and JSON Lines."""

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

_MAX_DAMAGED_IN_A_ROW = 50  # number of consecutive unreadable frames after which a file ends
_DEFAULT_RATE = 30.0
_MAX_SIDE = 16384  # pixels of a frame: larger than 16K video


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video.

    Attributes:
        number: frame number from 0, including damaged frames.
        time: time in seconds.
        image: (H, W, 3) uint8 BGR.
    """

    number: int
    time: float
    image: NDArray[np.uint8]


class _Position(NamedTuple):
    """Frame number and time in seconds."""

    number: int
    time: float


class FrameSource:
    """Iterable over the frames of a video file or camera.

    Args:
        source: file path or camera number.

    Attributes:
        is_camera: whether the source is a camera.
        name: name of the source, for messages.
        rate: frames per second, 30 if unknown.
        count: frames of a file according to its header; None if unknown.
        damaged: unreadable frames so far, without those after the last readable one.
        missing: frames in a file's header beyond the last readable one.

    Raises:
        OSError: if the file is missing or the camera cannot be opened.
        ValueError: if OpenCV cannot read the file, its frames are too large, or the number of a camera is negative.
    """

    def __init__(self, source: Path | int) -> None:
        if isinstance(source, int) and source < 0:  # OpenCV would crash the process
            raise ValueError(f"expected the number of a camera from 0, got {source}")
        self.is_camera = isinstance(source, int)
        self.name = str(source)
        if isinstance(source, Path) and not source.is_file():
            raise FileNotFoundError(f"video not found: {source.absolute()}")
        self._capture = _open_capture(source)
        if not self._capture.isOpened():
            self._capture.release()
            if self.is_camera:
                raise OSError(
                    f"camera {source} cannot be opened: check that it is connected and not in use by another program"
                )
            raise ValueError(f"{source} is not a video that OpenCV can read")
        width, height = (int(self._capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if max(width, height) > _MAX_SIDE:
            self._capture.release()
            raise ValueError(
                f"{source}: expected frames of at most {_MAX_SIDE} pixels a side, got {width} x {height} (width x "
                "height) in the header; check whether the file is damaged"
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if np.isfinite(rate) and 0 < rate <= 1000 else _DEFAULT_RATE
        self.damaged = 0
        self.missing = 0
        self.count: int | None = None
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not self.is_camera and np.isfinite(count) and count > 0:
            self.count = int(count)

    def __iter__(self) -> Iterator[Frame]:
        """Yields frames until the file ends or the camera stops."""
        began, number, damaged_in_a_row = time.perf_counter(), 0, 0
        last = _Position(-1, -1 / self.rate)
        while True:
            success, image = self._capture.read()
            if not success or image is None:
                ended = self.is_camera or self.count is None or number >= self.count
                if ended or damaged_in_a_row >= _MAX_DAMAGED_IN_A_ROW:
                    if self.count is not None:
                        self.missing = max(self.count - (number - damaged_in_a_row), 0)
                    return
                damaged_in_a_row, number = damaged_in_a_row + 1, number + 1
                continue
            self.damaged, damaged_in_a_row = self.damaged + damaged_in_a_row, 0
            frame_time = time.perf_counter() - began if self.is_camera else self._time_in_file(number, last)
            yield Frame(number, frame_time, image.astype(np.uint8, copy=False))
            last = _Position(number, frame_time)
            number += 1

    def _time_in_file(self, number: int, last: _Position) -> float:
        """Returns the timestamp of the current frame, since rates vary; without a valid one, the time by the rate."""
        timestamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if np.isfinite(timestamp) and timestamp > last.time and timestamp >= 0:
            return timestamp
        return last.time + (number - last.number) / self.rate

    def close(self) -> None:
        """Releases the file or camera."""
        self._capture.release()


def _open_capture(source: Path | int) -> cv2.VideoCapture:
    """Opens a file or camera without OpenCV's log messages."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(str(source) if isinstance(source, Path) else source)
    finally:
        logging.setLogLevel(level)


_CODECS = {".mp4": "mp4v", ".webm": "VP80"}
_MAX_GAP = 10.0  # seconds between frames; larger differences are treated as invalid timestamps


class VideoWriter:
    """Writer of a video file, which exists and is playable after `close`.

    Playback speed equals recording speed even if the rate varies, frames are damaged or a camera is slow: each tick of
    the output rate shows the latest frame at that time.

    Args:
        path: NAME.mp4 (MPEG-4 part 2: fast to write, for desktop players) or NAME.webm (VP8: for browsers).
        rate: output frames per second.

    Raises:
        ValueError: if the suffix is not supported.
    """

    def __init__(self, path: Path, rate: float) -> None:
        if path.suffix.lower() not in _CODECS:
            raise ValueError(f"expected a video name with suffix {' or '.join(_CODECS)}, got {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._rate = path, rate
        self._temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix.lower()}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._pending: NDArray[np.uint8] | None = None
        self._ticks_written, self._ticks_elapsed, self._last_time = 0, 0.0, 0.0

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Adds a frame.

        Args:
            image: (H, W, 3) BGR; resized to the size of the first frame.
            time: time in seconds.

        Raises:
            OSError: if OpenCV cannot write the file.
        """
        if self._writer is None:
            self._open(image.shape[1], image.shape[0])
        else:
            elapsed = time - self._last_time
            self._ticks_elapsed += elapsed * self._rate if 0 < elapsed <= _MAX_GAP else 1
            self._write_pending(round(self._ticks_elapsed) - self._ticks_written)
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size).astype(np.uint8, copy=False)
        self._pending, self._last_time = image, time

    def close(self) -> None:
        """Finishes the file and moves it to its path; without a frame there is no file."""
        if self._writer is not None:
            self._write_pending(1)
            self._writer.release()
            self._writer = None
            self._temporary.replace(self._path)

    def _open(self, width: int, height: int) -> None:
        self._size = width, height
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._temporary.suffix])
        writer = cv2.VideoWriter(str(self._temporary), codec, self._rate, self._size)
        if not writer.isOpened():
            raise OSError(f"OpenCV cannot write {self._path}: check disk space and the permissions of the folder")
        self._writer = writer

    def _write_pending(self, ticks: int) -> None:
        if self._writer is not None and self._pending is not None:
            for _ in range(ticks):
                self._writer.write(self._pending)
            self._ticks_written += max(ticks, 0)


class JsonLinesWriter:
    """Writer of a JSON Lines file; each line is flushed.

    Args:
        path: output file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Adds a line."""
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

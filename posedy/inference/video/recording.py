"""What comes of a video: drawn frames in a file that can be played whenever it ends, and keypoints line by line."""

import json
import os
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

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

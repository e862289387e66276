"""What comes of a video: drawn frames in a file that can be played whenever it ends, and keypoints line by line."""

import json
import os
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray


class VideoRecording:
    """Writes frames to NAME.mp4; the file is there, and can be played, once `close` was called.

    Args:
        path: of the file.
        rate: frames per second.
        keep_pace: repeat frames of a camera where fewer come than the rate, so that it plays as fast as it was.
    """

    def __init__(self, path: Path, rate: float, keep_pace: bool = False) -> None:
        if path.suffix.lower() != ".mp4":
            raise ValueError(f"drawn videos are written as NAME.mp4, got {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._rate = path, rate
        self._temporary = path.with_name(f".{path.stem}-{os.getpid()}.mp4")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._keep_pace, self._written, self._began = keep_pace, 0, 0.0

    def write(self, picture: NDArray[np.uint8], time: float = 0.0) -> None:
        """Adds a frame (H, W, 3) BGR at a time in seconds; frames of another size than the first are scaled to it.

        Raises:
            OSError: if OpenCV cannot write the file.
        """
        if self._writer is None:
            self._began = time
            self._size = (picture.shape[1], picture.shape[0])
            self._writer = cv2.VideoWriter(
                str(self._temporary), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, self._size
            )
            if not self._writer.isOpened():
                self._writer = None
                raise OSError(f"OpenCV cannot write {self._path}: is the disk full, or the folder write-protected?")
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size).astype(np.uint8, copy=False)
        due = round((time - self._began) * self._rate) + 1 if self._keep_pace else 1
        for _ in range(max(1, due - self._written) if self._keep_pace else 1):
            self._writer.write(picture)
            self._written += 1

    def close(self) -> None:
        """Ends the file and puts it in its place, if there was a frame."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            self._temporary.replace(self._path)


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

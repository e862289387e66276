"""Cameras, and videos without PyAV: reading and writing with OpenCV.

OpenCV rotates frames upright, reports no damaged packet and no error of writing, and its wheels decode no AV1.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.inference.video_frame import (
    DEFAULT_RATE,
    INSTALL_PYAV,
    MAX_GAP,
    Clock,
    ReadFrame,
    check_frame_size,
    pad_to_even_sides,
)

_MAX_DAMAGED_IN_A_ROW = 50  # number of consecutive unreadable frames after which a file ends
_MAX_RATE = 999.0  # frames per second; Matroska files without a rate have 1000
_MATROSKA = b"\x1a\x45\xdf\xa3"
_PLAYLISTS = (b"#EXTM3U", b"ffconcat")  # they name other files and URLs, which the web page must not read
_CODECS = {".mp4": "mp4v", ".webm": "VP80"}
_RATE_FRAMES = 12  # frames from which an unknown rate is estimated


class OpenCVReader:
    """A video file or camera that OpenCV reads; see `FrameReader`.

    Args:
        source: file path or camera number.

    Raises:
        OSError: if the file or camera cannot be opened.
        ValueError: if OpenCV cannot read the file, its frames are too large, or the number of a camera is negative.
    """

    def __init__(self, source: Path | int) -> None:
        if isinstance(source, int) and source < 0:  # OpenCV would crash the process
            raise ValueError(f"expected the number of a camera from 0, got {source}")
        self.is_live = isinstance(source, int)
        self.has_sound = False
        head = b""
        if isinstance(source, Path):
            with source.open("rb") as file:
                head = file.read(8)
                if head.startswith(_PLAYLISTS):
                    raise ValueError(f"{source} is a list of videos: give one of them")
        # an absolute path, since FFmpeg takes a name such as 10:30.mp4 for a URL
        self._source = source if isinstance(source, int) else str(source.absolute())
        self._capture = _open_capture(self._source)
        if not self._capture.isOpened():
            self._capture.release()
            if self.is_live:
                raise OSError(
                    f"camera {source} cannot be opened: check that it is connected and not in use by another program"
                )
            raise ValueError(
                f"{source} is not a video that OpenCV can read: check whether the file is whole; PyAV reads more "
                f"formats ({INSTALL_PYAV})"
            )
        try:
            sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            check_frame_size(str(source), *(int(self._capture.get(side)) for side in sides))
        except ValueError:
            self._capture.release()
            raise
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        is_valid = np.isfinite(rate) and 0 < rate <= _MAX_RATE
        self.rate = rate if is_valid else self._estimate_rate()
        self.damaged = 0
        self.missing = 0
        self.count: int | None = None
        # the count of a file without a rate is false, too
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not self.is_live and is_valid and np.isfinite(count) and count > 0:
            self.count = int(count)
        self._counts_from_zero = head.startswith(_MATROSKA)

    def frames(self) -> Iterator[ReadFrame]:
        """Yields frames until the file ends or the camera stops."""
        began, number, damaged_in_a_row = time.perf_counter(), 0, 0
        clock = Clock(self.rate)
        while True:
            success, image = self._capture.read()
            if not success or image is None or not image.size:
                # cameras deliver frames of 0 x 0 pixels while they start
                is_over = not success if self.is_live else self.count is None or number >= self.count
                if is_over or damaged_in_a_row >= _MAX_DAMAGED_IN_A_ROW:
                    if self.count is not None:
                        self.missing = max(self.count - (number - damaged_in_a_row), 0)
                    return
                damaged_in_a_row, number = damaged_in_a_row + 1, number + 1
                continue
            self.damaged, damaged_in_a_row = self.damaged + damaged_in_a_row, 0
            if number == self.damaged and self._counts_from_zero and self.count is not None:
                # the count is that of the duration, which begins at 0 even if the first timestamp is later
                self.count = max(self.count - max(round(self._capture.get(cv2.CAP_PROP_PTS)), 0), 1)
            is_file = not self.is_live
            timestamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if is_file else time.perf_counter() - began
            bgr = image.astype(np.uint8, copy=False)
            yield ReadFrame(number, clock.tick(number, timestamp), lambda bgr=bgr: bgr)  # type: ignore[misc]
            number += 1

    def close(self) -> None:
        """Releases the file or camera."""
        self._capture.release()

    def _estimate_rate(self) -> float:
        """Returns the rate of the first frames of a file, and opens it again; 30 if it is unknown."""
        if self.is_live:
            return DEFAULT_RATE
        times: list[float] = []
        while len(times) < _RATE_FRAMES and self._capture.grab():
            times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        self._capture.release()
        self._capture = _open_capture(self._source)
        steps = np.diff(times)
        step = float(np.median(steps)) if len(steps) else 0.0
        return 1 / step if step > 1 / _MAX_RATE else DEFAULT_RATE


def _open_capture(source: str | int) -> cv2.VideoCapture:
    """Opens a file or camera without OpenCV's log messages."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source)
    finally:
        logging.setLogLevel(level)


class OpenCVWriter:
    """Writer of MPEG-4 part 2 (.mp4, for desktop players) or VP8 (.webm, for browsers) at a constant rate.

    Playback speed equals recording speed even if the rate varies, frames are damaged or a camera is slow: each tick of
    the output rate shows the latest frame at that time. Frames with an odd side get a copy of their last row or column,
    since the codecs store colors for 2 x 2 pixels.

    Args:
        path: the file to write.
        rate: output frames per second.

    Attributes:
        notes: empty; see `PyAVWriter`.
    """

    suffixes = tuple(_CODECS)

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self.notes: list[str] = []
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._pending: NDArray[np.uint8] | None = None
        self._ticks_written, self._ticks_elapsed, self._last_time = 0, 0.0, 0.0

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Adds a frame (H, W, 3) BGR, resized to the size of the first one, at a time in seconds.

        Raises:
            OSError: if OpenCV cannot write the file.
        """
        image = pad_to_even_sides(image)
        if self._writer is None:
            self._open(image.shape[1], image.shape[0])
        else:
            elapsed = time - self._last_time
            self._ticks_elapsed += elapsed * self._rate if 0 < elapsed <= MAX_GAP else 1
            self._write_pending(round(self._ticks_elapsed) - self._ticks_written)
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size).astype(np.uint8, copy=False)
        self._pending, self._last_time = image, time

    def close(self) -> None:
        """Finishes the file.

        Raises:
            OSError: if frames are missing in it. OpenCV reports no full disk, so the file is read back.
        """
        if self._writer is None:
            return
        self._write_pending(1)
        self.discard()
        capture = _open_capture(str(self._path.absolute()))
        written = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        # the count of WebM is computed from its duration
        if written < self._ticks_written - (self._path.suffix.lower() == ".webm"):
            free = shutil.disk_usage(self._path.parent).free
            raise OSError(
                f"{max(int(written), 0)} of {self._ticks_written} frames were written; the disk has "
                f"{free / 2**20:.1f} MiB left"
            )

    def discard(self) -> None:
        """Closes the file as it is."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _open(self, width: int, height: int) -> None:
        self._size = width, height
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._path.absolute()), codec, self._rate, self._size)
        if not writer.isOpened():
            raise OSError("OpenCV cannot open it: check the free disk space and the permissions of the folder")
        self._writer = writer

    def _write_pending(self, ticks: int) -> None:
        if self._writer is not None and self._pending is not None:
            for _ in range(ticks):
                self._writer.write(self._pending)
            self._ticks_written += max(ticks, 0)

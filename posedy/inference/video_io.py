"""Reading of frames from videos, streams and cameras.

Videos are read with PyAV (the extra `video`) if it is installed, otherwise with OpenCV; cameras are read with OpenCV.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from posedy.inference.video_frame import INSTALL_PYAV, Frame, FrameReader, has_pyav
from posedy.inference.video_opencv import OpenCVReader
from posedy.urls import has_scheme

__all__ = ["Frame", "FrameSource", "is_video_file"]

_STREAM_SCHEMES = ("http", "https", "rtsp", "rtsps")
_TIMEOUT = 10.0  # seconds


def is_video_file(path: Path) -> bool:
    """Returns whether a file can be read as a video, whatever its suffix."""
    try:
        FrameSource(path).close()
    except (OSError, ValueError):
        return False
    return True


class FrameSource:
    """Iterable over the frames of a video file, a stream or a camera.

    Args:
        source: file path, URL of a video (http, https) or of a live stream (rtsp, rtsps), or camera number.
        start: time in seconds of the first frame.
        end: time in seconds before which the last frame is; None is the end of the video.
        stride: every N-th frame, from the first one.
        timeout: seconds to wait for the data of a URL.

    Attributes:
        path: the file; None for a stream or camera.
        name: name of the source, for messages.
        is_live: whether it is a camera or a live stream, of which frames that come too fast are dropped.
        has_sound: whether it has sound; without PyAV it is unknown, and False.
        rate: frames per second, 30 if unknown.
        count: frames of a file according to its header; None if unknown, or with `start`, `end` or `stride`.

    Raises:
        OSError: if the file is missing, or the stream or camera cannot be opened.
        ValueError: if the file is no video or has no frames, its frames are too large, the URL needs PyAV, or another
            argument is out of range.
    """

    def __init__(
        self,
        source: Path | str | int,
        *,
        start: float = 0.0,
        end: float | None = None,
        stride: int = 1,
        timeout: float = _TIMEOUT,
    ) -> None:
        _check_range(start, end, stride)
        self.name = str(source)
        self.path = Path(source) if not isinstance(source, int) and not has_scheme(source) else None
        if self.path is not None and not self.path.is_file():
            raise FileNotFoundError(f"video not found: {self.path.absolute()}")
        self._reader = _open_reader(source if self.path is None else self.path, timeout)
        self._start, self._end, self._stride = start, end, stride
        self.is_live = self._reader.is_live
        self.has_sound = self._reader.has_sound
        self.rate = self._reader.rate / stride
        is_whole = start == 0 and end is None and stride == 1
        self.count = self._reader.count if is_whole else None

    def __iter__(self) -> Iterator[Frame]:
        """Yields frames until the source ends.

        Raises:
            ValueError: if it has no readable frame from `start`.
        """
        index, time = 0, 0.0
        for number, time, to_bgr in self._reader.frames():
            if self._end is not None and time >= self._end:
                if index == 0:
                    raise ValueError(f"{self.name} has no frame from {self._start:g} s to {self._end:g} s")
                break
            if time < self._start:
                continue
            if index % self._stride == 0:
                yield Frame(number, time, to_bgr())
            index += 1
        if index == 0 and self._start > 0:
            raise ValueError(f"{self.name} has no frame from {self._start:g} s: its last one is at {time:.2f} s")
        if index == 0:
            hint = "" if has_pyav() else f"; PyAV reads more formats, such as AV1: {INSTALL_PYAV}"
            raise ValueError(f"{self.name} has no readable frame: check whether the file is whole{hint}")

    @property
    def damaged(self) -> int:
        """The number of unreadable frames so far, without those after the last readable one."""
        return self._reader.damaged

    @property
    def missing(self) -> int:
        """The number of frames that a file's header promises beyond the last readable one."""
        return self._reader.missing

    def close(self) -> None:
        """Releases the source."""
        self._reader.close()


def _check_range(start: float, end: float | None, stride: int) -> None:
    """Raises ValueError unless the times and the stride select frames."""
    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"expected a start from 0 s, got {start}")
    if end is not None and not (math.isfinite(end) and end > start):
        raise ValueError(f"expected an end after the start at {start:g} s, got {end}")
    if stride < 1:
        raise ValueError(f"expected a stride of at least 1, got {stride}")


def _open_reader(source: Path | str | int, timeout: float) -> FrameReader:
    """Opens a file or stream with PyAV if it is installed, a camera or another file with OpenCV."""
    if isinstance(source, str):
        scheme = source.partition(":")[0].lower()
        if scheme not in _STREAM_SCHEMES:
            raise ValueError(f"expected a URL with {', '.join(_STREAM_SCHEMES)}, got {source}")
        if not has_pyav():
            raise ValueError(f"{source}: URLs of videos are read with PyAV, which is not installed: {INSTALL_PYAV}")
    if isinstance(source, int) or (isinstance(source, Path) and not has_pyav()):
        return OpenCVReader(source)
    from posedy.inference.video_pyav import PyAVReader

    return PyAVReader(source, timeout)

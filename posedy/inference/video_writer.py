"""Writing of videos and JSON Lines, which overwrite earlier files only when they are whole."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from posedy.files import atomic_write, named_write_errors
from posedy.inference.video_frame import has_pyav
from posedy.inference.video_opencv import OpenCVWriter

if TYPE_CHECKING:
    from posedy.inference.video_encoder import PyAVWriter


class VideoWriter:
    """Writer of a video file, which exists and is playable after `close`.

    Playback speed equals recording speed even if the rate varies, frames are damaged or a camera is slow.

    Args:
        path: NAME.mp4, H.264 with PyAV and otherwise MPEG-4 part 2, which browsers do not play; or NAME.webm, VP8.
        rate: frames per second.
        audio_from: the video file whose sound is copied, if PyAV is installed.

    Raises:
        ValueError: if the suffix is not supported.
    """

    def __init__(self, path: Path, rate: float, audio_from: Path | None = None) -> None:
        suffix = path.suffix.lower()
        if suffix not in OpenCVWriter.suffixes:
            raise ValueError(f"expected a video name with suffix {' or '.join(OpenCVWriter.suffixes)}, got {path}")
        self._file = WholeFile(path)
        self._writer = _create_writer(self._file.temporary, rate, audio_from)

    @property
    def notes(self) -> list[str]:
        """Messages about audio of the source that is missing in the video."""
        return self._writer.notes

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Adds a frame.

        Args:
            image: (H, W, 3) BGR; resized to the size of the first frame.
            time: time in seconds.

        Raises:
            OSError: if the file cannot be written.
        """
        with self._file.named_errors():
            self._writer.write(image, time)

    def close(self) -> None:
        """Finishes the file and moves it to its path; without a frame there is no file.

        Raises:
            OSError: if the file cannot be written; what was at its path stays.
        """
        with self._file.finishing(self.discard):
            self._writer.close()
        if self._file.temporary.stat().st_size:
            self._file.commit()
        else:
            self._file.discard()

    def discard(self) -> None:
        """Deletes the unfinished file; an earlier file at its path stays."""
        self._writer.discard()
        self._file.discard()


def _create_writer(path: Path, rate: float, audio_from: Path | None) -> "PyAVWriter | OpenCVWriter":
    """Creates the writer of a format."""
    if path.suffix.lower() == ".mp4" and has_pyav():
        from posedy.inference.video_encoder import PyAVWriter

        return PyAVWriter(path, rate, audio_from)
    return OpenCVWriter(path, rate)


class JsonLinesWriter:
    """Writer of a JSON Lines file, which exists after `close`; each line is flushed.

    Args:
        path: output file.
    """

    def __init__(self, path: Path) -> None:
        self._file = WholeFile(path)
        with self._file.named_errors():
            self._text: TextIO = self._file.temporary.open("w", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Adds a line.

        Raises:
            OSError: if the file cannot be written.
        """
        line = json.dumps(record, allow_nan=False) + "\n"
        with self._file.named_errors():
            self._text.write(line)
            self._text.flush()

    def close(self) -> None:
        """Finishes the file and moves it to its final path.

        Raises:
            OSError: if the file cannot be written; what was at its path stays.
        """
        with self._file.finishing(self.discard):
            self._text.close()
        self._file.commit()

    def discard(self) -> None:
        """Deletes the unfinished file; an earlier file at its path stays."""
        with contextlib.suppress(OSError):  # the rest of a line does not fit
            self._text.close()
        self._file.discard()


class _DiscardedError(Exception):
    """Ends `atomic_write` without replacing the file."""


class WholeFile:
    """A file that replaces the one at its path only at `commit`, as `atomic_write` does at the end of its block.

    Args:
        path: the final path; missing folders are created.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stack = path, contextlib.ExitStack()
        with self.named_errors():
            self.temporary = self._stack.enter_context(atomic_write(path))

    def commit(self) -> None:
        """Moves the temporary file to its final path."""
        with self.named_errors():
            self._stack.close()

    def discard(self) -> None:
        """Deletes the temporary file; an earlier file at the final path stays."""
        with contextlib.suppress(_DiscardedError), self._stack:
            raise _DiscardedError

    @contextlib.contextmanager
    def finishing(self, discard: Callable[[], None]) -> Iterator[None]:
        """Discards the file by a function if its last data cannot be written."""
        try:
            with self.named_errors():
                yield
        except OSError:
            discard()
            raise

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Replaces errors of writing by one that names the final path."""
        with named_write_errors(self._path):
            try:
                yield
            except ValueError as error:  # FFmpeg reports some errors of encoders as invalid arguments
                raise OSError(getattr(error, "strerror", None) or str(error)) from error

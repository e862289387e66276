"""Writing of videos and JSON Lines, which overwrite earlier files only when they are whole."""

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

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
        self._file = _TemporaryFile(path)
        self._writer = _create_writer(self._file.temporary, rate, audio_from)

    @property
    def notes(self) -> list[str]:
        """Lines of text about sound that was left out."""
        return self._writer.notes

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Adds a frame.

        Args:
            image: (H, W, 3) BGR; resized to the size of the first frame.
            time: time in seconds.

        Raises:
            OSError: if the file cannot be written.
        """
        try:
            self._writer.write(image, time)
        except (OSError, ValueError) as error:  # FFmpeg reports some errors of encoders as invalid arguments
            raise self._file.explain(error) from error

    def close(self) -> None:
        """Finishes the file and moves it to its path; without a frame there is no file.

        Raises:
            OSError: if the file cannot be written; what was at its path stays.
        """
        try:
            self._writer.close()
        except (OSError, ValueError) as error:
            self.discard()
            raise self._file.explain(error) from error
        self._file.commit()

    def discard(self) -> None:
        """Deletes the unfinished file; what was at its path stays."""
        self._writer.discard()
        self._file.discard()


def _create_writer(path: Path, rate: float, audio_from: Path | None) -> "PyAVWriter | OpenCVWriter":
    """Creates the writer of a format."""
    if path.suffix == ".mp4" and has_pyav():
        from posedy.inference.video_encoder import PyAVWriter

        return PyAVWriter(path, rate, audio_from)
    return OpenCVWriter(path, rate)


class JsonLinesWriter:
    """Writer of a JSON Lines file, which exists after `close`; each line is flushed.

    Args:
        path: output file.
    """

    def __init__(self, path: Path) -> None:
        self._file = _TemporaryFile(path)
        try:
            self._text: TextIO = self._file.temporary.open("w", encoding="utf-8")
        except OSError as error:
            raise self._file.explain(error) from error

    def write(self, record: dict[str, Any]) -> None:
        """Adds a line.

        Raises:
            OSError: if the file cannot be written.
        """
        try:
            self._text.write(json.dumps(record, allow_nan=False) + "\n")
            self._text.flush()
        except OSError as error:
            raise self._file.explain(error) from error

    def close(self) -> None:
        """Moves the file to its path.

        Raises:
            OSError: if the file cannot be written; what was at its path stays.
        """
        try:
            self._text.close()
        except OSError as error:
            self._file.discard()
            raise self._file.explain(error) from error
        self._file.commit()

    def discard(self) -> None:
        """Deletes the unfinished file; what was at its path stays."""
        with contextlib.suppress(OSError):  # the rest of a line does not fit
            self._text.close()
        self._file.discard()


class _TemporaryFile:
    """A file next to its final path, to which it is moved when it is whole; symbolic links are followed.

    Args:
        path: the final path; missing folders are created.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._final = path, Path(os.path.realpath(path))
        name = f".{self._final.stem}-{secrets.token_hex(4)}{path.suffix.lower()}"
        self.temporary = self._final.with_name(name)

    def commit(self) -> None:
        """Moves the file to its path, if it was written."""
        if self.temporary.exists():
            try:
                with self.temporary.open("rb") as file:
                    os.fsync(file.fileno())
                self.temporary.replace(self._final)
            except OSError as error:
                self.discard()
                raise self.explain(error) from error

    def discard(self) -> None:
        """Deletes the file."""
        self.temporary.unlink(missing_ok=True)

    def explain(self, error: OSError | ValueError) -> OSError:
        """Returns an error that names the final path."""
        reason = getattr(error, "strerror", None) or error
        return OSError(
            f"{self._path} cannot be written ({reason}): check the free disk space and the permissions of the folder"
        )

"""Reading the images of all kinds of sources."""

import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.files import read_bytes
from posedy.images import decode_image
from posedy.inference.bulk.sources import TAR, ImageSource, find_column, import_parquet, is_special
from posedy.urls import is_url, read_url

_CHANGED = "has changed since its images were listed: run the command with another --out"


def image_bytes(value: bytes | dict[str, Any] | None, name: str) -> bytes:
    """Returns the content of an image file in a table: bytes, or a dict with `bytes`.

    Raises:
        OSError: if there are none.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        raise OSError(f"{name} is null: expected the bytes of an image file")
    if not isinstance(data, bytes):
        raise OSError(f"{name} is of the type {type(data).__name__}: expected the bytes of an image file")
    return data


class SourceReader:
    """Reads images of all kinds of sources; several threads may share it.

    Of a Parquet file, one row group at a time is in memory.

    Args:
        image_column: see `list_sources`.
    """

    def __init__(self, image_column: str | None = None) -> None:
        self._image_column = image_column
        self._lock = threading.Lock()
        self._rows: tuple[tuple[str, int], Any] | None = None  # file and number of a row group, and its images

    def read(self, source: ImageSource) -> NDArray[np.uint8]:
        """Reads an image (H, W, 3) RGB, upright.

        Raises:
            OSError: if the image cannot be read.
        """
        if source.error is not None:
            raise OSError(source.error)
        return decode_image(self._read_content(source), source.name, apply_exif=True)

    def _read_content(self, source: ImageSource) -> bytes:
        if source.container is None:
            if is_url(source.name):
                return read_url(source.name)
            if is_special(source.name):
                raise OSError(f"{source.name} is a pipe or a device: expected an image file")
            return read_bytes(source.name)
        assert source.place is not None
        read = self._read_member if source.container.lower().endswith(TAR) else self._read_row
        return read(source.name, source.container, *source.place)

    def _read_member(self, name: str, path: str, offset: int, size: int) -> bytes:
        try:
            with Path(path).open("rb") as file:
                file.seek(offset - tarfile.BLOCKSIZE)
                header, data = file.read(tarfile.BLOCKSIZE), file.read(size)
        except OSError as error:
            raise OSError(f"{path} cannot be read ({error.strerror}): check its path and disk") from error
        if len(data) < size:
            raise OSError(f"{path} is truncated: expected {size} bytes of {name}, got {len(data)}; copy it again")
        try:
            found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
        except tarfile.TarError:
            found = -1
        if found != size:
            raise OSError(f"{path} {_CHANGED}")
        return data

    def _read_row(self, name: str, path: str, group: int, row: int) -> bytes:
        with self._lock:
            if self._rows is None or self._rows[0] != (path, group):
                self._rows = None  # not two at a time
                self._rows = (path, group), self._read_group(path, group)
            images = self._rows[1]
        if isinstance(images, str):
            raise OSError(images)
        if row >= len(images):
            raise OSError(f"{path} {_CHANGED}")
        return image_bytes(images[row].as_py(), name)

    def _read_group(self, path: str, group: int) -> Any:
        """Reads the images of a row group; returns the reason if it fails, so that it is not read for each row."""
        parquet = import_parquet(path)
        from pyarrow import ArrowException

        try:
            with parquet.ParquetFile(path) as file:
                column = find_column(file.schema_arrow, self._image_column, path)
                return file.read_row_group(group, columns=[column]).column(0)
        except (OSError, ValueError, IndexError, ArrowException) as error:
            return f"{path} cannot be read ({error}): write it again"

"""Images in folders, list files, tar shards and Parquet files: listing them in a fixed order, and reading one."""

import glob
import json
import os
import tarfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posedy.files import read_bytes
from posedy.image_paths import IMAGE_SUFFIXES
from posedy.images import decode_image, read_image, read_image_url
from posedy.registration import nearest_name
from posedy.urls import has_scheme, is_url

if TYPE_CHECKING:
    import pyarrow as pa

_TAR, _PARQUET, _LIST = ".tar", ".parquet", ".txt"
_CONTAINERS = (_TAR, _PARQUET)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_IMAGE_COLUMN = "image"


@dataclass(frozen=True)
class ImageSource:
    """Where an image of the input is.

    Attributes:
        name: the name of the image in the results: a path or a URL; FILE.tar/MEMBER; FILE.parquet/ROW.
        container: the tar or Parquet file of the image; None for image files and URLs.
        place: offset and size in bytes in a tar, row group and row of it in a Parquet file.
        error: why the image cannot be read, if this is known from the listing.
    """

    name: str
    container: str | None = None
    place: tuple[int, int] | None = None
    error: str | None = None

    def to_line(self) -> bytes:
        """Returns the source as a line of JSON."""
        fields = [self.name, self.container, self.place, self.error]
        while fields[-1] is None:
            fields.pop()
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "ImageSource":
        """Returns the source of a line of JSON."""
        name, container, place, error = (json.loads(line) + [None] * 3)[:4]
        return cls(name, container, None if place is None else (place[0], place[1]), error)


def list_sources(arguments: Iterable[str], image_column: str | None, skipped: Path) -> Iterator[ImageSource]:
    """Lists the images of command line arguments; the order depends on the names alone.

    Args:
        arguments: image files; folders, with all subfolders, but without hidden files and folders and without linked
            folders; glob patterns; .txt files with a path or a URL in each line; .tar files; .parquet files. Folders
            and patterns give tar and Parquet files, too.
        image_column: the column of Parquet files with images; None finds it.
        skipped: a folder that is left out, that of the results.

    Raises:
        OSError: if a folder or a list file cannot be read.
        ValueError: if an argument matches no file, is in another one, or a Parquet file has no column with images.
    """
    arguments = sorted(set(arguments))
    _check_overlap(arguments)
    skipped = skipped.resolve()
    for argument in arguments:
        path = Path(argument)
        if not argument:
            raise ValueError("empty argument: expected an image, folder or pattern; '.' is the current folder")
        if path.is_dir():
            yield from _list_folder(argument, image_column, skipped)
        elif is_url(argument) or path.is_file():
            yield from _list_file(argument, image_column, is_argument=True)
        elif has_scheme(argument):
            raise ValueError(f"expected files, or http(s) URLs, got {argument}: posedy.ray.predict reads cloud storage")
        else:
            names = sorted(set(glob.iglob(argument, recursive=True)))  # noqa: PTH207
            found = [name for name in names if _has_known_suffix(name) and Path(name).is_file()]
            if not found:
                kind = "file matches" if glob.has_magic(argument) else "image or folder at"
                raise ValueError(f"no {kind} {argument}: check its name")
            for name in found:
                yield from _list_file(name, image_column)


def _check_overlap(arguments: list[str]) -> None:
    """Raises ValueError if an argument is a folder that contains another one: images would be predicted twice."""
    resolved = {Path(argument).resolve(): argument for argument in arguments if not has_scheme(argument)}
    for path, argument in resolved.items():
        outer = next((resolved[parent] for parent in path.parents if parent in resolved), None)
        if outer is not None:
            raise ValueError(f"{argument} is in {outer}, which is also given: leave it out")


def _has_known_suffix(name: str) -> bool:
    return name.lower().endswith((*IMAGE_SUFFIXES, *_CONTAINERS))


def _list_folder(folder: str, image_column: str | None, skipped: Path) -> Iterator[ImageSource]:
    """Lists a folder and its subfolders, by name."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise type(error)(f"{folder} cannot be read ({error.strerror}): check its permissions") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if Path(entry.path).resolve() != skipped:
                yield from _list_folder(entry.path, image_column, skipped)
        elif _has_known_suffix(entry.name) and not entry.is_dir():
            yield from _list_file(entry.path, image_column)


def _list_file(name: str, image_column: str | None, is_argument: bool = False) -> Iterator[ImageSource]:
    """Lists the images of one file; a list file is one only as an argument of its own."""
    suffix = Path(name).suffix.lower()
    if suffix == _TAR:
        yield from _list_tar(name)
    elif suffix == _PARQUET:
        yield from _list_parquet(name, image_column)
    elif is_argument and suffix == _LIST:
        lines = read_bytes(name).decode(errors="surrogateescape").splitlines()
        for line in sorted({line.strip() for line in lines} - {""}):
            yield from _list_file(line, image_column)
    elif name.lower().endswith(_COMPRESSED):
        yield ImageSource(name, error=f"{name} is compressed, and its images cannot be read one by one: unpack it")
    else:
        yield ImageSource(name)


def _list_tar(path: str) -> Iterator[ImageSource]:
    """Lists the images of a tar file by its headers; a damaged file gives those before the damage."""
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # it would otherwise keep all of them in memory
                if member.isfile() and member.name.lower().endswith(IMAGE_SUFFIXES):
                    yield ImageSource(f"{path}/{member.name}", path, (member.offset_data, member.size))
    except (OSError, tarfile.TarError) as error:
        yield ImageSource(
            path, error=f"{path} is no tar file, or is damaged ({error}): images after the damage are lost"
        )


def _list_parquet(path: str, image_column: str | None) -> Iterator[ImageSource]:
    """Lists the rows of a Parquet file by its metadata."""
    parquet = _import_parquet(path)
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these types
        yield ImageSource(path, error=f"{path} is no Parquet file, or is damaged ({error}): write it again")
        return
    with file:
        _find_column(file.schema_arrow, image_column, path)
        row = 0
        for group in range(file.num_row_groups):
            for index in range(file.metadata.row_group(group).num_rows):
                yield ImageSource(f"{path}/{row}", path, (group, index))
                row += 1


def _import_parquet(path: str) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow") from error
    return parquet


def _find_column(schema: "pa.Schema", image_column: str | None, path: str) -> str:
    """Finds the column with the content of image files: binary, or a struct with a binary field `bytes`."""
    from pyarrow import types

    def has_images(field: Any) -> bool:
        kind = field.type
        if types.is_struct(kind):
            return any(part.name == "bytes" and has_images(part) for part in kind)
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = [field.name for field in schema if has_images(field)]
    if image_column is not None:
        if image_column not in found:
            near = nearest_name(image_column, schema.names)
            raise ValueError(
                f"{path} has no column {image_column!r} with the bytes of images: its columns are {schema.names}, the "
                f"nearest name is {near!r}, those with bytes are {found}"
            )
        return image_column
    if _IMAGE_COLUMN in found:
        return _IMAGE_COLUMN
    if len(found) != 1:
        raise ValueError(
            f"{path}: expected one column with the bytes of images, or one named {_IMAGE_COLUMN!r}, got {found} of the "
            f"columns {schema.names}: name it with --image-column"
        )
    return found[0]


def image_bytes(value: bytes | dict[str, Any] | None, name: str) -> bytes:
    """Returns the content of an image file in a table: bytes, or a dict with `bytes`.

    Raises:
        OSError: if there are none.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        raise OSError(f"{name} is null: expected the bytes of an image file")
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
        if source.container is None:
            return read_image_url(source.name) if is_url(source.name) else read_image(source.name, apply_exif=True)
        is_tar = source.container.lower().endswith(_TAR)
        assert source.place is not None
        read = self._read_member if is_tar else self._read_row
        data = read(source.name, source.container, *source.place)
        return decode_image(data, source.name, apply_exif=True)

    def _read_member(self, name: str, path: str, offset: int, size: int) -> bytes:
        try:
            with Path(path).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise OSError(f"{path} cannot be read ({error.strerror}): check its path and disk") from error
        if len(data) < size:
            raise OSError(f"{path} is truncated: expected {size} bytes of {name}, got {len(data)}; copy it again")
        return data

    def _read_row(self, name: str, path: str, group: int, row: int) -> bytes:
        with self._lock:
            if self._rows is None or self._rows[0] != (path, group):
                self._rows = None  # not two at a time
                self._rows = (path, group), self._read_group(path, group)
            images = self._rows[1]
        return image_bytes(images[row].as_py(), name)

    def _read_group(self, path: str, group: int) -> Any:
        parquet = _import_parquet(path)
        try:
            with parquet.ParquetFile(path) as file:
                column = _find_column(file.schema_arrow, self._image_column, path)
                return file.read_row_group(group, columns=[column]).column(0)
        except (OSError, ValueError) as error:
            raise OSError(f"{path} cannot be read ({error}): write it again") from error

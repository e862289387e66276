"""Images in folders, list files, tar shards and Parquet files: listing them in a fixed order."""

import glob
import itertools
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posedy.files import read_bytes
from posedy.image_paths import IMAGE_SUFFIXES
from posedy.registration import nearest_name
from posedy.urls import has_scheme, is_url

if TYPE_CHECKING:
    import pyarrow as pa

TAR, _PARQUET, _LIST = ".tar", ".parquet", ".txt"
_CONTAINERS = (TAR, _PARQUET)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_IMAGE_COLUMN = "image"
_END_OF_TAR = 10_240 + 512  # bytes of zeros after the last member, with the padding, and of a header that is none


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
        ValueError: if an argument matches no file, is in another one or the folder of the results, or a Parquet file
            has no column with images.
    """
    skipped = skipped.resolve()
    arguments = _check_arguments(sorted(set(arguments)), skipped)
    folders = {str(Path(argument).resolve()) for argument in arguments if Path(argument).is_dir()}
    seen: set[str] = set()  # the files of other arguments
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            yield from _list_folder(argument, image_column, skipped)
        elif is_url(argument) or path.is_file():
            names = _read_list(argument) if _is_list(argument) else [argument]
            for name in _keep_new(names, seen, folders):
                yield from _list_file(name, image_column)
        elif has_scheme(argument):
            raise ValueError(f"expected files, or http(s) URLs, got {argument}: posedy.ray.predict reads cloud storage")
        else:
            for name in _keep_new(_match(argument, skipped), seen, folders):
                yield from _list_file(name, image_column)


def _check_arguments(arguments: list[str], skipped: Path) -> list[str]:
    """Returns the arguments without those of the same path.

    Raises:
        ValueError: if one is empty, is in another one, or is the folder of the results, which would be images, too.
    """
    if "" in arguments:
        raise ValueError("empty argument: expected an image, folder or pattern; '.' is the current folder")
    unique = {argument if has_scheme(argument) else Path(argument).resolve(): argument for argument in arguments[::-1]}
    for path, argument in unique.items():
        if isinstance(path, str):
            continue
        outer = next((unique[parent] for parent in path.parents if parent in unique), None)
        if outer is not None:
            raise ValueError(f"{argument} is in {outer}, which is also given: leave it out")
        if skipped in (path, _root_of_pattern(argument)):
            raise ValueError(
                f"the folder of the inputs {argument} is also --out: choose another --out, such as one in it"
            )
    return list(unique.values())[::-1]


def _root_of_pattern(argument: str) -> Path | None:
    """Returns the folder from which a glob pattern is searched; None for a file or a folder."""
    if not glob.has_magic(argument) or Path(argument).exists():
        return None
    parts = Path(argument).parts
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts)).resolve()


def _match(pattern: str, skipped: Path) -> list[str]:
    """Returns the files that match a glob pattern, without those of the results, sorted.

    Raises:
        ValueError: if there are none.
    """
    names = sorted(set(glob.iglob(pattern, recursive=True)))  # noqa: PTH207
    root = _root_of_pattern(pattern)
    if root is not None and skipped not in root.parents:
        folders = {str(Path(name).parent) for name in names}
        results = {folder for folder in folders if skipped in (path := Path(folder).resolve(), *path.parents)}
        names = [name for name in names if str(Path(name).parent) not in results]
    found = [name for name in names if _has_known_suffix(name) and Path(name).is_file()]
    if not found:
        kind = "file matches" if glob.has_magic(pattern) else "image or folder at"
        raise ValueError(f"no {kind} {pattern}: check its name")
    return found


def _keep_new(names: Iterable[str], seen: set[str], folders: set[str]) -> Iterator[str]:
    """Yields the names of files that are not yet in `seen`, and adds them.

    Raises:
        ValueError: if a file is in one of the folders, which are also given: it would be predicted twice.
    """
    for name in names:
        path = name if is_url(name) else os.path.abspath(name)  # noqa: PTH100 # Path is slow, and these may be many
        if path in seen:
            continue
        seen.add(path)
        if folders and not is_url(name):
            folder = Path(name).parent.resolve()
            outer = next((each for each in map(str, (folder, *folder.parents)) if each in folders), None)
            if outer is not None:
                raise ValueError(f"{name} is in the folder {outer}, which is also given: leave one of them out")
        yield name


def _has_known_suffix(name: str) -> bool:
    return name.lower().endswith((*IMAGE_SUFFIXES, *_CONTAINERS, *_COMPRESSED))


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
        elif _has_known_suffix(entry.name) and not os.path.isdir(entry.path):  # noqa: PTH112 # also of circular links
            yield from _list_file(entry.path, image_column)


def _is_list(name: str) -> bool:
    return name.lower().endswith(_LIST) and not is_url(name)


def _read_list(path: str) -> list[str]:
    """Reads the lines of a list file, sorted and without duplicates.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it has NUL characters, as UTF-16 has.
    """
    text = read_bytes(path).decode("utf-8-sig", errors="surrogateescape")
    if "\0" in text:
        raise ValueError(
            f"{path} is no text file in UTF-8, such as one in UTF-16: save it in UTF-8, a path in each line"
        )
    # str.splitlines would also split at characters that names may have
    return sorted({line.strip() for line in text.replace("\r", "\n").split("\n")} - {""})


def is_special(name: str) -> bool:
    """Returns whether a path is a pipe or a device, whose reading might never end."""
    path = Path(name)
    return path.exists() and not path.is_file() and not path.is_dir()


def _list_file(name: str, image_column: str | None) -> Iterator[ImageSource]:
    """Lists the images of one file."""
    suffix = Path(name).suffix.lower()
    if suffix in _CONTAINERS and is_url(name):
        yield ImageSource(name, error=f"{name} is a URL, of which only image files are read: download it")
    elif suffix in _CONTAINERS and is_special(name):
        yield ImageSource(name, error=f"{name} is a pipe or a device: write its content to a file")
    elif suffix == TAR:
        yield from _list_tar(name)
    elif suffix == _PARQUET:
        yield from _list_parquet(name, image_column)
    elif name.lower().endswith(_COMPRESSED):
        yield ImageSource(name, error=f"{name} is compressed, and its images cannot be read one by one: unpack it")
    else:
        yield ImageSource(name)


def _list_tar(path: str) -> Iterator[ImageSource]:
    """Lists the images of a tar file by its headers; a damaged file gives those before the damage."""
    seen: set[str] = set()
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined] # it would otherwise keep all of them in memory
                name = f"{path}/{member.name}"
                if member.isdir() or not member.name.lower().endswith(IMAGE_SUFFIXES):
                    continue
                if name in seen:
                    yield ImageSource(
                        name, error=f"{name} is twice in the tar file, here for the second time: rename it"
                    )
                elif member.isreg() and not member.issparse():
                    yield ImageSource(name, path, (member.offset_data, member.size))
                else:
                    yield ImageSource(
                        name,
                        error=f"{name} is a link, a sparse file or no file: pack it again by tar --dereference "
                        "--hard-dereference, without --sparse",
                    )
                seen.add(name)
            tar.fileobj.seek(tar.offset)
            end = tar.fileobj.read(_END_OF_TAR)
        # the tarfile module takes a damaged header, and a cut between members, for the end
        if len(end) < tarfile.BLOCKSIZE or any(end):
            raise tarfile.ReadError("no end mark, or data after it, as of joined files")
    except (OSError, ValueError, tarfile.TarError) as error:
        yield ImageSource(
            path, error=f"{path} is no tar file, or is damaged ({error}): images after the damage are lost"
        )


def _list_parquet(path: str, image_column: str | None) -> Iterator[ImageSource]:
    """Lists the rows of a Parquet file by its metadata."""
    parquet = import_parquet(path)
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these types
        yield ImageSource(path, error=f"{path} is no Parquet file, or is damaged ({error}): write it again")
        return
    with file:
        find_column(file.schema_arrow, image_column, path)
        row = 0
        for group in range(file.num_row_groups):
            for index in range(file.metadata.row_group(group).num_rows):
                yield ImageSource(f"{path}/{row}", path, (group, index))
                row += 1


def import_parquet(path: str) -> Any:
    """Returns pyarrow's module for Parquet.

    Raises:
        ValueError: if it is not installed; the message names the file.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow") from error
    return parquet


def find_column(schema: "pa.Schema", image_column: str | None, path: str) -> str:
    """Finds the column with the content of image files: binary, or a struct with a binary field `bytes`.

    Raises:
        ValueError: if there is none, or not the named one; the message names the file.
    """
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

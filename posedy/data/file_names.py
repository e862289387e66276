"""Names of image files in records: separators of Windows, and names that no file can have."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any


def normalize_file_name(file_name: str) -> str:
    """Returns a file name with forward slashes and without redundant parts."""
    return PurePosixPath(file_name.replace("\\", "/")).as_posix()


def find_image(folder: Path, file_name: str) -> Path:
    """Returns the path of an image file; separators of Windows in its name are accepted unless they are part of it."""
    path = folder / file_name
    if "\\" in file_name and not path.exists():
        return folder / file_name.replace("\\", "/")
    return path


def file_name_of(record: Mapping[str, Any]) -> str:
    """Returns the file name of an image's record; "" unless it is text without NUL that a file can have as its name."""
    name = record.get("file_name")
    if not isinstance(name, str) or "\0" in name:
        return ""
    try:
        name.encode(errors="surrogateescape")  # Python reads bytes of file names that are not UTF-8 as surrogates
    except UnicodeEncodeError:
        return ""
    return name

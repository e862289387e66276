"""Files that are written whole or not at all: a temporary file beside the target, then a rename.

A link stays a link: its target is written. Pipes and devices cannot be replaced, and are rejected.
"""

import csv
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path (same suffix) whose file takes the place of `path` when the block ends without an error.

    It is beside `path`, and the folder is made if needed. After an error, or a kill, the old file is still there
    unharmed.

    Raises:
        OSError: if the file cannot be written, or is a pipe or a device.
    """
    path = Path(path)
    _check_regular(path)
    suffix, path = path.suffix, Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _new_file(path.parent, path.stem, suffix)
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # safetensors, for one, puts a file of its own there, for its owner alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes_atomically(path: str | Path, data: bytes) -> None:
    """Writes bytes to a file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_json_atomically(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Writes a value as JSON, whole or not at all; NaN and infinity are refused (ValueError)."""
    write_bytes_atomically(path, json.dumps(value, indent=indent, allow_nan=False).encode())


def check_can_write(path: str | Path) -> None:
    """Finds out before long work whether a file can be written after it; folders that it lacks can be made then.

    Raises:
        OSError: if it is a folder, or nothing can be written where it goes; the message says what to do.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        _check_regular(path)
        # a part of the path that is a file ends the search too, and refuses the trial
        folder = next(folder for folder in Path(os.path.realpath(path)).parents if folder.exists())
        # under the name that `atomic_write` gives it, which is longer than the file's own
        _new_file(folder, path.stem, path.suffix).unlink()
    except OSError as error:
        raise type(error)(f"{path} cannot be written ({error.strerror}): choose another file") from error


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: of the system's kind, with a message that names the file and says what to do.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file at {Path(path).absolute()}: check its name and folder") from error
    except IsADirectoryError as error:
        raise IsADirectoryError(f"{path} is a folder: give a file in it") from error
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read by you: change its permissions") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror}): fetch it again, or check its disk") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table of comma-separated values, by column name; none if there is no such file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a table of comma-separated values.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table of comma-separated values ({error}): mend or delete it") from error


def _check_regular(path: Path) -> None:
    """Raises OSError if a path is there and neither a file nor a folder: replacing it would destroy it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")


def _new_file(folder: Path, stem: str, suffix: str) -> Path:
    """Creates an empty temporary file with the permissions that `open` gives: the system applies the umask.

    Those of `tempfile` are for its owner alone, and reading the umask to change them would set it in all threads.
    """
    path = folder / f".{stem}-{secrets.token_hex(4)}{suffix}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path

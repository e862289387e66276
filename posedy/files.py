"""Atomic file writes, and file reads with clear errors.

A file is written under a temporary name in the same folder, then renamed. Symbolic links are followed. Pipes and
devices are rejected, since a rename would replace them.
"""

import csv
import errno
import hashlib
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
    """Yields a temporary path whose file replaces `path` when the block ends without an error.

    The temporary path has the same folder and suffix; a missing folder is created. After an error or a kill, the old
    file is unchanged.

    Raises:
        OSError: if the file cannot be written, or is a pipe or a device.
    """
    path = Path(path)
    _check_regular(path)
    suffix, path = path.suffix, Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _create_temporary_file(path.parent, path.stem, suffix)
    mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # some libraries, such as safetensors, replace the file by one with mode 600
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes_atomically(path: str | Path, data: bytes) -> None:
    """Writes bytes to a file, completely or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_json_atomically(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Writes a value to a JSON file atomically; NaN and infinity raise ValueError."""
    write_bytes_atomically(path, json.dumps(value, indent=indent, allow_nan=False).encode())


@contextmanager
def named_write_errors(path: str | Path) -> Iterator[None]:
    """Replaces errors of writing within the block, such as a full disk, by one that names a file or a folder."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}): check the free disk space and the permissions of "
            "the folder"
        ) from error


def check_writable(path: str | Path) -> None:
    """Checks, before a long computation, that a file can be written; missing folders are not created.

    Raises:
        OSError: if the path is a folder, or cannot be written.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        _check_regular(path)
        # a file in place of a folder ends the search too, and creating a file in it fails
        folder = next(folder for folder in Path(os.path.realpath(path)).parents if folder.exists())
        # a temporary file as in `atomic_write`
        _create_temporary_file(folder, path.stem, path.suffix).unlink()
    except OSError as error:
        raise type(error)(f"{path} cannot be written ({error.strerror}): choose another file") from error


def read_bytes(path: str | Path) -> bytes:
    """Returns the content of a file; errors name the path and what to check.

    Raises:
        OSError: if the file cannot be read; of the same subclass as the system's error, with a clearer message.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file at {Path(path).absolute()}: check its name and folder") from error
    except IsADirectoryError as error:
        raise IsADirectoryError(f"expected a file, got the folder {path}: give a file in it") from error
    except PermissionError as error:
        raise PermissionError(f"no permission to read {path}: change its permissions") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror}): check its path and disk") from error


def file_digest(path: str | Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits.

    Raises:
        OSError: if the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_cache_folder(name: str) -> Path:
    """Returns a folder for data that can be computed again: posedy/NAME in XDG_CACHE_HOME, which defaults to ~/.cache.

    Raises:
        RuntimeError: if the user has no home folder.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    root = configured if configured.is_absolute() else Path.home() / ".cache"
    return root / "posedy" / name


def read_csv(path: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file as dicts by column name; a missing file has no rows.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a CSV file.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file ({error}): fix or delete it") from error


def _check_regular(path: Path) -> None:
    """Raises OSError for a pipe or a device, which a rename would destroy."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")


def _create_temporary_file(folder: Path, stem: str, suffix: str) -> Path:
    """Creates an empty temporary file with the permissions of `open`: the system applies the umask.

    `tempfile` creates files with mode 600, and the umask cannot be read without setting it in all threads.
    """
    # names of files have at most 255 bytes, a character up to 4
    path = folder / f".{stem[:40]}-{secrets.token_hex(4)}{suffix}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path

"""Files that are written whole or not at all: a temporary file beside the target, then a rename.

And files that are read, or cannot be, in words.
"""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` (same suffix) that takes its place when the block ends without an error.

    The folder is made if needed. After an error, or a kill, the old file is still there unharmed.

    Raises:
        OSError: if the path is a device or a pipe, which the rename would put an end to for the whole machine.
    """
    path = Path(path)
    if _is_special(path):
        raise OSError(f"{path} is a device or a pipe, which a file would take the place of: choose another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes_atomically(path: str | Path, data: bytes) -> None:
    """Writes bytes to a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json_atomically(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Writes a value as JSON, whole or not at all; NaN and infinity are refused (ValueError)."""
    write_bytes_atomically(path, json.dumps(value, indent=indent, allow_nan=False).encode())


def check_can_write(path: str | Path) -> None:
    """Finds out before long work whether a file can be written after it; folders that it lacks can be made then.

    Raises:
        OSError: if it is a folder, a device or a pipe, or nothing can be written where it goes; the message says what
            to do.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if _is_special(path):
            raise OSError(errno.EINVAL, "it is a device or a pipe")
        # a part of the path that is a file ends the search too, and refuses the trial
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        # under the name that `replacing` gives it, which is longer than the file's own
        with tempfile.NamedTemporaryFile(prefix=f".{path.stem}-", suffix=path.suffix, dir=folder):
            pass
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


def _is_special(path: Path) -> bool:
    """Whether it is a device or a pipe, or a link in /dev such as /dev/stdout, which may lead to a file."""
    return (path.exists() and not path.is_file() and not path.is_dir()) or path.parent.resolve() == Path("/dev")


def _umask() -> int:
    """The process's file-mode mask; reading it means setting it for a moment."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Files that are written whole or not at all: a temporary file beside the target, then a rename."""

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
    """
    path = Path(path)
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


def _umask() -> int:
    """The process's file-mode mask; reading it means setting it for a moment."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

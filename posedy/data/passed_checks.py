"""Keeps a small file in the user's cache folder for each image check that found nothing, to skip the next one."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from posedy.data.columns import BoolArray
from posedy.data.tables import ImageTable
from posedy.files import write_json_atomically


def cache_folder() -> Path:
    """The folder of the files: posedy/image-checks in XDG_CACHE_HOME, by default in ~/.cache.

    Raises:
        RuntimeError: if the user has no home folder.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    root = configured if configured.is_absolute() else Path.home() / ".cache"
    return root / "posedy" / "image-checks"


def check_key(annotations: Path, folder: Path, images: ImageTable, with_persons: BoolArray) -> str:
    """A name for the check of these images; it changes with the annotation file and with the image folder.

    It depends on path, size and modification time of the annotation file, on path and modification time of the folder
    and on the ids, sizes and names of the images. An image that is replaced under its old name does not change it.

    Raises:
        OSError: if the file or the folder is missing.
    """
    file, tree = annotations.stat(), folder.stat()
    places = [str(annotations.resolve()), file.st_size, file.st_mtime_ns, str(folder.resolve()), tree.st_mtime_ns]
    arrays = (images.ids, images.sizes, images.names.offsets, with_persons)
    content = b"".join([json.dumps(places).encode(), *(array.tobytes() for array in arrays), images.names.buffer])
    return hashlib.sha256(content).hexdigest()[:32]


def has_passed(key: str) -> bool:
    """Whether `keep_pass` was called with the key before."""
    try:
        return (cache_folder() / f"{key}.json").is_file()
    except (OSError, RuntimeError):
        return False


def keep_pass(key: str, annotations: Path, folder: Path) -> None:
    """Writes the file of a check that found nothing; without a writable cache folder the next check is not skipped."""
    with contextlib.suppress(OSError, RuntimeError):
        content = {"annotations": str(annotations.resolve()), "images": str(folder.resolve())}
        write_json_atomically(cache_folder() / f"{key}.json", content)

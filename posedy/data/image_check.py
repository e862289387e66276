"""Checks the image files of a COCO file, and remembers in the user's cache folder which checks found nothing."""

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
from PIL import Image, UnidentifiedImageError

from posedy.data.coco_file import ImageTable
from posedy.data.findings import FindingLog
from posedy.data.tables import BoolArray
from posedy.files import write_json_atomically
from posedy.images import read_image

ImageCheck = Literal["always", "once", "never"]
"""Whether images are opened to check them; "once" does not open images again whose last check found nothing."""

_PHOTOS_PER_TASK = 256
# Pillow names what it finds in a file; training decodes with OpenCV, whose builds all read these.
_FORMATS = frozenset({"JPEG", "MPO", "PNG", "BMP", "TIFF", "WEBP"})
_END_MARKS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 1024
"""Bytes at the end of a file in which its end mark is looked for: some cameras write a little after it."""

Trouble = Literal["missing photo", "unreadable photo", "truncated photo", "photo of another size"]
_ADVICE: dict[Trouble, str] = {
    "missing photo": "Fetch the photo, or give the folder that the file names count from.",
    "unreadable photo": "Fetch the photo again, or convert it to JPEG or PNG.",
    "truncated photo": "Its lower part would be gray in training: fetch the photo again.",
    "photo of another size": "Annotations count in pixels of the recorded size, as stored (EXIF rotation is ignored): "
    "fetch the original photo or repair the record.",
}


def check_images(
    images: ImageTable,
    with_persons: BoolArray,
    annotations: Path,
    folder: Path,
    decode: bool,
    image_check: ImageCheck,
    log: FindingLog,
) -> None:
    """Opens the images of a file as far as `image_check` asks for it; a missing folder is found in any case.

    Args:
        images: the images of the file.
        with_persons: (I,) which of them have persons to be used.
        annotations: the file.
        folder: the folder that file names count from.
        decode: whether every image is decoded fully, which finds damage inside.
        image_check: whether the images are opened.
        log: takes what is wrong.
    """
    key = None
    if folder.is_dir():
        key = check_key(annotations, folder, images, with_persons) if image_check == "once" else None
        if image_check == "never" or (key is not None and has_passed(key)):
            return
    found_before = len(log.findings)
    check_photos(images, folder, with_persons, decode, log)
    if key is not None and len(log.findings) == found_before:
        keep_pass(key, annotations, folder)


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
    records = json.dumps([places, list(map(int, images.ids)), images.names]).encode()
    return hashlib.sha256(records + images.sizes.tobytes() + with_persons.tobytes()).hexdigest()[:32]


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


@dataclass(frozen=True)
class _PhotoTrouble:
    image_index: int
    kind: Trouble
    example: str


def check_photos(images: ImageTable, folder: Path, with_persons: BoolArray, decode: bool, log: FindingLog) -> None:
    """Checks the photo of every image: there, readable, of the recorded size.

    The header tells the size, the file's end whether it is whole; `decode` decodes each photo fully. Trouble is an
    error where the image has persons to be used (`with_persons`, (I,)), a warning elsewhere: training never opens
    those.
    """
    if not folder.is_dir():
        log.error("no folder of photos", f"{folder} is not a folder", "Give the folder that the file names count from.")
        return
    Image.preinit()  # Pillow loads its formats at the first open, which threads must not do at once

    def check_range(start: int) -> list[_PhotoTrouble]:
        indices = range(start, min(start + _PHOTOS_PER_TASK, len(images.ids)))
        found = (_photo_trouble(images, index, folder, decode) for index in indices)
        return [trouble for trouble in found if trouble is not None]

    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        tasks = pool.map(check_range, range(0, len(images.ids), _PHOTOS_PER_TASK))
        troubles = [trouble for part in tasks for trouble in part]
    for kind, advice in _ADVICE.items():
        of_kind = [trouble for trouble in troubles if trouble.kind == kind]
        needed = [trouble for trouble in of_kind if with_persons[trouble.image_index]]
        idle = [trouble for trouble in of_kind if not with_persons[trouble.image_index]]
        log.add("error", kind, needed, lambda trouble: trouble.example, advice)
        log.add("warning", f"{kind} (without usable persons)", idle, lambda trouble: trouble.example, advice)


def _photo_trouble(images: ImageTable, index: int, folder: Path, decode: bool) -> _PhotoTrouble | None:
    name = images.names[index]
    if not name:
        return None  # the record has no file name, which is an error already
    path = folder / name

    def trouble(kind: Trouble, text: str) -> _PhotoTrouble:
        return _PhotoTrouble(index, kind, f"image {images.ids[index]}: {text}")

    try:
        with path.open("rb") as file, Image.open(file) as photo:
            width, height = photo.size
            if photo.format not in _FORMATS and not cv2.haveImageReader(str(path)):
                return trouble("unreadable photo", f"{path} is of the format {photo.format}, which OpenCV cannot read")
            if _is_truncated(photo, file):
                return trouble("truncated photo", f"{path} ends early, after {path.stat().st_size} bytes")
            if decode:
                photo.load()
                read_image(path)
    except FileNotFoundError:
        return trouble("missing photo", str(path))
    except UnidentifiedImageError:
        return trouble("unreadable photo", f"{path} is not a picture ({path.stat().st_size} bytes)")
    except Exception as error:  # decoders raise errors of all kinds for broken files
        return trouble("unreadable photo", f"{path}: {error}")
    recorded = int(images.sizes[index, 0]), int(images.sizes[index, 1])
    if recorded in ((0, 0), (width, height)):
        return None
    turned = ", turned by a quarter" if recorded == (height, width) else ""
    text = f"{path} is {width} x {height}, recorded {recorded[0]} x {recorded[1]}{turned}"
    return trouble("photo of another size", text)


def _is_truncated(photo: Image.Image, file: BinaryIO) -> bool:
    """Whether an open photo lacks its end. One without its end mark is decoded: much may follow the mark in a file."""
    mark = _END_MARKS.get(photo.format or "")
    if mark is None:
        return False
    place = file.tell()
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    tail = file.read()
    file.seek(place)
    if mark in tail:
        return False
    try:
        photo.load()
    except OSError:
        return True
    return False

"""Validation of the image files of a COCO file; passed checks are recorded in the user's cache folder."""

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
from PIL import Image

from posedy.data.coco_file import ImageTable
from posedy.data.file_names import find_image
from posedy.data.issues import IssueLog
from posedy.data.orientation import header_of
from posedy.data.tables import BoolArray
from posedy.files import user_cache_folder, write_json_atomically
from posedy.images import MAX_PIXELS, open_header, read_image

ImageCheck = Literal["always", "once", "never"]
"""When to open images for a check; "once" skips images whose last check passed."""

_IMAGES_PER_TASK = 256
# Formats, by their Pillow names, that every build of OpenCV reads; training decodes with OpenCV.
_FORMATS = frozenset({"JPEG", "MPO", "PNG", "BMP", "TIFF", "WEBP"})
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 1024
"""Bytes at the end of a file that are searched for its end marker: some cameras append data to it."""

ImageIssueKind = Literal[
    "missing image", "unreadable image", "truncated image", "wrong image size", "ambiguous EXIF orientation"
]
_ADVICE: dict[ImageIssueKind, str] = {
    "missing image": "Download the image, or give the folder that file names are relative to.",
    "unreadable image": "Download the image again, or convert it to JPEG or PNG.",
    "truncated image": "Download the image again: training would end with an error.",
    "wrong image size": "Annotations are in pixels of the recorded size, as stored (EXIF rotation is ignored): "
    "download the original image or fix the record.",
    "ambiguous EXIF orientation": "Annotations are read in pixels as stored, and the size of these images does not "
    "tell whether yours are: if they were made on upright images, as image viewers show them, save the images upright "
    "(mogrify -auto-orient); if not, remove the tag (exiftool -Orientation=).",
}
# Kinds that are no error, as the annotations may be right, and no warning without persons.
_WARNINGS = frozenset({"ambiguous EXIF orientation"})


def check_images(
    images: ImageTable,
    with_persons: BoolArray,
    annotations: Path,
    folder: Path,
    decode: bool,
    image_check: ImageCheck,
    log: IssueLog,
) -> None:
    """Checks the image files unless `image_check` allows skipping; a missing folder is always an error.

    Args:
        images: the images of the file.
        with_persons: (I,) mask of images with usable persons.
        annotations: the annotation file.
        folder: the folder that file names are relative to.
        decode: whether to decode every image completely, which detects damaged data.
        image_check: when to open the images.
        log: the log of errors and warnings.
    """
    key = None
    if folder.is_dir():
        key = cache_key(annotations, folder, images, with_persons) if image_check == "once" else None
        if image_check == "never" or (key is not None and is_pass_cached(key)):
            return
    issues_before = len(log.issues)
    check_image_files(images, folder, with_persons, decode, log)
    if key is not None and len(log.issues) == issues_before:
        cache_pass(key, annotations, folder)


def cache_folder() -> Path:
    """Returns the folder that records passed checks.

    Raises:
        RuntimeError: if the user has no home folder.
    """
    return user_cache_folder("image-checks")


def cache_key(annotations: Path, folder: Path, images: ImageTable, with_persons: BoolArray) -> str:
    """Computes the cache key of an image check, which changes with the annotation file and the image folder.

    It is a hash of the kinds of issues, the path, size and modification time of the annotation file, the path of the
    folder, its modification time and those of the subfolders with images, and the ids, sizes and names of the images.
    Replacing an image under its old name does not change it.

    Raises:
        OSError: if the file or the folder is missing.
    """
    file, tree = annotations.stat(), folder.stat()
    kinds = list(_ADVICE)  # a version that checks more repeats earlier checks
    stats: list[Any] = [kinds, str(annotations.resolve()), file.st_size, file.st_mtime_ns, str(folder.resolve())]
    subfolders = {os.path.dirname(name) for name in images.names if name}  # noqa: PTH120  (Path is slow for many)
    stats += [tree.st_mtime_ns, *((name, _modified(folder / name)) for name in sorted(subfolders - {""}))]
    records = json.dumps([stats, list(map(int, images.ids)), images.names]).encode()
    return hashlib.sha256(records + images.sizes.tobytes() + with_persons.tobytes()).hexdigest()[:32]


def _modified(folder: Path) -> int | None:
    """Returns the modification time of a subfolder; None if it is missing, which the check names."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None


def is_pass_cached(key: str) -> bool:
    """Returns whether a check with this key has passed before."""
    try:
        return (cache_folder() / f"{key}.json").is_file()
    except (OSError, RuntimeError):
        return False


def cache_pass(key: str, annotations: Path, folder: Path) -> None:
    """Records a passed check; without a writable cache folder, the next check is not skipped."""
    with contextlib.suppress(OSError, RuntimeError):
        content = {"annotations": str(annotations.resolve()), "images": str(folder.resolve())}
        write_json_atomically(cache_folder() / f"{key}.json", content)


@dataclass(frozen=True)
class _ImageIssue:
    image_index: int
    kind: ImageIssueKind
    example: str


def check_image_files(images: ImageTable, folder: Path, with_persons: BoolArray, decode: bool, log: IssueLog) -> None:
    """Checks that every image file exists, is readable and complete, and has the recorded size.

    The header gives the size, the end of the file shows truncation; `decode` decodes each image fully. An issue is an
    error for images with usable persons (mask `with_persons`, (I,)), else a warning: training never opens the others.
    """
    if not folder.is_dir():
        log.error("no image folder", f"{folder} is not a folder", "Give the folder that file names are relative to.")
        return
    Image.preinit()  # Pillow loads its plugins at the first open, which is not thread-safe

    def check_range(start: int) -> list[_ImageIssue]:
        indices = range(start, min(start + _IMAGES_PER_TASK, len(images.ids)))
        checked = (_check_image_file(images, index, folder, decode) for index in indices)
        return [issue for issue in checked if issue is not None]

    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        tasks = pool.map(check_range, range(0, len(images.ids), _IMAGES_PER_TASK))
        issues = [issue for task in tasks for issue in task]
    for kind, advice in _ADVICE.items():
        of_kind = [issue for issue in issues if issue.kind == kind]
        needed = [issue for issue in of_kind if with_persons[issue.image_index]]
        unused = [issue for issue in of_kind if not with_persons[issue.image_index]]
        if kind in _WARNINGS:
            log.add("warning", kind, needed, lambda issue: issue.example, advice)
            continue
        log.add("error", kind, needed, lambda issue: issue.example, advice)
        log.add("warning", f"{kind} (without usable persons)", unused, lambda issue: issue.example, advice)


def _can_decode(path: Path) -> bool:
    """Returns whether OpenCV decodes a file; it gets the content, since it crashes for paths that are not UTF-8."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None


def _check_image_file(images: ImageTable, index: int, folder: Path, decode: bool) -> _ImageIssue | None:
    name = images.names[index]
    if not name:
        return None  # a missing file name is logged elsewhere
    path = find_image(folder, name)

    def issue(kind: ImageIssueKind, text: str) -> _ImageIssue:
        return _ImageIssue(index, kind, f"image {images.ids[index]}: {text}")

    try:
        with path.open("rb") as file:
            image = open_header(file)
            if image is None:
                return issue("unreadable image", f"{path} is not an image ({path.stat().st_size} bytes)")
            header = header_of(image)
            if header.width * header.height > MAX_PIXELS:
                limit = f"{MAX_PIXELS / 1e6:.0f} million pixels"
                return issue("unreadable image", f"{path} is {header.width} x {header.height}, the limit is {limit}")
            if image.format not in _FORMATS and not _can_decode(path):
                return issue("unreadable image", f"{path} has the format {image.format}, which OpenCV cannot read")
            if _is_truncated(image, file):
                return issue("truncated image", f"{path} ends early, after {path.stat().st_size} bytes")
            if decode:
                image.load()
                read_image(path)
    except FileNotFoundError:
        return issue("missing image", str(path))
    except Exception as error:  # decoders raise errors of all kinds for broken files
        return issue("unreadable image", f"{path}: {error}")
    recorded = int(images.sizes[index, 0]), int(images.sizes[index, 1])
    if recorded not in ((0, 0), (header.width, header.height)):
        rotated = ", rotated by 90 degrees" if recorded == (header.height, header.width) else ""
        if recorded == header.upright_size:
            rotated = f", the size of the upright image: save it upright (it has EXIF orientation {header.orientation})"
        text = f"{path} is {header.width} x {header.height}, recorded {recorded[0]} x {recorded[1]} (width x height)"
        return issue("wrong image size", text + rotated)
    if header.is_ambiguous:
        return issue("ambiguous EXIF orientation", f"{path} has orientation {header.orientation}")
    return None


def _is_truncated(image: Image.Image, file: BinaryIO) -> bool:
    """Returns whether an open image file is truncated; decodes it if the end marker is not near the end."""
    marker = _END_MARKERS.get(image.format or "")
    if marker is None:
        return False
    position = file.tell()
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    tail = file.read()
    file.seek(position)
    if marker in tail:
        return False
    try:
        image.load()
    except OSError:
        return True
    return False

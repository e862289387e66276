"""Checks a COCO keypoint file before anything is trained on it: its records, their values and the photos."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from posedy.config import SkeletonConfig
from posedy.data.columns import BoolArray, plausible, repeated
from posedy.data.findings import CheckReport, FindingLog, name_reasons, short
from posedy.data.passed_checks import check_key, has_passed, keep_pass
from posedy.data.records import read_tables
from posedy.data.tables import CocoTables, ImageTable
from posedy.geometry import xywh_to_xyxy
from posedy.images import read_photo

ImageCheck = Literal["always", "once", "never"]
"""Whether images are opened to check them; "once" does not open images again whose last check found nothing."""

# COCO's own boxes end a fraction of a pixel over the border.
_BOX_TOLERANCE = 1.0
# A labelled keypoint may lie a little outside; further out than this part of the longer side it is a slip.
_KEYPOINT_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class Examination:
    """A file with what was found in it.

    Attributes:
        tables: the records, None when the file has no usable top level.
        usable: (A,) the annotations to train and test on: sound, not a crowd, at least one labelled keypoint.
        left_out: how many annotations are not used, by reason.
        report: the findings.
    """

    tables: CocoTables | None
    usable: BoolArray
    left_out: dict[str, int]
    report: CheckReport


def check_coco(annotations: Path | str, images: Path | str | None = None, decode: bool = False) -> CheckReport:
    """Checks a COCO keypoint file, and its photos where their folder is given.

    Args:
        annotations: the file.
        images: the folder that its file names count from.
        decode: decode every photo fully, which finds damage inside; else only their headers and ends are read.

    Returns:
        All findings; nothing in the file makes this raise.
    """
    return examine(Path(annotations), None if images is None else Path(images), decode).report


def examine(
    annotations: Path,
    images: Path | None,
    decode: bool = False,
    overrides: SkeletonConfig | None = None,
    image_check: ImageCheck = "always",
) -> Examination:
    """Reads and checks a file: the one way in for `check_coco` and `read_coco`."""
    log = FindingLog()
    tables = read_tables(annotations, log, overrides)
    usable = np.zeros(0, dtype=bool)
    left_out: dict[str, int] = {}
    summary = f"{annotations.name}: no annotations could be read"
    if tables is not None:
        usable, left_out = _select(tables)
        _check_ids(tables, log)
        _check_keypoints(tables, usable, log)
        _check_boxes(tables, usable, log)
        _check_any_usable(tables, usable, left_out, log)
        if images is not None:
            _check_images(tables, usable, annotations, images, decode, image_check, log)
        num_images = len(np.unique(tables.annotations.image_index[usable]))
        summary = summarise(annotations, len(tables.images.ids), int(usable.sum()), num_images, left_out)
    findings = sorted(log.findings, key=lambda finding: finding.severity)
    return Examination(tables, usable, left_out, CheckReport(annotations, summary, tuple(findings)))


def _check_images(
    tables: CocoTables,
    usable: BoolArray,
    annotations: Path,
    folder: Path,
    decode: bool,
    image_check: ImageCheck,
    log: FindingLog,
) -> None:
    """Opens the images of a file as far as `image_check` asks for it; a missing folder is found in any case."""
    with_persons = np.zeros(len(tables.images.ids), dtype=bool)
    with_persons[tables.annotations.image_index[usable]] = True
    key = None
    if folder.is_dir():
        key = check_key(annotations, folder, tables.images, with_persons) if image_check == "once" else None
        if image_check == "never" or (key is not None and has_passed(key)):
            return
    found_before = len(log.findings)
    check_photos(tables.images, folder, with_persons, decode, log)
    if key is not None and len(log.findings) == found_before:
        keep_pass(key, annotations, folder)


def summarise(
    annotations: Path, num_images: int, num_persons: int, num_person_images: int, left_out: dict[str, int]
) -> str:
    """One line that says what a file gives and what of it is left out."""
    return (
        f"{annotations.name}: {num_images} images, {num_persons} persons with keypoints on {num_person_images} of them"
        f"; left out: {name_reasons(left_out)}"
    )


def _select(tables: CocoTables) -> tuple[BoolArray, dict[str, int]]:
    """The annotations that can be used, and why the others cannot."""
    records = tables.annotations
    labelled = (records.keypoints[..., 2] > 0).any(axis=1)
    faulty = ~records.sound | (records.image_index < 0)
    crowd = ~faulty & records.crowd
    unlabelled = ~faulty & ~crowd & ~labelled
    left_out = {"crowd": int(crowd.sum()), "no labelled keypoints": int(unlabelled.sum())}
    for reason, count in (("of other categories", tables.other_category), ("with errors", int(faulty.sum()))):
        if count:
            left_out[reason] = count
    return ~(faulty | crowd | unlabelled), left_out


def _check_any_usable(tables: CocoTables, usable: BoolArray, left_out: dict[str, int], log: FindingLog) -> None:
    if usable.any():
        return
    total = len(usable) + tables.other_category
    reasons = f"of: {name_reasons(left_out)}" if total else "there are none"
    log.error(
        "no usable person",
        f"0 of {total} annotations kept because {reasons}",
        f"A usable person has category_id {tables.category_id}, iscrowd 0 and at least one keypoint with v > 0.",
    )


def _check_ids(tables: CocoTables, log: FindingLog) -> None:
    images, records = tables.images, tables.annotations
    log.add(
        "error",
        "image id that stands twice",
        repeated(images.ids),
        lambda index: f"image {images.ids[index]} ({images.names[index]})",
        "Annotations cannot tell such images apart: give each its own id.",
    )
    sound = np.flatnonzero(records.sound)
    log.add(
        "error",
        "annotation id that stands twice",
        sound[repeated(records.ids[sound])],
        tables.describe,
        "COCO's evaluation keeps only one of them: give each its own id.",
    )
    log.add(
        "warning",
        "annotation id 0",
        sound[records.ids[sound] == 0],
        tables.describe,
        "COCO's evaluation counts a match with id 0 as a miss: number annotations from 1.",
    )


def _check_keypoints(tables: CocoTables, usable: BoolArray, log: FindingLog) -> None:
    records = tables.annotations
    points, flags = records.keypoints[..., :2], records.keypoints[..., 2]
    sound = records.sound[:, None]
    log.add(
        "error",
        "visibility flag other than 0, 1, 2",
        np.argwhere(~np.isin(flags, (0, 1, 2)) & sound),
        lambda where: _name_keypoint(tables, where),
        "v is 0 for not labelled, 1 for labelled but hidden, 2 for visible.",
    )
    log.add(
        "error",
        "keypoint at NaN, infinity or beyond any photo",
        np.argwhere(~plausible(points).all(axis=-1) & sound),
        lambda where: _name_keypoint(tables, where),
        "Write image pixels, and 0, 0, 0 for a keypoint that is not labelled.",
    )
    counted = (flags > 0).sum(axis=1)
    log.add(
        "warning",
        "num_keypoints that disagrees with the flags",
        np.flatnonzero(records.sound & (records.num_keypoints != counted)),
        lambda i: f"{tables.describe(i)}: num_keypoints {records.num_keypoints[i]:g}, {counted[i]} with v > 0",
        "COCO's evaluation skips a person by num_keypoints, training by the flags: write the count of v > 0.",
    )
    sizes = _image_sizes(tables)
    slack = _KEYPOINT_TOLERANCE * sizes.max(axis=1)[:, None, None]
    outside = ((points < -slack) | (points > sizes[:, None] + slack)).any(axis=-1)
    log.add(
        "warning",
        "labelled keypoint far outside its image",
        np.argwhere(outside & (flags > 0) & (usable & (sizes > 0).all(axis=1))[:, None]),
        lambda where: f"{_name_keypoint(tables, where)}, image {_by(sizes[where[0]])}",
        "Look at the annotation: is it of this photo, at this size?",
    )


def _check_boxes(tables: CocoTables, usable: BoolArray, log: FindingLog) -> None:
    """Boxes and areas of the persons that are used; crowds and unlabelled persons need neither."""
    records = tables.annotations

    def name_box(i: int) -> str:
        return f"{tables.describe(i)}: bbox {short(records.boxes[i].tolist())}"

    def name_box_and_image(i: int) -> str:
        return f"{name_box(i)}, image {_by(sizes[i])}"

    corners = xywh_to_xyxy(records.boxes).astype(np.float32)
    empty = usable & ~(corners[:, 2:] > corners[:, :2]).all(axis=1)
    log.add(
        "error",
        "box of no area",
        np.flatnonzero(empty),
        name_box,
        "A box is x, y, width, height with width and height above 0: make it from the mask or the keypoints.",
    )
    sizes = _image_sizes(tables)
    placed = usable & ~empty & (sizes > 0).all(axis=1)
    off = placed & ((corners[:, 2:] <= 0) | (corners[:, :2] >= sizes)).any(axis=1)
    log.add(
        "error",
        "box that lies off its image",
        np.flatnonzero(off),
        name_box_and_image,
        "Boxes are x, y, width, height in pixels of the photo as stored; is the record of the right photo?",
    )
    over = ((corners[:, :2] < -_BOX_TOLERANCE) | (corners[:, 2:] > sizes + _BOX_TOLERANCE)).any(axis=1)
    log.add(
        "warning",
        "box that reaches over the border of its image",
        np.flatnonzero(placed & ~off & over),
        name_box_and_image,
        "It is used as it is; what lies outside is black in the crop.",
    )
    log.add(
        "error",
        "area not above 0 on a labelled person",
        np.flatnonzero(usable & ~((records.areas > 0) & np.isfinite(records.areas))),
        lambda i: f"{tables.describe(i)}: area {records.areas[i]:g}",
        "OKS divides by it: write the area of the person's mask, or of the box where there is no mask.",
    )


def _image_sizes(tables: CocoTables) -> NDArray[np.int32]:
    """The image size (A, 2) of every annotation, (0, 0) where it is not known."""
    sizes = np.append(tables.images.sizes, np.zeros((1, 2), np.int32), axis=0)
    # index -1, an image that the file does not have, is the row appended
    return sizes[tables.annotations.image_index]


def _name_keypoint(tables: CocoTables, where: NDArray[np.int64]) -> str:
    annotation, keypoint = where
    x, y, v = tables.annotations.keypoints[annotation, keypoint]
    return f"{tables.describe(annotation)}: {tables.skeleton.keypoints[keypoint]} x {x:g}, y {y:g}, v {v:g}"


def _by(size: NDArray[np.int32]) -> str:
    return f"{size[0]} x {size[1]}"


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
    "truncated photo": "Its lower part would be grey in training: fetch the photo again.",
    "photo of another size": "Annotations count in pixels of the recorded size, as stored (EXIF rotation is ignored): "
    "fetch the original photo or repair the record.",
}


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
                read_photo(path)
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

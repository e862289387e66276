"""Validates COCO keypoint files before anything is trained on them: their records, their values and their images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.config import SkeletonConfig
from posedy.data.categories import read_category, read_skeleton
from posedy.data.coco_file import AnnotationTable, CocoFile, log_invalid_values, read_annotations, read_images
from posedy.data.findings import CheckReport, CocoFileError, FindingLog, name_reasons, short
from posedy.data.image_check import ImageCheck, check_images
from posedy.data.tables import BoolArray, repeated
from posedy.geometry import xywh_to_xyxy
from posedy.skeleton import Skeleton

# COCO's own boxes end a fraction of a pixel over the border.
_BOX_TOLERANCE = 1.0
# A labeled keypoint may lie a little outside; further out than this part of the longer side it is a slip.
_KEYPOINT_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class Examination:
    """The annotations of a file with what was found in them.

    Attributes:
        table: the annotations of the category with keypoints, None where there is no such category.
        skeleton: of the category, None where it cannot be read.
        usable: (A,) the annotations to train and test on.
        left_out: how many annotations are not used, by reason.
        report: the findings.
    """

    table: AnnotationTable | None
    skeleton: Skeleton | None
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
    log = FindingLog()
    try:
        file = CocoFile.read(annotations)
    except OSError as error:
        log.error("the annotation file cannot be read", str(error), "Give a file that can be read.")
    except CocoFileError as error:
        log.findings.extend(error.findings)
    else:
        return examine(file, None if images is None else Path(images), decode).report
    return _report(Path(annotations), None, log)


def examine(
    file: CocoFile,
    images: Path | None,
    decode: bool = False,
    overrides: SkeletonConfig | None = None,
    image_check: ImageCheck = "always",
) -> Examination:
    """Checks a file that has been read.

    Args:
        file: the file.
        images: the folder that its file names count from; None leaves the images out.
        decode: whether every image is decoded fully, which finds damage inside.
        overrides: what a configuration says about the keypoints in place of the file.
        image_check: whether the images are opened.
    """
    log = FindingLog()
    annotations = Path(file.source)
    category = read_category(file, log)
    skeleton = read_skeleton(category, overrides, log) if category is not None else None
    image_table = read_images(file, log)
    if category is None or skeleton is None:
        return Examination(None, None, np.zeros(0, dtype=bool), {}, _report(annotations, None, log))
    table = read_annotations(file, image_table, category, log)
    usable, left_out = table.select_persons()
    _check_records(table, log)
    _check_ids(table, log)
    _check_keypoints(table, usable, log)
    _check_boxes(table, usable, log)
    _check_any_usable(table, usable, left_out, log)
    with_persons = np.zeros(len(image_table.ids), dtype=bool)
    with_persons[table.image_index[usable]] = True
    if images is not None:
        check_images(image_table, with_persons, annotations, images, decode, image_check, log)
    summary = summarize(annotations, len(image_table.ids), int(usable.sum()), int(with_persons.sum()), left_out)
    return Examination(table, skeleton, usable, left_out, _report(annotations, summary, log))


def _report(annotations: Path, summary: str | None, log: FindingLog) -> CheckReport:
    findings = sorted(log.findings, key=lambda finding: finding.severity)
    summary = summary or f"{annotations.name}: no annotations could be read"
    return CheckReport(annotations, summary, tuple(findings))


def summarize(
    annotations: Path, num_images: int, num_persons: int, num_person_images: int, left_out: dict[str, int]
) -> str:
    """One line that says what a file gives and what of it is left out."""
    return (
        f"{annotations.name}: {num_images} images, {num_persons} persons with keypoints on {num_person_images} of them"
        f"; left out: {name_reasons(left_out)}"
    )


def _check_any_usable(table: AnnotationTable, usable: BoolArray, left_out: dict[str, int], log: FindingLog) -> None:
    if usable.any():
        return
    total = len(usable) + table.other_category
    reasons = f"of: {name_reasons(left_out)}" if total else "there are none"
    log.error(
        "no usable person",
        f"0 of {total} annotations kept because {reasons}",
        f"A usable person has category_id {table.category['id']}, iscrowd 0 and at least one keypoint with v > 0.",
    )


def _check_records(table: AnnotationTable, log: FindingLog) -> None:
    log_invalid_values(table, log, table.invalid)
    log.add(
        "error",
        "annotation of an image that the file does not have",
        np.flatnonzero(~table.invalid["image_id"] & (table.image_index < 0)),
        lambda i: f"{table.describe(i)}: image_id {table.records[i]['image_id']}",
        "Add the image to 'images' or remove the annotation.",
    )


def _check_ids(table: AnnotationTable, log: FindingLog) -> None:
    images, ids = table.images, np.array(table.images.ids, dtype=np.int64)
    log.add(
        "error",
        "image id that stands twice",
        repeated(ids),
        lambda index: f"image {images.ids[index]} ({images.names[index]})",
        "Annotations cannot tell such images apart: give each its own id.",
    )
    valid = np.flatnonzero(table.is_valid)
    log.add(
        "error",
        "annotation id that stands twice",
        valid[repeated(table.ids[valid])],
        table.describe,
        "COCO's evaluation keeps only one of them: give each its own id.",
    )
    log.add(
        "warning",
        "annotation id 0",
        valid[table.ids[valid] == 0],
        table.describe,
        "COCO's evaluation counts a match with id 0 as a miss: number annotations from 1.",
    )


def _check_keypoints(table: AnnotationTable, usable: BoolArray, log: FindingLog) -> None:
    points, flags = table.keypoints[..., :2], table.keypoints[..., 2]
    log.add(
        "error",
        "visibility flag other than 0, 1, 2",
        np.argwhere(~np.isin(flags, (0, 1, 2)) & table.is_valid[:, None]),
        table.describe_keypoint,
        "v is 0 for not labeled, 1 for labeled but hidden, 2 for visible.",
    )
    log.add(
        "warning",
        "num_keypoints that disagrees with the flags",
        np.flatnonzero(table.is_valid & (table.num_keypoints != table.num_labeled)),
        lambda i: f"{table.describe(i)}: num_keypoints {table.num_keypoints[i]:g}, {table.num_labeled[i]} with v > 0",
        "COCO's evaluation skips a person by num_keypoints, training by the flags: write the count of v > 0.",
    )
    sizes = _image_sizes(table)
    slack = _KEYPOINT_TOLERANCE * sizes.max(axis=1)[:, None, None]
    outside = ((points < -slack) | (points > sizes[:, None] + slack)).any(axis=-1)
    log.add(
        "warning",
        "labeled keypoint far outside its image",
        np.argwhere(outside & (flags > 0) & (usable & (sizes > 0).all(axis=1))[:, None]),
        lambda where: f"{table.describe_keypoint(where)}, image {_by(sizes[where[0]])}",
        "Look at the annotation: is it of this photo, at this size?",
    )


def _check_boxes(table: AnnotationTable, usable: BoolArray, log: FindingLog) -> None:
    """Boxes and areas of the persons that are used; crowds and unlabeled persons need neither."""

    def name_box(i: int) -> str:
        return f"{table.describe(i)}: bbox {short(table.boxes[i].tolist())}"

    def name_box_and_image(i: int) -> str:
        return f"{name_box(i)}, image {_by(sizes[i])}"

    corners = xywh_to_xyxy(table.boxes).astype(np.float32)
    empty = usable & ~(corners[:, 2:] > corners[:, :2]).all(axis=1)
    log.add(
        "error",
        "box of no area",
        np.flatnonzero(empty),
        name_box,
        "A box is x, y, width, height with width and height above 0: make it from the mask or the keypoints.",
    )
    sizes = _image_sizes(table)
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
        "area not above 0 on a labeled person",
        np.flatnonzero(usable & ~((table.areas > 0) & np.isfinite(table.areas))),
        lambda i: f"{table.describe(i)}: area {table.areas[i]:g}",
        "OKS divides by it: write the area of the person's mask, or of the box where there is no mask.",
    )


def _image_sizes(table: AnnotationTable) -> NDArray[np.int32]:
    """The image size (A, 2) of every annotation, (0, 0) where it is not known."""
    sizes = np.append(table.images.sizes, np.zeros((1, 2), np.int32), axis=0)
    # index -1, an image that the file does not have, is the row appended
    return sizes[table.image_index]


def _by(size: NDArray[np.int32]) -> str:
    return f"{size[0]} x {size[1]}"

"""Validation of COCO keypoint files: their records, their values and their image files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.config import SkeletonConfig
from posedy.data.box_form import are_outside
from posedy.data.categories import read_keypoint_category, read_skeleton
from posedy.data.coco_annotations import AnnotationTable, log_invalid_values, read_annotations
from posedy.data.coco_file import CocoFile, ImageTable, log_duplicate_image_ids, read_images
from posedy.data.file_names import normalize_file_name
from posedy.data.image_check import ImageCheck, check_images
from posedy.data.issues import CheckReport, CocoFileError, IssueLog, format_reasons, short_repr
from posedy.data.plausibility import check_plausibility
from posedy.data.tables import BoolArray, find_duplicates
from posedy.geometry import xywh_to_xyxy
from posedy.skeleton import Skeleton

# COCO's own boxes exceed the border by fractions of a pixel.
_BOX_TOLERANCE = 1.0
# A labeled keypoint may lie outside the image by up to this fraction of the longer side; others are probably wrong.
_KEYPOINT_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class ValidatedFile:
    """The annotations of a file and their validation.

    Attributes:
        table: the annotations of the category with keypoints, None if there is no such category.
        skeleton: the category's skeleton, None if it is invalid.
        usable: (A,) mask of the annotations to train and test on.
        left_out: number of the other annotations, by reason.
        report: the validation errors and warnings.
    """

    table: AnnotationTable | None
    skeleton: Skeleton | None
    usable: BoolArray
    left_out: dict[str, int]
    report: CheckReport


def check_coco(annotations: Path | str, images: Path | str | None = None, decode: bool = False) -> CheckReport:
    """Validates a COCO keypoint file, and its image files if their folder is given.

    Args:
        annotations: the file.
        images: the folder that file names are relative to.
        decode: whether to decode every image completely, which detects damaged data, or to read only the headers and
            ends of files.

    Returns:
        All validation errors and warnings; no content of the file raises an exception.

    Raises:
        OSError: if the file cannot be read.
    """
    try:
        file = CocoFile.read(annotations)
    except CocoFileError as error:
        log = IssueLog()
        log.issues.extend(error.issues)
        return _create_report(Path(annotations), None, log)
    return validate(file, None if images is None else Path(images), decode).report


def validate(
    file: CocoFile,
    images: Path | None,
    decode: bool = False,
    overrides: SkeletonConfig | None = None,
    image_check: ImageCheck = "always",
) -> ValidatedFile:
    """Validates the content of a COCO keypoint file.

    Args:
        file: the file.
        images: the folder that file names are relative to; None skips the image files.
        decode: whether to decode every image completely, which detects damaged data.
        overrides: properties of the skeleton that override the file's.
        image_check: when to open the image files.
    """
    log = IssueLog()
    annotations = Path(file.source)
    category = read_keypoint_category(file, log)
    skeleton = read_skeleton(category, overrides, log) if category is not None else None
    image_table = read_images(file, log)
    if category is None or skeleton is None:
        return ValidatedFile(None, None, np.zeros(0, dtype=bool), {}, _create_report(annotations, None, log))
    table = read_annotations(file, image_table, category, log)
    usable, left_out = table.select_persons()
    _check_records(table, log)
    _check_ids(table, log)
    _check_keypoints(table, usable, log)
    check_boxes(table, usable, log)
    _check_file_names(image_table, log)
    _check_areas(table, usable, log)
    _check_any_usable(table, usable, left_out, log)
    with_persons = np.zeros(len(image_table.ids), dtype=bool)
    with_persons[table.image_index[usable]] = True
    if images is not None:
        check_images(image_table, with_persons, annotations, images, decode, image_check, log)
    summary = summarize(annotations, len(image_table.ids), int(usable.sum()), int(with_persons.sum()), left_out)
    return ValidatedFile(table, skeleton, usable, left_out, _create_report(annotations, summary, log, skeleton))


def _create_report(
    annotations: Path, summary: str | None, log: IssueLog, skeleton: Skeleton | None = None
) -> CheckReport:
    issues = sorted(log.issues, key=lambda issue: issue.severity)
    summary = summary or f"{annotations.name}: no annotations could be read"
    return CheckReport(annotations, summary, tuple(issues), None if skeleton is None else skeleton.flip_pair_names)


def summarize(
    annotations: Path, num_images: int, num_persons: int, num_person_images: int, left_out: dict[str, int]
) -> str:
    """Summarizes in one line what a file contains and which annotations are left out."""
    return (
        f"{annotations.name}: {num_images} images, {num_persons} persons with keypoints on {num_person_images} of them"
        f"; left out: {format_reasons(left_out)}"
    )


def _check_any_usable(table: AnnotationTable, usable: BoolArray, left_out: dict[str, int], log: IssueLog) -> None:
    if usable.any():
        return
    total = len(usable) + table.num_other_category
    log.error(
        "no usable person",
        f"0 of {total} annotations kept" + (f", left out: {format_reasons(left_out)}" if total else ""),
        f"A usable person has category_id {table.category['id']}, iscrowd 0 and at least one keypoint with v > 0.",
    )


def _check_records(table: AnnotationTable, log: IssueLog) -> None:
    log_invalid_values(table, log, table.invalid)
    log.add(
        "error",
        "annotation of an unlisted image",
        np.flatnonzero(~table.invalid["image_id"] & (table.image_index < 0)),
        lambda i: f"{table.describe(i)}: image_id {table.records[i]['image_id']}",
        "Add the image to 'images' or remove the annotation.",
    )


def _check_ids(table: AnnotationTable, log: IssueLog) -> None:
    log_duplicate_image_ids(table.images, log)
    valid = np.flatnonzero(table.is_valid)
    log.add(
        "error",
        "duplicate annotation id",
        valid[find_duplicates(table.ids[valid])],
        table.describe,
        "Give each annotation a unique id: COCO's evaluation keeps only one of several with the same id.",
    )
    log.add(
        "warning",
        "annotation id 0",
        valid[table.ids[valid] == 0],
        table.describe,
        "COCO's evaluation counts a match with id 0 as a miss: number annotations from 1.",
    )


def _check_file_names(images: ImageTable, log: IssueLog) -> None:
    first = images.index_of_name
    log.add(
        "warning",
        "several images with one file_name",
        [i for i, name in enumerate(images.names) if name and first[normalize_file_name(name)] != i],
        lambda i: f"image {images.ids[i]} ({images.names[i]})",
        "The persons of all are learned on one image: if these are different images, such as frames of two cameras, "
        "give them different names or folders.",
    )


def _check_keypoints(table: AnnotationTable, usable: BoolArray, log: IssueLog) -> None:
    points, flags = table.keypoints[..., :2], table.keypoints[..., 2]
    log.add(
        "error",
        "visibility flag other than 0, 1, 2",
        np.argwhere(~np.isin(flags, (0, 1, 2)) & table.is_valid[:, None]),
        table.describe_keypoint,
        "v is 0 for not labeled, 1 for labeled but occluded, 2 for visible.",
    )
    log.add(
        "warning",
        "wrong num_keypoints",
        np.flatnonzero(table.is_valid & (table.num_keypoints != table.num_labeled)),
        lambda i: f"{table.describe(i)}: num_keypoints {table.num_keypoints[i]:g}, {table.num_labeled[i]} with v > 0",
        "Write the number of keypoints with v > 0: COCO's evaluation skips persons by num_keypoints, training by v.",
    )
    sizes = _image_sizes(table)
    tolerance = _KEYPOINT_TOLERANCE * sizes.max(axis=1)[:, None, None]
    outside = ((points < -tolerance) | (points > sizes[:, None] + tolerance)).any(axis=-1)
    log.add(
        "warning",
        "labeled keypoint far outside its image",
        np.argwhere(outside & (flags > 0) & (usable & (sizes > 0).all(axis=1))[:, None]),
        lambda where: f"{table.describe_keypoint(where)}, image {_format_size(sizes[where[0]])}",
        "Check that the annotation belongs to this image and to its size.",
    )


def check_boxes(table: AnnotationTable, usable: BoolArray, log: IssueLog) -> None:
    """Checks the boxes of the usable persons (mask (A,)); others need none."""

    def describe_box(i: int) -> str:
        return f"{table.describe(i)}: bbox {short_repr(table.boxes[i].tolist())}"

    def describe_box_and_image(i: int) -> str:
        return f"{describe_box(i)}, image {_format_size(sizes[i])}"

    corners = xywh_to_xyxy(table.boxes).astype(np.float32)
    empty = usable & ~(corners[:, 2:] > corners[:, :2]).all(axis=1)
    log.add(
        "error",
        "box without area",
        np.flatnonzero(empty),
        describe_box,
        "A box is x, y, width, height with width and height above 0: compute it from the mask or the keypoints.",
    )
    sizes = _image_sizes(table)
    check_plausibility(table, usable, sizes, log)
    checked = usable & ~empty & (sizes > 0).all(axis=1)
    outside = checked & are_outside(corners, sizes)
    log.add(
        "error",
        "box outside its image",
        np.flatnonzero(outside),
        describe_box_and_image,
        "Boxes are x, y, width, height in pixels of the image as stored: check the image of the annotation.",
    )
    exceeds = ((corners[:, :2] < -_BOX_TOLERANCE) | (corners[:, 2:] > sizes + _BOX_TOLERANCE)).any(axis=1)
    log.add(
        "warning",
        "box exceeds its image",
        np.flatnonzero(checked & ~outside & exceeds),
        describe_box_and_image,
        "The box is used unchanged; pixels outside the image are black in the crop.",
    )


def _check_areas(table: AnnotationTable, usable: BoolArray, log: IssueLog) -> None:
    log.add(
        "error",
        "area not above 0 of a labeled person",
        np.flatnonzero(usable & ~((table.areas > 0) & np.isfinite(table.areas))),
        lambda i: f"{table.describe(i)}: area {table.areas[i]:g}",
        "OKS divides by it: write the area of the person's mask, or of the box if there is no mask.",
    )


def _image_sizes(table: AnnotationTable) -> NDArray[np.int32]:
    """Returns the image size (A, 2) of every annotation, (0, 0) if unknown."""
    sizes = np.append(table.images.sizes, np.zeros((1, 2), np.int32), axis=0)
    # index -1, an unlisted image, selects the appended row
    return sizes[table.image_index]


def _format_size(size: NDArray[np.int32]) -> str:
    return f"{size[0]} x {size[1]} (width x height)"

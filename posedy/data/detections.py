"""Reading, validation and writing of person boxes as COCO results or annotations.

`posedy test`, `predict` and `detect` share the rules of `parse_boxes`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.box_form import LARGEST_FRACTION, are_fractions, are_outside, describe_misfit
from posedy.data.categories import PERSON_CATEGORY_ID, read_person_category_id
from posedy.data.coco import CocoPersons
from posedy.data.coco_file import (
    CocoFile,
    ImageTable,
    Record,
    format_value,
    load_file,
    read_images,
    read_sizes,
)
from posedy.data.coco_results import log_invalid_entries, validate_records
from posedy.data.file_names import normalize_file_name
from posedy.data.issues import IssueLog, count_reasons, format_reasons, short_repr
from posedy.data.tables import find_duplicates, invalid_ids, is_plausible, number_column, number_rows
from posedy.geometry import xywh_to_xyxy, xyxy_to_xywh

_ID_OR_NAME = "Write the image_id of the annotation file, or the file_name."


@dataclass(frozen=True, eq=False)
class Detections:
    """The D usable person boxes of a file, in its order.

    Attributes:
        path: the file.
        images: the images of the annotation file; without one, the images that boxes refer to.
        image_index: (D,) index of each box's image.
        boxes: (D, 4) xyxy in image pixels.
        scores: (D,).
        left_out: number of boxes of the file that are not among the D, by reason.
        has_annotation_file: whether `images` come from an annotation file, which also lists images without boxes.
    """

    path: Path
    images: ImageTable
    image_index: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    left_out: dict[str, int]
    has_annotation_file: bool

    def __len__(self) -> int:
        return len(self.scores)

    def summary(self) -> str:
        """Summarizes in one line the boxes, the images and the boxes left out."""
        with_boxes = len(np.unique(self.image_index))
        return (
            f"{self.path.name}: {len(self)} boxes on {with_boxes} of {len(self.images.names)} images; "
            f"left out: {format_reasons(self.left_out)}"
        )

    def warn_of_misfit(self) -> None:
        """Warns if many boxes do not fit their images, with the likely cause."""
        if misfit := describe_misfit(self.boxes, self.images.sizes[self.image_index]):
            warnings.warn(f"{self.path}: {misfit}", stacklevel=3)


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """The boxes and scores that a detector returns for one image.

    Attributes:
        file_name: the file name of the image in the written records.
        image_id: the image id in the written records.
        size: (width, height) of the image in pixels.
        boxes: (P, 4) xyxy in image pixels.
        scores: (P,).
    """

    file_name: str
    image_id: int | str
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def parse_boxes(
    entries: Sequence[Any],
    path: Path,
    images: ImageTable | None,
    category_id: Any,
    score_threshold: float,
    have_sizes: bool,
) -> Detections:
    """Parses person boxes from the entries of results or annotations.

    - An entry refers to its image by `image_id`, or by `file_name` if it has no id or there is no annotation file.
    - Boxes of other categories, on images outside the annotation file, of crowds, not finite, without area, outside
      their image (if its size is known) or below the score threshold are left out, each counted under the first of
      these reasons. A box without category is a person.
    - If no entry has a score, all scores are 1; scores in only some of the entries are an error.
    - Image sizes in entries must equal the recorded sizes: boxes in other pixels would be misplaced.

    Args:
        entries: records with `bbox` (xywh).
        path: the file of the entries.
        images: the images of the annotation file; None uses the images that the entries refer to.
        category_id: the category id of persons.
        score_threshold: boxes with lower scores are left out.
        have_sizes: whether `width` and `height` of an entry are the size of its image.

    Raises:
        CocoFileError: if entries are invalid, or all boxes are in fractions of the image; the message names them.
    """
    log, source = IssueLog(), str(path)
    records = validate_records(entries, log)
    log.raise_errors(source)
    has_annotation_file = images is not None
    rows, bad = number_rows([record.get("bbox") for record in records], 4)
    log_invalid_entries(log, records, "bbox", bad, "Write a list of four numbers: x, y, width, height.")
    scores, bad = number_column([record.get("score") for record in records])
    if not any("score" in record for record in records):
        scores, bad = np.ones(len(records)), np.zeros(len(records), dtype=bool)
    log_invalid_entries(
        log, records, "score", bad, "Write a number in every entry, or no score at all: then all scores are 1."
    )
    if images is None:
        images, image_index = _collect_images(records, log)
    else:
        image_index = _find_images(records, images, log)
    log.raise_errors(source)
    if have_sizes:
        images = _with_sizes(images, records, image_index, log)
        log.raise_errors(source)
    finite = is_plausible(rows).all(axis=1) & is_plausible(scores)
    boxes = xywh_to_xyxy(np.where(finite[:, None], rows, 0)).astype(np.float32)
    # index -1, an image outside the annotation file, selects the appended row
    sizes = np.append(images.sizes, np.zeros((1, 2), np.int32), axis=0)[image_index]
    kept, left_out = count_reasons(
        {
            "of another category": [record.get("category_id", category_id) != category_id for record in records],
            "on images outside the annotation file": image_index < 0,
            "of crowds": [bool(record.get("iscrowd")) for record in records],
            "with NaN, infinity or beyond any image": ~finite,
            "without area": ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1),
            "outside their image": (sizes > 0).all(axis=1) & are_outside(boxes, sizes),
            f"under the score threshold {score_threshold:g}": scores < score_threshold,
        }
    )
    if are_fractions(rows[kept], sizes[kept]):
        log.error(
            "boxes in fractions of the image",
            f"no number of {int(kept.sum())} boxes exceeds {LARGEST_FRACTION:g}: {short_repr(rows[kept][0].tolist())}",
            "Write x, y, width, height in pixels: multiply x and width by the image's width, y and height by its "
            "height.",
        )
        log.raise_errors(source)
    left_out = {reason: count for reason, count in left_out.items() if count}
    kept_scores = scores[kept].astype(np.float32)
    return Detections(path, images, image_index[kept], boxes[kept], kept_scores, left_out, has_annotation_file)


def read_detections(path: Path | str, persons: CocoPersons, score_threshold: float = 0.0) -> Detections:
    """Reads a detector's boxes for the images of `persons`; images may have no boxes.

    Args:
        path: a JSON list of {"image_id", "bbox": [x, y, width, height], "score"}, with "category_id" if there are
            boxes of other categories; see `parse_boxes`.
        persons: the images and the category of persons.
        score_threshold: boxes with lower scores are left out.

    Raises:
        CocoFileError: if the file is not such a list, or no box can be used.
        OSError: if it cannot be read.
    """
    path, log = Path(path), IssueLog()
    entries = load_file(path)
    if not isinstance(entries, list):
        log.error(
            "not a list of boxes",
            f"{path}: expected a list of entries with image_id, bbox and score, got a {type(entries).__name__}",
            "Annotations are not detections; posedy detect writes such a list with --annotations FILE.",
        )
    elif not entries:
        log.error("no boxes", "the list is empty", "Run a detector with a low score threshold.")
    log.raise_errors(str(path))
    names = [persons.file_names[index] for index in range(len(persons.image_ids))]
    images = ImageTable(persons.image_ids.tolist(), persons.image_sizes, names)
    detections = parse_boxes(entries, path, images, persons.category_id, score_threshold, have_sizes=True)
    if len(detections) == 0:
        log.error(
            "no usable box",
            f"none of {len(entries)} boxes can be used: {format_reasons(detections.left_out)}",
            f"Give boxes of images of {persons.annotations.name} (ids like {persons.image_ids[0]}), with category_id "
            f"{persons.category_id} for persons.",
        )
        log.raise_errors(str(path))
    detections.warn_of_misfit()
    return detections


def read_box_file(path: Path, annotations: Path | None = None, score_threshold: float = 0.0) -> Detections:
    """Reads person boxes for images identified by their file names.

    Args:
        path: a COCO annotation file, or a list of {"file_name" or "image_id", "bbox", "score"}; see `parse_boxes`.
        annotations: the annotation file that the image ids of a list refer to.
        score_threshold: boxes with lower scores are left out.

    Raises:
        OSError: if a file cannot be read.
        CocoFileError: if it has the wrong format; the message names the file and the invalid entries.
    """
    content, log = load_file(path), IssueLog()
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        if annotations is not None:
            log.error("two annotation files", f"{path} is an annotation file itself", f"Omit {annotations}.")
            log.raise_errors(str(path))
        file = CocoFile.from_content(content, str(path), required=("images", "annotations"))
        images, category_id = _image_table_of(file)
        return parse_boxes(file.annotations, path, images, category_id, score_threshold, have_sizes=False)
    if not isinstance(content, list):
        log.error(
            "not a list of boxes or an annotation file",
            f"{path}: expected a list or an annotation file, got a {type(content).__name__}",
            "Give COCO annotations, or a list of entries with file_name, bbox and score.",
        )
        log.raise_errors(str(path))
    table, category_id = (None, PERSON_CATEGORY_ID) if annotations is None else read_image_table(annotations)
    return parse_boxes(content, path, table, category_id, score_threshold, have_sizes=True)


def read_image_table(annotations: Path) -> tuple[ImageTable, Any]:
    """Reads the images of an annotation file, which must have unique file names, and the category id of persons.

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if an image has no unique id and file name, or if there is no category of persons.
    """
    return _image_table_of(CocoFile.read(annotations, required=("images",)))


def boxes_to_results(images: Sequence[ImageBoxes], category_id: int) -> list[dict[str, Any]]:
    """Converts boxes to a list of COCO results, one entry per box.

    Images without boxes have no entry; the annotation file lists them.
    """
    return [
        {"image_id": image.image_id, "file_name": image.file_name, "width": image.size[0], "height": image.size[1]}
        | {"category_id": category_id, "bbox": box, "score": score}
        for image in images
        for box, score in _boxes_and_scores(image)
    ]


def boxes_to_annotations(images: Sequence[ImageBoxes]) -> dict[str, Any]:
    """Converts boxes to the content of a COCO annotation file, which also lists the images without boxes."""
    listed = [
        {"id": image.image_id, "file_name": image.file_name, "width": image.size[0], "height": image.size[1]}
        for image in images
    ]
    boxes = [(image, *box_and_score) for image in images for box_and_score in _boxes_and_scores(image)]
    annotations = [
        {"id": number, "image_id": image.image_id, "category_id": PERSON_CATEGORY_ID, "bbox": box, "score": score}
        | {"area": box[2] * box[3], "iscrowd": 0}
        for number, (image, box, score) in enumerate(boxes, start=1)
    ]
    categories = [{"id": PERSON_CATEGORY_ID, "name": "person"}]
    return {"images": listed, "annotations": annotations, "categories": categories}


def _find_images(records: Sequence[Record], images: ImageTable, log: IssueLog) -> NDArray[np.int64]:
    """Returns the image index (N,) of each entry, -1 for images outside the annotation file."""
    ids = [record.get("image_id") for record in records]
    invalid = invalid_ids(ids, images.has_text_ids)
    by_id = images.find_ids(ids, invalid)
    names = [record.get("file_name") for record in records]
    index_of = images.index_of_name if any(isinstance(name, str) for name in names) else {}
    indices = [index_of.get(normalize_file_name(name), -1) if isinstance(name, str) else -1 for name in names]
    by_name = np.array(indices, dtype=np.int64)
    has_id = np.array([value is not None for value in ids], dtype=bool)
    has_name = np.array([isinstance(name, str) for name in names], dtype=bool)
    log_invalid_entries(log, records, "image_id", invalid & (has_id | ~has_name), _ID_OR_NAME)
    log.add(
        "error",
        "image_id and file_name of different images",
        np.flatnonzero((by_id >= 0) & (by_name >= 0) & (by_id != by_name)),
        lambda i: f"entry {i}: image_id {ids[i]} is {images.names[by_id[i]]}, file_name is {names[i]}",
        "Give the annotation file that was used for detection.",
    )
    return np.where(has_id, by_id, by_name)


def _collect_images(records: Sequence[Record], log: IssueLog) -> tuple[ImageTable, NDArray[np.int64]]:
    """Collects the images that entries refer to by file name, with the image index (N,) of each entry."""
    names = [record.get("file_name") for record in records]
    bad = np.array([not isinstance(name, str) for name in names], dtype=bool)
    by_id = bad & np.array([isinstance(record.get("image_id"), int | str) for record in records], dtype=bool)
    log.add(
        "error",
        "entry with an image_id but no file_name",
        np.flatnonzero(by_id),
        lambda i: f"entry {i}: image_id {records[i]['image_id']!r:.60}",
        "An image_id refers to an annotation file: give it with --annotations FILE, or write file_name in the entries.",
    )
    log_invalid_entries(log, records, "file_name", bad & ~by_id, "Write the name of the image file.")
    unique = list(dict.fromkeys(normalize_file_name(name) for name in names if isinstance(name, str)))
    images = ImageTable([], np.zeros((len(unique), 2), dtype=np.int32), unique)
    indices = [images.index_of_name[normalize_file_name(name)] if isinstance(name, str) else -1 for name in names]
    return images, np.array(indices, dtype=np.int64)


def _with_sizes(
    images: ImageTable, records: Sequence[Record], image_index: NDArray[np.int64], log: IssueLog
) -> ImageTable:
    """Adds the image sizes of entries to the images; all sizes of an image must be equal."""
    entry_sizes = read_sizes(records)
    given = np.array([(r.get("width"), r.get("height")) != (None, None) for r in records], dtype=bool)
    given &= image_index >= 0
    log.add(
        "error",
        "entry without a valid width and height",
        np.flatnonzero(given & (entry_sizes[:, 0] == 0)),
        lambda i: f"entry {i}: {format_value(records[i], 'width')}, {format_value(records[i], 'height')}",
        "Write the size of the image in whole pixels, or neither of the two.",
    )
    sizes = images.sizes.copy()
    # images without a recorded size take it from their first entry with a size
    sized = np.flatnonzero(given & (entry_sizes[:, 0] > 0))
    first = np.unique(image_index[sized], return_index=True)[1]
    unknown = sized[first][sizes[image_index[sized[first]], 0] == 0]
    sizes[image_index[unknown]] = entry_sizes[unknown]
    log.add(
        "error",
        "image size of an entry is wrong",
        sized[(entry_sizes[sized] != sizes[image_index[sized]]).any(axis=1)],
        lambda i: (
            f"entry {i}: {entry_sizes[i, 0]} x {entry_sizes[i, 1]}, {images.names[image_index[i]]} is "
            f"{sizes[image_index[i], 0]} x {sizes[image_index[i], 1]} (width x height)"
        ),
        "All boxes of an image must be in the pixels of the annotation file: run the detector again.",
    )
    return replace(images, sizes=sizes)


def _image_table_of(file: CocoFile) -> tuple[ImageTable, Any]:
    log = IssueLog()
    images = read_images(file, log, needs=("file_name",), allow_text_ids=True)
    category_id = read_person_category_id(file, log)
    _log_duplicates("id", images.ids, log)
    _log_duplicates("file_name", [normalize_file_name(name) for name in images.names if name], log)
    log.raise_errors(file.source)
    return images, category_id


def _log_duplicates(key: str, values: Sequence[Any], log: IssueLog) -> None:
    log.add(
        "error",
        f"duplicate {key} of images",
        find_duplicates(np.array(values)),
        lambda index: short_repr(values[index]),
        "Give each image a unique one: boxes refer to it.",
    )


def _boxes_and_scores(image: ImageBoxes) -> list[tuple[list[float], float]]:
    """Pairs each box, as x, y, width, height, with its score."""
    return list(zip(xyxy_to_xywh(image.boxes).tolist(), image.scores.tolist(), strict=True))

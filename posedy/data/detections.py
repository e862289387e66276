"""Person boxes in COCO's form, as results or annotations: read, checked and written.

The rules about boxes are the same for `posedy test`, `predict` and `detect`: `read_boxes` has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.categories import PERSON, read_person_category
from posedy.data.coco import CocoPersons
from posedy.data.coco_file import (
    CocoFile,
    ImageTable,
    Record,
    load_file,
    normal_name,
    read_images,
    read_sizes,
    value_of,
)
from posedy.data.coco_results import as_records, log_invalid_entries
from posedy.data.findings import FindingLog, count_reasons, name_reasons, short
from posedy.data.tables import invalid_ids, number_column, number_rows, plausible, repeated
from posedy.geometry import xywh_to_xyxy, xyxy_to_xywh

_NAME_BOTH_WAYS = "Write the image_id that the annotation file gives the image, or its file_name."


@dataclass(frozen=True, eq=False)
class Detections:
    """The D person boxes of a file that count, in its order.

    Attributes:
        path: the file.
        images: the images of the annotation file, or without one those that the boxes name.
        image_index: (D,) index of each box's image.
        boxes: (D, 4) xyxy in image pixels.
        scores: (D,).
        left_out: how many boxes of the file are not among the D, by reason.
        lists_images: whether the images are those of an annotation file, which has images without boxes too.
    """

    path: Path
    images: ImageTable
    image_index: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    left_out: dict[str, int]
    lists_images: bool

    def __len__(self) -> int:
        return len(self.scores)

    def summary(self) -> str:
        """One line: boxes, images, what was left out and why."""
        found = len(np.unique(self.image_index))
        return (
            f"{self.path.name}: {len(self)} boxes on {found} of {len(self.images.names)} images; "
            f"left out: {name_reasons(self.left_out)}"
        )


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """The boxes that a detector found in an image.

    Attributes:
        file_name: the name that boxes know the image by.
        image_id: the id that boxes know it by.
        size: (width, height) of the image in the pixels that the boxes count in.
        boxes: (P, 4) xyxy.
        scores: (P,).
    """

    file_name: str
    image_id: int | str
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def read_boxes(
    entries: Sequence[Any],
    path: Path,
    images: ImageTable | None,
    category_id: Any,
    score_threshold: float,
    have_sizes: bool,
) -> Detections:
    """Takes person boxes from results or annotations.

    - An entry names its image by `image_id`, or by `file_name` where it has no id or there is no annotation file.
    - Boxes of another category, on images that the annotation file does not have, of crowds, not finite, without area
      or under the score threshold are left out, counted under the first of these reasons. A box without a category is
      a person.
    - If no entry has a score, all scores are 1; if only some have, that is an error.
    - Sizes in entries must be the recorded ones: boxes that count in other pixels would land elsewhere.

    Args:
        entries: records with `bbox` (xywh).
        path: the file that they are of.
        images: those of the annotation file; None takes the images that the entries name.
        category_id: of persons.
        score_threshold: boxes with lower scores are left out.
        have_sizes: whether `width` and `height` of an entry are the size of its image.

    Raises:
        CocoFileError: which names all invalid entries.
    """
    log, source = FindingLog(), str(path)
    records = as_records(entries, log)
    log.raise_errors(source)
    lists_images = images is not None
    rows, bad = number_rows([record.get("bbox") for record in records], 4)
    log_invalid_entries(log, records, "bbox", bad, "A box is a list of four numbers: x, y, width, height.")
    scores, bad = number_column([record.get("score") for record in records])
    if not any("score" in record for record in records):
        scores, bad = np.ones(len(records)), np.zeros(len(records), dtype=bool)
    log_invalid_entries(
        log, records, "score", bad, "Write a number into each entry, or a score into none: then each is 1."
    )
    if images is None:
        images, image_index = _named_images(records, log)
    else:
        image_index = _find_images(records, images, log)
    log.raise_errors(source)
    if have_sizes:
        images = _with_sizes(images, records, image_index, log)
        log.raise_errors(source)
    finite = plausible(rows).all(axis=1) & plausible(scores)
    boxes = xywh_to_xyxy(np.where(finite[:, None], rows, 0)).astype(np.float32)
    kept, left_out = count_reasons(
        {
            "of another category": [record.get("category_id", category_id) != category_id for record in records],
            "on images outside the annotation file": image_index < 0,
            "of crowds": [bool(record.get("iscrowd")) for record in records],
            "with NaN, infinity or beyond any image": ~finite,
            "without area": ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1),
            f"under the score threshold {score_threshold:g}": scores < score_threshold,
        }
    )
    left_out = {reason: count for reason, count in left_out.items() if count}
    kept_scores = scores[kept].astype(np.float32)
    return Detections(path, images, image_index[kept], boxes[kept], kept_scores, left_out, lists_images)


def read_detections(path: Path | str, persons: CocoPersons, score_threshold: float = 0.0) -> Detections:
    """Reads a detector's boxes for the images of `persons`; images without a box are fine.

    Args:
        path: a JSON list of {"image_id", "bbox": [x, y, width, height], "score"} with "category_id" if there are
            boxes of other things too; see `read_boxes`.
        persons: the images, and the category that persons have.
        score_threshold: boxes below it are left out.

    Raises:
        CocoFileError: if the file is not such a list, or none of its boxes can be used.
        OSError: if it cannot be read.
    """
    path, log = Path(path), FindingLog()
    entries = load_file(path)
    if not isinstance(entries, list):
        log.error(
            "the file is not a list of boxes",
            f"{path} holds a {type(entries).__name__} instead of a list of entries with image_id, bbox and score",
            "Annotations are no detections; posedy detect writes such a list if given --annotations FILE.",
        )
    elif not entries:
        log.error("no boxes", "the list is empty", "Let a detector fill it, with a low score threshold.")
    log.raise_errors(str(path))
    names = [persons.file_names[index] for index in range(len(persons.image_ids))]
    images = ImageTable(persons.image_ids.tolist(), persons.image_sizes, names)
    found = read_boxes(entries, path, images, persons.category_id, score_threshold, have_sizes=True)
    if len(found) == 0:
        log.error(
            "no usable box",
            f"none of {len(entries)} boxes can be used: {name_reasons(found.left_out)}",
            f"Is the file of the images of {persons.annotations.name} (ids like {persons.image_ids[0]}), with "
            f"category_id {persons.category_id} for persons?",
        )
        log.raise_errors(str(path))
    return found


def read_box_file(path: Path, annotations: Path | None = None, score_threshold: float = 0.0) -> Detections:
    """Reads person boxes for images that are known by their file names.

    Args:
        path: a COCO annotation file, or a list of {"file_name" or "image_id", "bbox", "score"}; see `read_boxes`.
        annotations: the annotation file of a list with image ids.
        score_threshold: boxes with lower scores are left out.

    Raises:
        OSError: if a file cannot be read.
        CocoFileError: if it is in another form; the message names the file and the entries.
    """
    content, log = load_file(path), FindingLog()
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        if annotations is not None:
            log.error("two annotation files", f"{path} is an annotation file itself", f"Leave out {annotations}.")
            log.raise_errors(str(path))
        file = CocoFile.from_content(content, str(path), required=("images", "annotations"))
        images, category_id = _named_images_of(file)
        return read_boxes(file.annotations, path, images, category_id, score_threshold, have_sizes=False)
    if not isinstance(content, list):
        log.error(
            "the file is neither a list of boxes nor an annotation file",
            f"{path} holds a {type(content).__name__}",
            "Give COCO's annotations and images, or a list of entries with file_name, bbox and score.",
        )
        log.raise_errors(str(path))
    known, category_id = (None, PERSON) if annotations is None else read_named_images(annotations)
    return read_boxes(content, path, known, category_id, score_threshold, have_sizes=True)


def read_named_images(annotations: Path) -> tuple[ImageTable, Any]:
    """The images of an annotation file, each with a file name of its own, and the category id of persons.

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if images have no id or file name, or share one, or if there is no category of persons.
    """
    return _named_images_of(CocoFile.read(annotations, required=("images",)))


def boxes_to_results(images: Sequence[ImageBoxes], category_id: int) -> list[dict[str, Any]]:
    """A list of boxes, as COCO's tools take results of the images of an annotation file.

    It has nothing about images without boxes, which the annotation file knows.
    """
    return [
        {"image_id": image.image_id, "file_name": image.file_name, "width": image.size[0], "height": image.size[1]}
        | {"category_id": category_id, "bbox": box, "score": score}
        for image in images
        for box, score in _boxes_and_scores(image)
    ]


def boxes_to_annotations(images: Sequence[ImageBoxes]) -> dict[str, Any]:
    """Images, annotations and the category of persons, as in an annotation file, with images without boxes too."""
    listed = [
        {"id": image.image_id, "file_name": image.file_name, "width": image.size[0], "height": image.size[1]}
        for image in images
    ]
    boxes = [(image, *found) for image in images for found in _boxes_and_scores(image)]
    annotations = [
        {"id": number, "image_id": image.image_id, "category_id": PERSON, "bbox": box, "score": score}
        | {"area": box[2] * box[3], "iscrowd": 0}
        for number, (image, box, score) in enumerate(boxes, start=1)
    ]
    return {"images": listed, "annotations": annotations, "categories": [{"id": PERSON, "name": "person"}]}


def _find_images(records: Sequence[Record], images: ImageTable, log: FindingLog) -> NDArray[np.int64]:
    """The index (N,) of the image of each entry, -1 where the annotation file does not have it."""
    ids = [record.get("image_id") for record in records]
    invalid = invalid_ids(ids, images.have_text_ids)
    by_id = images.find_ids(ids, invalid)
    names = [record.get("file_name") for record in records]
    index_of = images.index_of_name if any(isinstance(name, str) for name in names) else {}
    found = [index_of.get(normal_name(name), -1) if isinstance(name, str) else -1 for name in names]
    by_name = np.array(found, dtype=np.int64)
    has_id = np.array([value is not None for value in ids], dtype=bool)
    has_name = np.array([isinstance(name, str) for name in names], dtype=bool)
    log_invalid_entries(log, records, "image_id", invalid & (has_id | ~has_name), _NAME_BOTH_WAYS)
    log.add(
        "error",
        "entry whose image_id and file_name are of two images",
        np.flatnonzero((by_id >= 0) & (by_name >= 0) & (by_id != by_name)),
        lambda i: f"entry {i}: image_id {ids[i]} is {images.names[by_id[i]]}, file_name is {names[i]}",
        "Is it the annotation file that the boxes were made with?",
    )
    return np.where(has_id, by_id, by_name)


def _named_images(records: Sequence[Record], log: FindingLog) -> tuple[ImageTable, NDArray[np.int64]]:
    """The images that entries name by themselves, and the index (N,) of each entry's image."""
    names = [record.get("file_name") for record in records]
    bad = np.array([not isinstance(name, str) for name in names], dtype=bool)
    by_id = bad & np.array([isinstance(record.get("image_id"), int | str) for record in records], dtype=bool)
    log.add(
        "error",
        "entry that names its image by image_id alone",
        np.flatnonzero(by_id),
        lambda i: f"entry {i}: image_id {records[i]['image_id']!r:.60}",
        "Only the annotation file says which image that is: give it with --annotations FILE, or write file_name into "
        "the entries.",
    )
    log_invalid_entries(log, records, "file_name", bad & ~by_id, "Write the name of the image file into the entry.")
    known = list(dict.fromkeys(normal_name(name) for name in names if isinstance(name, str)))
    images = ImageTable([], np.zeros((len(known), 2), dtype=np.int32), known)
    found = [images.index_of_name[normal_name(name)] if isinstance(name, str) else -1 for name in names]
    return images, np.array(found, dtype=np.int64)


def _with_sizes(
    images: ImageTable, records: Sequence[Record], image_index: NDArray[np.int64], log: FindingLog
) -> ImageTable:
    """The images with the sizes that entries give; all sizes of an image must agree."""
    said = read_sizes(records)
    given = np.array([(r.get("width"), r.get("height")) != (None, None) for r in records], dtype=bool)
    given &= image_index >= 0
    log.add(
        "error",
        "entry without a valid width and height",
        np.flatnonzero(given & (said[:, 0] == 0)),
        lambda i: f"entry {i}: {value_of(records[i], 'width')}, {value_of(records[i], 'height')}",
        "They are the size of the image in whole pixels; write both, or none.",
    )
    sizes = images.sizes.copy()
    # of each image without a recorded size the first entry that has one
    having = np.flatnonzero(given & (said[:, 0] > 0))
    first = np.unique(image_index[having], return_index=True)[1]
    unknown = having[first][sizes[image_index[having[first]], 0] == 0]
    sizes[image_index[unknown]] = said[unknown]
    log.add(
        "error",
        "entry that counts in other pixels than its image",
        having[(said[having] != sizes[image_index[having]]).any(axis=1)],
        lambda i: (
            f"entry {i} counts in {said[i, 0]} x {said[i, 1]} pixels, {images.names[image_index[i]]} has "
            f"{sizes[image_index[i], 0]} x {sizes[image_index[i], 1]}"
        ),
        "All boxes of an image count in the same pixels, those of the annotation file: make them again.",
    )
    return replace(images, sizes=sizes)


def _named_images_of(file: CocoFile) -> tuple[ImageTable, Any]:
    log = FindingLog()
    images = read_images(file, log, needs=("file_name",), allow_text_ids=True)
    category_id = read_person_category(file, log)
    _log_repeated("id", images.ids, log)
    _log_repeated("file_name", [normal_name(name) for name in images.names if name], log)
    log.raise_errors(file.source)
    return images, category_id


def _log_repeated(key: str, values: Sequence[Any], log: FindingLog) -> None:
    log.add(
        "error",
        f"two images have the same {key}",
        repeated(np.array(values)),
        lambda index: short(values[index]),
        "Boxes cannot tell such images apart.",
    )


def _boxes_and_scores(image: ImageBoxes) -> list[tuple[list[float], float]]:
    """Each box as x, y, width, height, with its score."""
    return list(zip(xyxy_to_xywh(image.boxes).tolist(), image.scores.tolist(), strict=True))

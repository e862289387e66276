"""Reading of the images, categories and annotations of COCO annotation files.

A `CocoFile` holds the unchanged records of a file. The functions of this module convert them to columns and log missing
and invalid values; the caller reports these (`posedy check`) or raises them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.file_names import file_name_of, normalize_file_name
from posedy.data.issues import IssueLog, short_repr
from posedy.data.tables import (
    BoolArray,
    find_duplicates,
    invalid_ids,
    is_plausible,
    load_json,
    number_column,
    number_rows,
)

AnnotationSource = str | Path | Mapping[str, Any]
Record = Mapping[str, Any]
LISTS = ("images", "annotations", "categories")
_MAX_SIDE = 2**31 - 1


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The content of a COCO annotation file, without the masks in `segmentation`.

    Attributes:
        source: the file's path, or "annotations" for content in memory.
        images: the unchanged entries of the list "images".
        annotations: the unchanged entries of the list "annotations".
        categories: the unchanged entries of the list "categories".
    """

    source: str
    images: Sequence[Any]
    annotations: Sequence[Any]
    categories: Sequence[Any]

    @classmethod
    def read(cls, annotations: AnnotationSource, required: Collection[str] = LISTS) -> "CocoFile":
        """Reads a file, or wraps its content.

        Args:
            annotations: the file or its content, which is not changed.
            required: the lists that must be in the file.

        Raises:
            OSError: if the file cannot be read.
            CocoFileError: if it is not JSON, or not an object with the required lists.
        """
        if isinstance(annotations, Mapping):
            return cls.from_content(annotations, "annotations", required)
        return cls.from_content(load_file(annotations), str(annotations), required)

    @classmethod
    def from_content(cls, content: Any, source: str, required: Collection[str] = LISTS) -> "CocoFile":
        """Wraps the JSON content of a file.

        Raises:
            CocoFileError: if it is not an object with the required lists.
        """
        log = IssueLog()
        if not isinstance(content, Mapping):
            log.error(
                "not a COCO annotation file",
                f"{source}: expected an object with images, annotations and categories, got a {type(content).__name__}",
                "A list is COCO's format of results and detections: give a ground truth file.",
            )
            raise log.to_error(source)
        log.add(
            "error",
            "missing or invalid top-level list",
            [key for key in LISTS if not isinstance(content.get(key, None if key in required else []), list)],
            lambda key: f"'{key}' is {short_repr(content[key]) if key in content else 'missing'}",
            "A COCO annotation file is an object with the lists images, annotations and categories.",
        )
        log.raise_errors(source)
        return cls(source, *(content.get(key, []) for key in LISTS))


def load_file(path: str | Path) -> Any:
    """Loads a JSON file.

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if it is not JSON.
    """
    log = IssueLog()
    try:
        return load_json(Path(path))
    except ValueError as error:
        log.error("not a JSON file", f"{path}: {error}", "Download or write the file again.")
        raise log.to_error(str(path)) from error


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The I images of a file.

    Attributes:
        ids: I ids, all integers or all text.
        sizes: (I, 2) width and height in pixels, (0, 0) if unknown.
        names: I file names, "" if there is no valid one.
    """

    ids: list[Any]
    sizes: NDArray[np.int32]
    names: list[str]

    @cached_property
    def index_of_id(self) -> dict[Any, int]:
        """Maps each id to the index of the first image with it."""
        return {image_id: index for index, image_id in reversed(list(enumerate(self.ids)))}

    @cached_property
    def index_of_name(self) -> dict[str, int]:
        """Maps each normalized file name to the index of the first image with it."""
        return {normalize_file_name(name): index for index, name in reversed(list(enumerate(self.names))) if name}

    def find_ids(self, ids: Sequence[Any], invalid: BoolArray) -> NDArray[np.int64]:
        """Returns the image index (N,) of each id, -1 for unknown ids and for those of the mask `invalid` (N,)."""
        index_of = self.index_of_id
        indices = [-1 if skip else index_of.get(value, -1) for value, skip in zip(ids, invalid, strict=True)]
        return np.array(indices, dtype=np.int64)

    @property
    def has_text_ids(self) -> bool:
        """Whether the ids are text."""
        return bool(self.ids) and isinstance(self.ids[0], str)


def read_images(
    file: CocoFile, log: IssueLog, needs: Collection[str] = ("width", "file_name"), allow_text_ids: bool = False
) -> ImageTable:
    """Reads the images of a file; those without a valid id are logged and left out.

    Args:
        file: the file.
        log: the log of errors.
        needs: further required keys: "width" (with height), "file_name".
        allow_text_ids: whether the ids may all be text.
    """
    records = select_objects(file.images, "images", log)
    ids = [record.get("id") for record in records]
    expects_text = allow_text_ids and sum(isinstance(value, str) for value in ids) > len(ids) / 2
    bad = invalid_ids(ids, expects_text)
    log.add(
        "error",
        "image without a valid id",
        np.flatnonzero(bad),
        lambda index: f"{short_repr(records[index].get('file_name'))}: {format_value(records[index], 'id')}",
        "Write an integer id." if not allow_text_ids else "Image ids must be all integers or all text.",
    )
    records = [record for record, skip in zip(records, bad, strict=True) if not skip]
    ids = [record["id"] for record in records]
    sizes = read_sizes(records)
    names = [file_name_of(record) for record in records]
    log.add(
        "error",
        "image without a valid width and height",
        np.flatnonzero(sizes[:, 0] == 0) if "width" in needs else (),
        lambda i: f"image {ids[i]}: {format_value(records[i], 'width')}, {format_value(records[i], 'height')}",
        "Write the image's size in pixels, as stored (without EXIF rotation).",
    )
    log.add(
        "error",
        "image without a valid file_name",
        [index for index, name in enumerate(names) if not name] if "file_name" in needs else (),
        lambda index: f"image {ids[index]}: {format_value(records[index], 'file_name')}",
        "Write the image's path relative to the image folder.",
    )
    return ImageTable(ids, sizes, names)


def log_duplicate_image_ids(images: ImageTable, log: IssueLog) -> None:
    """Logs the images whose id is that of an earlier image."""
    ids = np.array(images.ids, dtype=None if images.has_text_ids else np.int64)
    log.add(
        "error",
        "duplicate image id",
        find_duplicates(ids),
        lambda index: f"image {images.ids[index]} ({images.names[index] or 'no file_name'})",
        "Give each image a unique id: annotations refer to it.",
    )


def read_sizes(records: Sequence[Record]) -> NDArray[np.int32]:
    """Reads the width and height (N, 2) of records in whole pixels, (0, 0) if one is missing or invalid."""
    sides = np.stack([number_column([record.get(side) for record in records])[0] for side in ("width", "height")], -1)
    valid = ((sides >= 1) & (sides <= _MAX_SIDE) & (sides == np.floor(sides))).all(axis=1)
    return np.where(valid[:, None], sides, 0).astype(np.int32)


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """The A annotations of one category, in the file's order.

    Attributes:
        category: the record of the category.
        images: the images of the file.
        records: the A records of the file, with iscrowd 0 and keypoints 0, 0, 0 where they are omitted, and with x and
            y 0 of unlabeled keypoints whose x or y is not finite.
        num_other_category: number of annotations of other categories.
        image_index: (A,) index of the image, -1 if the file does not list it.
        ids: (A,) integers, 0 if there is none.
        boxes: (A, 4) xywh.
        areas: (A,).
        crowd: (A,).
        num_keypoints: (A,) the values of the file, or else the number of labeled keypoints.
        keypoints: (A, K, 3) of x, y, v.
        invalid: for each key, the mask (A,) of annotations without a valid value; numbers are NaN there, and also in
            the box and area of crowds that have none.
    """

    category: dict[str, Any]
    images: ImageTable
    records: list[Record]
    num_other_category: int
    image_index: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: BoolArray
    num_keypoints: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    invalid: dict[str, BoolArray]

    @cached_property
    def is_valid(self) -> BoolArray:
        """The mask (A,) of annotations with valid values of all keys."""
        return ~np.logical_or.reduce(list(self.invalid.values()))

    @cached_property
    def num_labeled(self) -> NDArray[np.int64]:
        """The number (A,) of labeled keypoints (v > 0)."""
        return (self.keypoints[..., 2] > 0).sum(axis=1)

    def describe(self, annotation: int) -> str:
        """Describes an annotation by its id and image file."""
        image = self.image_index[annotation]
        name = self.images.names[image] if image >= 0 else ""
        return f"annotation {short_repr(self.records[annotation].get('id'))}" + (f" of {name}" if name else "")

    def describe_keypoint(self, where: NDArray[np.int64]) -> str:
        """Describes a keypoint, given the index of its annotation and its own."""
        annotation, keypoint = where
        x, y, v = self.keypoints[annotation, keypoint]
        return f"{self.describe(annotation)}: {self.category['keypoints'][keypoint]} x {x:g}, y {y:g}, v {v:g}"

    def select_persons(self) -> tuple[BoolArray, dict[str, int]]:
        """Selects the annotations to train and test on: valid, not a crowd, at least one labeled keypoint.

        Returns:
            The mask (A,) of these annotations, and the number of others by reason.
        """
        invalid = ~self.is_valid | (self.image_index < 0)
        crowd = ~invalid & self.crowd
        unlabeled = ~invalid & ~crowd & (self.num_labeled == 0)
        left_out = {"crowd": int(crowd.sum()), "no labeled keypoints": int(unlabeled.sum())}
        for reason, count in (("of other categories", self.num_other_category), ("with errors", int(invalid.sum()))):
            if count:
                left_out[reason] = count
        return ~(invalid | crowd | unlabeled), left_out


def read_annotations(file: CocoFile, images: ImageTable, category: dict[str, Any], log: IssueLog) -> AnnotationTable:
    """Reads the annotations of a category; those without a valid category_id are logged and left out."""
    records = select_objects(file.annotations, "annotations", log)
    category_id, num_keypoints = category["id"], len(category["keypoints"])
    category_ids = [record.get("category_id") for record in records]
    bad = invalid_ids(category_ids, isinstance(category_id, str))
    log.add(
        "error",
        "annotation without a valid category_id",
        np.flatnonzero(bad),
        lambda i: f"annotation {short_repr(records[i].get('id'))}: {format_value(records[i], 'category_id')}",
        f"Write the id of the annotation's category (persons: {category_id}).",
    )
    of_category = [not skip and value == category_id for value, skip in zip(category_ids, bad, strict=True)]
    num_other_category = len(records) - int(bad.sum()) - sum(of_category)
    no_keypoints = [0] * (3 * num_keypoints)
    records = [_complete(record, no_keypoints) for record, keep in zip(records, of_category, strict=True) if keep]

    def column(key: str) -> list[Any]:
        return [record.get(key) for record in records]

    invalid = {}
    image_ids, ids = column("image_id"), column("id")
    invalid["id"] = invalid_ids(ids)
    invalid["image_id"] = invalid_ids(image_ids, images.has_text_ids)
    image_index = images.find_ids(image_ids, invalid["image_id"])
    keypoints, invalid["keypoints"] = number_rows(column("keypoints"), 3 * num_keypoints)
    keypoints = keypoints.reshape(-1, num_keypoints, 3)
    for index in _clear_unlabeled(keypoints):
        records[index] = {**records[index], "keypoints": keypoints[index].ravel().tolist()}
    boxes, _ = number_rows(column("bbox"), 4)
    invalid["bbox"] = np.logical_not(is_plausible(boxes).all(axis=1))
    boxes[invalid["bbox"]] = np.nan
    areas, invalid["area"] = number_column(column("area"))
    crowd, _ = number_column([int(value) if isinstance(value, bool) else value for value in column("iscrowd")])
    invalid["iscrowd"] = (crowd != 0) & (crowd != 1)
    for key in ("bbox", "area"):
        is_omitted = np.array([value is None for value in column(key)], dtype=bool)
        invalid[key] &= ~(is_omitted & (crowd == 1))
    counts, invalid["num_keypoints"] = number_column(column("num_keypoints"))
    is_omitted = np.array([value is None for value in column("num_keypoints")], dtype=bool)
    counts = np.where(is_omitted, (keypoints[..., 2] > 0).sum(axis=1), counts)
    invalid["num_keypoints"] &= ~is_omitted
    return AnnotationTable(
        category=category,
        images=images,
        records=records,
        num_other_category=num_other_category,
        image_index=image_index,
        ids=np.array([0 if skip else value for value, skip in zip(ids, invalid["id"], strict=True)], dtype=np.int64),
        boxes=boxes,
        areas=areas,
        crowd=crowd == 1,
        num_keypoints=counts,
        keypoints=keypoints,
        invalid=invalid,
    )


def _complete(record: Record, no_keypoints: list[int]) -> Record:
    """Adds what many tools omit: iscrowd 0, and the keypoints 0, 0, 0 of a person without any (`no_keypoints`)."""
    added: dict[str, Any] = {} if record.get("iscrowd") is not None else {"iscrowd": 0}
    keypoints = record.get("keypoints")
    has_no_keypoints = keypoints is None or (isinstance(keypoints, list) and not keypoints)
    if has_no_keypoints and not record.get("num_keypoints"):
        added["keypoints"] = no_keypoints
    return {**record, **added} if added else record


def _clear_unlabeled(keypoints: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sets x and y of unlabeled keypoints (A, K, 3) to 0, in place, where they are no pixels, such as NaN.

    Returns:
        The indices of the changed annotations.
    """
    bad = (keypoints[..., 2] == 0) & ~is_plausible(keypoints[..., :2]).all(axis=-1)
    keypoints[bad] = 0
    return np.flatnonzero(bad.any(axis=1))


def log_invalid_values(
    table: AnnotationTable, log: IssueLog, keys: Collection[str], where: BoolArray | None = None
) -> None:
    """Logs the annotations with missing or invalid values, or with keypoints that are not finite.

    Args:
        table: the annotations.
        log: the log of errors.
        keys: the required keys.
        where: (A,) mask of the annotations to check; None checks all.
    """
    records = table.records
    count = table.keypoints.shape[1]
    advice = {
        "id": "Write an integer id.",
        "image_id": "Write the id of the annotation's image.",
        "keypoints": f"Write {3 * count} numbers for the category's {count} keypoints (x, y, v each), 0, 0, 0 for an "
        "unlabeled keypoint.",
        "bbox": "Write four finite numbers: x, y, width, height in pixels.",
        "area": "Write the area of the person's mask in square pixels, or of the box without one: OKS needs it.",
        "iscrowd": "Write 0 for a person, 1 for a crowd.",
        "num_keypoints": "Write the number of keypoints with v > 0, or omit it.",
    }
    required = np.ones(len(records), dtype=bool) if where is None else where
    for key in keys:
        bad = table.invalid[key] & required
        missing = np.array([key not in record for record in records], dtype=bool) if bad.any() else bad
        for kind, mask in ((f"missing '{key}'", bad & missing), (f"invalid '{key}'", bad & ~missing)):

            def describe(index: int, key: str = key) -> str:
                return f"{table.describe(index)}: {format_value(records[index], key)}"

            log.add("error", kind, np.flatnonzero(mask), describe, advice[key])
    finite = is_plausible(table.keypoints[..., :2]).all(axis=-1) & np.isfinite(table.keypoints[..., 2])
    log.add(
        "error",
        "keypoint not finite or implausibly large",
        np.argwhere(~finite & (required & ~table.invalid["keypoints"])[:, None]),
        table.describe_keypoint,
        "Write image pixels, and 0, 0, 0 for an unlabeled keypoint.",
    )


def select_objects(values: Sequence[Any], key: str, log: IssueLog) -> list[Record]:
    """Returns the JSON objects of a list; other values are logged and left out."""
    log.add(
        "error",
        f"entry of '{key}' is not an object",
        [index for index, value in enumerate(values) if not isinstance(value, Mapping)],
        lambda index: f"{key}[{index}] is {short_repr(values[index])}",
        "Each entry must be a JSON object: fix or remove it.",
    )
    return [value for value in values if isinstance(value, Mapping)]


def format_value(record: Record, key: str) -> str:
    """Formats a key and its value for an error message."""
    return f"{key} {short_repr(record[key])}" if key in record else f"no {key}"

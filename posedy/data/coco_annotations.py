"""Reading of the annotations of COCO annotation files as columns."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco_file import CocoFile, ImageTable, Record, format_value, select_objects
from posedy.data.issues import IssueLog, short_repr
from posedy.data.tables import BoolArray, invalid_ids, is_plausible, number_column, number_rows


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """The A annotations of one category of a COCO file, in the file's order.

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
    if "keypoints" not in keys:
        return
    finite = is_plausible(table.keypoints[..., :2]).all(axis=-1) & np.isfinite(table.keypoints[..., 2])
    log.add(
        "error",
        "keypoint not finite or implausibly large",
        np.argwhere(~finite & (required & ~table.invalid["keypoints"])[:, None]),
        table.describe_keypoint,
        "Write image pixels, and 0, 0, 0 for an unlabeled keypoint.",
    )

"""The truth that predictions are measured against: the keypoints of a COCO annotation file, checked."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from posedy.config import SkeletonConfig
from posedy.data.columns import load_json
from posedy.data.skeletons import with_overrides

AnnotationSource = str | Path | Mapping[str, Any]
_NEEDED_KEYS = ("image_id", "keypoints", "area", "bbox", "iscrowd")


@dataclass(frozen=True)
class KeypointTruth:
    """One category's keypoints of a COCO annotation file.

    Attributes:
        source: the file's path, or what else the truth is called in errors.
        category: the record of the category that has keypoints.
        category_ids: the ids of all categories of the file.
        image_ids: the ids of all images, sorted.
        annotations: copies of the category's annotations in the file's order, crowds and unlabelled persons included,
            with the keys that COCOeval reads; those of images that the file does not list are left out. Their ids
            count from 1: COCOeval takes an id of 0 for "not matched", and of two equal ids it sees only one.
        file_names: what the file gives as each image's file name, by image id; None where it gives none.
    """

    source: str
    category: Mapping[str, Any]
    category_ids: frozenset[int]
    image_ids: tuple[int, ...]
    annotations: tuple[dict[str, Any], ...]
    file_names: Mapping[Any, Any]

    @property
    def num_keypoints(self) -> int:
        """The number K of the category's keypoints."""
        return len(self.category["keypoints"])

    @property
    def labelled(self) -> list[dict[str, Any]]:
        """The persons that count: no crowds, at least one labelled keypoint."""
        return [person for person in self.annotations if person["num_keypoints"] > 0 and not person["iscrowd"]]

    @classmethod
    def from_coco(cls, annotations: AnnotationSource, overrides: SkeletonConfig | None = None) -> "KeypointTruth":
        """Reads the truth from an annotation file or from its content; what is given is left as it is.

        An annotation without `num_keypoints` has as many as are labelled (v > 0).

        Args:
            annotations: the file or its content.
            overrides: what a configuration says about the keypoints in place of the file, such as sigmas.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is not a COCO keypoint file; the message names the file and the annotation.
        """
        source = "annotations"
        content: Any = annotations
        if not isinstance(annotations, Mapping):
            source = str(annotations)
            try:
                content = load_json(Path(annotations))
            except ValueError as error:
                raise ValueError(f"{source}: is not a JSON file ({error})") from error
        if not isinstance(content, Mapping):
            raise ValueError(
                f"{source}: a COCO annotation file is a dictionary with images, annotations and categories, got a "
                f"{type(content).__name__}" + (" (is it a results file?)" if isinstance(content, list) else "")
            )
        for key, ids in (("images", ["id"]), ("categories", ["id"]), ("annotations", ["image_id", "category_id"])):
            _check_records(content.get(key), key, ids, source)
        image_ids = {record["id"] for record in content["images"]}
        if len({isinstance(image_id, str) for image_id in image_ids}) > 1:
            raise ValueError(f"{source}: image ids must be all numbers or all text, got both")
        category = _keypoint_category(content["categories"], source)
        unlisted = {record["image_id"] for record in content["annotations"]} - image_ids
        if unlisted:
            lost = sum(record["image_id"] in unlisted for record in content["annotations"])
            warnings.warn(
                f"{source}: {lost} annotations are left out, of {len(unlisted)} images that 'images' does not list, "
                f"such as {min(unlisted, key=str)!r}",
                stacklevel=2,
            )
        copies: list[dict[str, Any]] = []
        for index, annotation in enumerate(content["annotations"]):
            if annotation["category_id"] == category["id"] and annotation["image_id"] in image_ids:
                where = f"{source}: annotation {annotation.get('id', f'at index {index}')}"
                copies.append(_checked_copy(annotation, len(copies) + 1, len(category["keypoints"]), where))
        return cls(
            source=source,
            category=with_overrides(category, overrides),
            category_ids=frozenset(record["id"] for record in content["categories"]),
            image_ids=tuple(sorted(image_ids)),
            annotations=tuple(copies),
            file_names={record["id"]: record.get("file_name") for record in content["images"]},
        )


def _check_records(records: Any, name: str, id_keys: list[str], source: str) -> None:
    """Checks that one of a COCO file's lists holds dictionaries with ids."""
    if not isinstance(records, list):
        raise ValueError(f"{source}: has no list under '{name}'")
    for index, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise ValueError(f"{source}: entry {index} of '{name}' must be a dictionary, got {record!r:.60}")
        for key in id_keys:
            if isinstance(record.get(key), bool) or not isinstance(record.get(key), Integral | str):
                raise ValueError(f"{source}: entry {index} of '{name}' needs an '{key}', got {record.get(key)!r:.60}")


def _keypoint_category(categories: list[Mapping[str, Any]], source: str) -> Mapping[str, Any]:
    """The one category that names keypoints."""
    with_keypoints = [
        category for category in categories if isinstance(category.get("keypoints"), list) and category["keypoints"]
    ]
    if not with_keypoints:
        names = [category.get("name") for category in categories]
        raise ValueError(
            f"{source}: no category lists its keypoint names under 'keypoints'; its categories are {names}. "
            f"COCO's files for keypoints are named person_keypoints_*.json"
        )
    if len(with_keypoints) > 1:
        names = [category.get("name") for category in with_keypoints]
        raise ValueError(f"{source}: the categories {names} all have keypoints; keep one of them in the file")
    return with_keypoints[0]


def _checked_copy(annotation: Mapping[str, Any], new_id: int, num_keypoints: int, where: str) -> dict[str, Any]:
    """What COCOeval reads of an annotation."""
    missing = [key for key in _NEEDED_KEYS if key not in annotation]
    if missing:
        raise ValueError(f"{where} has no {' and no '.join(map(repr, missing))}, which OKS needs")
    copy = {key: annotation[key] for key in (*_NEEDED_KEYS, "category_id")}
    for key, shape in (("keypoints", (3 * num_keypoints,)), ("bbox", (4,)), ("area", ())):
        if not is_finite(copy[key], shape):
            expected = f"a list of {shape[0]} finite numbers" if shape else "a finite number"
            raise ValueError(f"{where}: '{key}' must be {expected}, got {copy[key]!r:.60}")
    if copy["area"] < 0 or copy["iscrowd"] not in (0, 1):
        raise ValueError(
            f"{where}: 'area' must not be negative and 'iscrowd' 0 or 1, got {copy['area']} and {copy['iscrowd']!r:.60}"
        )
    labelled = sum(visibility > 0 for visibility in copy["keypoints"][2::3])
    count = annotation.get("num_keypoints", labelled)
    if isinstance(count, bool) or not is_finite(count, ()) or count < 0 or count != int(count):
        raise ValueError(f"{where}: 'num_keypoints' must be a count, got {count!r}")
    if count and not labelled:
        raise ValueError(
            f"{where}: 'num_keypoints' is {count}, but no keypoint is labelled (v is 0 everywhere): set it to 0, or "
            "write v = 2 where a keypoint is labelled"
        )
    return {**copy, "num_keypoints": int(count), "id": new_id}


def is_finite(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value is made of numbers in this shape and none is NaN or infinite."""
    try:
        numbers = np.asarray(value)
    except ValueError:  # a ragged list
        return False
    return numbers.shape == shape and numbers.dtype.kind in "iuf" and bool(np.isfinite(numbers).all())

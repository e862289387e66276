"""The records of a COCO keypoint file as arrays; whatever is missing or of the wrong type is logged, never raised."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from posedy.config import SkeletonConfig
from posedy.data.columns import BoolArray, index_in, integer_column, load_json, number_column, number_rows, plausible
from posedy.data.findings import FindingLog, short
from posedy.data.skeletons import with_overrides
from posedy.data.tables import AnnotationTable, CocoTables, ImageTable, PackedNames
from posedy.skeleton import Skeleton

_LARGEST_SIDE = 2**31 - 1


def read_tables(path: Path, log: FindingLog, overrides: SkeletonConfig | None = None) -> CocoTables | None:
    """Reads a COCO keypoint file; None where it has no usable top level, with the reason in the log."""
    try:
        content = load_json(path)
    except OSError as error:
        log.error("the annotation file cannot be read", str(error), "Give a file that can be read.")
        return None
    except ValueError as error:
        log.error("the annotation file is not JSON", f"{path}: {error}", "Fetch or write the file again.")
        return None
    if not isinstance(content, dict):
        log.error(
            "the annotation file is not a COCO annotation file",
            f"{path} holds a {type(content).__name__} instead of an object with images, annotations, categories",
            "A list is COCO's form for results or detections: give the ground-truth annotations here.",
        )
        return None
    parts = {part: content.get(part) for part in ("images", "annotations", "categories")}
    log.add(
        "error",
        "top-level part missing or not a list",
        [part for part, value in parts.items() if not isinstance(value, list)],
        lambda part: f"'{part}' is {short(parts[part]) if part in content else 'not there'}",
        "A COCO keypoint file is an object with the lists images, annotations and categories.",
    )
    if log.has_errors:
        return None
    found = _keypoint_category(content["categories"], log, overrides)
    images = _image_table(_objects(content["images"], "images", log), log)
    if found is None:
        return None
    category_id, skeleton = found
    records = _objects(content["annotations"], "annotations", log)
    category_ids, bad = integer_column([record.get("category_id") for record in records])
    log.add(
        "error",
        "annotation without a valid category_id",
        np.flatnonzero(bad),
        lambda index: f"annotation {short(records[index].get('id'))}: {_value(records[index], 'category_id')}",
        f"Write the id of its category, an integer (persons: {category_id}).",
    )
    other = ~bad & (category_ids != category_id)
    records = [record for record, skip in zip(records, bad | other, strict=True) if not skip]
    annotations = _annotation_table(records, images, skeleton.num_keypoints, log)
    return CocoTables(skeleton, category_id, images, annotations, int(other.sum()))


def _objects(values: list[Any], part: str, log: FindingLog) -> list[dict[str, Any]]:
    """The JSON objects of a list; whatever else stands in it is logged."""
    log.add(
        "error",
        f"entry of '{part}' that is not an object",
        [index for index, value in enumerate(values) if not isinstance(value, dict)],
        lambda index: f"{part}[{index}] is {short(values[index])}",
        "Each entry is a JSON object; remove or repair it.",
    )
    return [value for value in values if isinstance(value, dict)]


def _keypoint_category(
    values: list[Any], log: FindingLog, overrides: SkeletonConfig | None
) -> tuple[int, Skeleton] | None:
    """The id and the skeleton of the one category that has keypoints."""
    if not values:
        log.error("no categories", "'categories' is empty", "Add the person category with its keypoint names.")
        return None
    categories = [category for category in _objects(values, "categories", log) if category.get("keypoints")]
    if len(categories) != 1:
        names = [short(value.get("name")) for value in (categories or values) if isinstance(value, dict)][:8]
        log.error(
            "several categories with keypoints" if categories else "no category with keypoints",
            f"categories {', '.join(names) or 'none'}",
            "Keep the one category that is to be trained and its annotations."
            if categories
            else "Give a keypoint file (person_keypoints_*.json, not instances_*.json), or add the list 'keypoints'.",
        )
        return None
    category = categories[0]
    ids, bad = integer_column([category.get("id")])
    if bad[0]:
        log.error("category without a valid id", _value(category, "id"), "Write an integer id.")
        return None
    # without sigmas of its own a custom skeleton has a default, which is worth a warning, but not an exception
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            skeleton = Skeleton.from_coco_category(with_overrides(category, overrides))
        except (ValueError, OverflowError) as error:
            advice = "Repair the category's record, or data.skeleton."
            log.error("the skeleton of the category cannot be read", str(error), advice)
            return None
    log.add(
        "warning",
        "skeleton without sigmas",
        caught,
        lambda item: str(item.message),
        "Without them OKS and AP are rough.",
    )
    says_pairs = "flip_pairs" in with_overrides(category, overrides)
    unpaired = not says_pairs and not skeleton.flip_pairs and skeleton.num_keypoints > 1
    log.add(
        "warning",
        "skeleton without left and right",
        [skeleton.keypoints] if unpaired else [],
        lambda names: f"keypoints {', '.join(names[:5])}",
        "A mirror would exchange nothing: set data.skeleton.flip_pairs, or write them into the category ([] for none).",
    )
    return int(ids[0]), skeleton


def _image_table(records: list[dict[str, Any]], log: FindingLog) -> ImageTable:
    ids, bad = integer_column([record.get("id") for record in records])
    log.add(
        "error",
        "image without a valid id",
        np.flatnonzero(bad),
        lambda index: f"{short(records[index].get('file_name'))}: {_value(records[index], 'id')}",
        "Every image needs an integer id.",
    )
    records = [record for record, skip in zip(records, bad, strict=True) if not skip]
    ids = ids[~bad]
    sides = np.stack([number_column([record.get(side) for record in records])[0] for side in ("width", "height")], -1)
    valid = ((sides >= 1) & (sides <= _LARGEST_SIDE) & (sides == np.floor(sides))).all(axis=1)
    log.add(
        "error",
        "image without a valid width and height",
        np.flatnonzero(~valid),
        lambda i: f"image {ids[i]}: {_value(records[i], 'width')}, {_value(records[i], 'height')}",
        "Write the photo's size in pixels, as stored (without EXIF rotation).",
    )
    log.add(
        "error",
        "image without a valid file_name",
        [index for index, record in enumerate(records) if _file_name(record) is None],
        lambda index: f"image {ids[index]}: {_value(records[index], 'file_name')}",
        "Write the photo's path below the image folder.",
    )
    packed = PackedNames.pack([_file_name(record) or "" for record in records])
    return ImageTable(ids, np.where(valid[:, None], sides, 0).astype(np.int32), packed)


def _annotation_table(
    records: list[dict[str, Any]], images: ImageTable, num_keypoints: int, log: FindingLog
) -> AnnotationTable:
    def column(key: str) -> list[Any]:
        return [record.get(key) for record in records]

    def logged(key: str, bad: BoolArray, advice: str) -> BoolArray:
        missing = np.array([key not in record for record in records], dtype=bool) if bad.any() else bad
        for kind, culprits in ((f"'{key}' missing", missing), (f"'{key}' of the wrong form", bad & ~missing)):
            log.add(
                "error",
                kind,
                np.flatnonzero(culprits),
                lambda index: (
                    f"annotation {short(records[index].get('id'))}{file_of(index)}: {_value(records[index], key)}"
                ),
                advice,
            )
        return bad

    def file_of(index: int) -> str:
        return f" of {images.names[image_index[index]]}" if image_index[index] >= 0 else ""

    image_ids, bad_image_ids = integer_column(column("image_id"))
    image_index = np.where(bad_image_ids, -1, index_in(image_ids, images.ids))
    ids, bad = integer_column(column("id"))
    broken = logged("id", bad, "Every annotation needs an integer id.")
    broken = broken | logged("image_id", bad_image_ids, "Write the id of the annotation's image, an integer.")
    log.add(
        "error",
        "annotation of an image that the file does not have",
        np.flatnonzero(~bad_image_ids & (image_index < 0)),
        lambda index: f"annotation {short(records[index].get('id'))}: image_id {image_ids[index]}",
        "Add the image to 'images' or remove the annotation.",
    )
    keypoints, bad = number_rows(column("keypoints"), 3 * num_keypoints)
    wanted = f"The category has {num_keypoints} keypoints: write {3 * num_keypoints} numbers (x, y, v each), 0, 0, 0 "
    broken |= logged("keypoints", bad, wanted + "for a keypoint that is not labelled.")
    boxes, _ = number_rows(column("bbox"), 4)
    bad = np.logical_not(plausible(boxes).all(axis=1))
    boxes[bad] = np.nan
    broken |= logged("bbox", bad, "A box is four finite numbers: x, y, width, height in pixels.")
    areas, bad = number_column(column("area"))
    broken |= logged(
        "area", bad, "OKS needs the area of the person's mask in square pixels, or of the box without one."
    )
    crowd, _ = number_column(column("iscrowd"))
    broken |= logged(
        "iscrowd", (crowd != 0) & (crowd != 1), "Write 0 for a person, 1 for a crowd; COCO's evaluation asks for it."
    )
    counts, bad = number_column(column("num_keypoints"))
    broken |= logged("num_keypoints", bad, "Write the number of keypoints with v > 0; COCO's evaluation asks for it.")
    return AnnotationTable(
        ids=ids,
        image_index=image_index,
        boxes=boxes,
        areas=areas,
        crowd=crowd == 1,
        num_keypoints=counts,
        keypoints=keypoints.reshape(-1, num_keypoints, 3),
        sound=~broken,
    )


def _value(record: dict[str, Any], key: str) -> str:
    return f"{key} {short(record[key])}" if key in record else f"no {key}"


def _file_name(record: dict[str, Any]) -> str | None:
    """The file name of an image's record; None unless it is text without NUL that UTF-8 can hold."""
    name = record.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    return name

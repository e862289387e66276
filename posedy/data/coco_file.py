"""COCO annotation files: the only reader of their images, categories and annotations.

A `CocoFile` holds the records of a file as they stand in it. The functions beside it convert them to columns and log
what is missing or of the wrong form; the caller decides whether that is reported (`posedy check`) or raised.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.findings import FindingLog, short
from posedy.data.tables import BoolArray, invalid_ids, load_json, number_column, number_rows, plausible

AnnotationSource = str | Path | Mapping[str, Any]
Record = Mapping[str, Any]
PARTS = ("images", "annotations", "categories")
_LARGEST_SIDE = 2**31 - 1


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The content of a COCO annotation file, without the masks under `segmentation`.

    Attributes:
        source: the file's path, or "annotations" for content in memory.
        images: the entries of the list of this name, as they stand.
        annotations: likewise.
        categories: likewise.
    """

    source: str
    images: Sequence[Any]
    annotations: Sequence[Any]
    categories: Sequence[Any]

    @classmethod
    def read(cls, annotations: AnnotationSource, required: Collection[str] = PARTS) -> "CocoFile":
        """Reads a file, or takes its content.

        Args:
            annotations: the file or its content, which is left as it is.
            required: the lists that the file must have; others may be missing.

        Raises:
            OSError: if the file cannot be read.
            CocoFileError: if it is not JSON, or not an object with lists of these names.
        """
        if isinstance(annotations, Mapping):
            return cls.from_content(annotations, "annotations", required)
        return cls.from_content(load_file(annotations), str(annotations), required)

    @classmethod
    def from_content(cls, content: Any, source: str, required: Collection[str] = PARTS) -> "CocoFile":
        """Takes the JSON content of a file.

        Raises:
            CocoFileError: if it is not an object with the required lists.
        """
        log = FindingLog()
        if not isinstance(content, Mapping):
            log.error(
                "the annotation file is not a COCO annotation file",
                f"{source} holds a {type(content).__name__} instead of an object with images, annotations, categories",
                "A list is COCO's form for results or detections: give the ground-truth annotations here.",
            )
            raise log.as_error(source)
        log.add(
            "error",
            "top-level part missing or not a list",
            [part for part in PARTS if not isinstance(content.get(part, None if part in required else []), list)],
            lambda part: f"'{part}' is {short(content[part]) if part in content else 'not there'}",
            "A COCO annotation file is an object with the lists images, annotations and categories.",
        )
        log.raise_errors(source)
        return cls(source, *(content.get(part, []) for part in PARTS))


def load_file(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: if the file cannot be read.
        CocoFileError: if it is not JSON.
    """
    log = FindingLog()
    try:
        return load_json(Path(path))
    except ValueError as error:
        log.error("the file is not JSON", f"{path}: {error}", "Fetch or write the file again.")
        raise log.as_error(str(path)) from error


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The I images of a file.

    Attributes:
        ids: I ids, all integers or all text.
        sizes: (I, 2) width and height in pixels, (0, 0) where unknown.
        names: I file names, "" where there is no valid one.
    """

    ids: list[Any]
    sizes: NDArray[np.int32]
    names: list[str]

    @cached_property
    def index_of_id(self) -> dict[Any, int]:
        """The index of each id; of images with the same id, that of the first."""
        return {image_id: index for index, image_id in reversed(list(enumerate(self.ids)))}

    @cached_property
    def index_of_name(self) -> dict[str, int]:
        """The index of each file name, written with forward slashes; of equal names, that of the first."""
        return {normal_name(name): index for index, name in reversed(list(enumerate(self.names))) if name}

    def find_ids(self, ids: Sequence[Any], invalid: BoolArray) -> NDArray[np.int64]:
        """The index (N,) of the image of each id, -1 for ids that no image has and for invalid ones (N,)."""
        index_of = self.index_of_id
        found = [-1 if skip else index_of.get(value, -1) for value, skip in zip(ids, invalid, strict=True)]
        return np.array(found, dtype=np.int64)

    @property
    def have_text_ids(self) -> bool:
        """Whether the ids are text."""
        return bool(self.ids) and isinstance(self.ids[0], str)


def normal_name(file_name: str) -> str:
    """A file name with forward slashes and without redundant parts."""
    return PurePosixPath(file_name.replace("\\", "/")).as_posix()


def read_images(
    file: CocoFile, log: FindingLog, needs: Collection[str] = ("width", "file_name"), allow_text_ids: bool = False
) -> ImageTable:
    """The images of a file; those without a valid id are logged and not among them.

    Args:
        file: the file.
        log: takes what is wrong.
        needs: what else every image must have: "width" (and height), "file_name".
        allow_text_ids: whether the ids may be text, all of them.
    """
    records = objects(file.images, "images", log)
    ids = [record.get("id") for record in records]
    expects_text = allow_text_ids and sum(isinstance(value, str) for value in ids) > len(ids) / 2
    bad = invalid_ids(ids, expects_text)
    log.add(
        "error",
        "image without a valid id",
        np.flatnonzero(bad),
        lambda index: f"{short(records[index].get('file_name'))}: {value_of(records[index], 'id')}",
        "Every image needs an integer id." if not allow_text_ids else "Image ids are all integers or all text.",
    )
    records = [record for record, skip in zip(records, bad, strict=True) if not skip]
    ids = [record["id"] for record in records]
    sizes = read_sizes(records)
    names = [_file_name(record) for record in records]
    log.add(
        "error",
        "image without a valid width and height",
        np.flatnonzero(sizes[:, 0] == 0) if "width" in needs else (),
        lambda i: f"image {ids[i]}: {value_of(records[i], 'width')}, {value_of(records[i], 'height')}",
        "Write the photo's size in pixels, as stored (without EXIF rotation).",
    )
    log.add(
        "error",
        "image without a valid file_name",
        [index for index, name in enumerate(names) if not name] if "file_name" in needs else (),
        lambda index: f"image {ids[index]}: {value_of(records[index], 'file_name')}",
        "Write the photo's path below the image folder.",
    )
    return ImageTable(ids, sizes, names)


def read_sizes(records: Sequence[Record]) -> NDArray[np.int32]:
    """The (N, 2) width and height of records in whole pixels, (0, 0) where they do not have both."""
    sides = np.stack([number_column([record.get(side) for record in records])[0] for side in ("width", "height")], -1)
    valid = ((sides >= 1) & (sides <= _LARGEST_SIDE) & (sides == np.floor(sides))).all(axis=1)
    return np.where(valid[:, None], sides, 0).astype(np.int32)


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """The A annotations of one category, in the file's order.

    Attributes:
        category: the record of the category.
        images: the images of the file.
        records: A records as they stand in the file.
        other_category: how many annotations of the file are of other categories.
        image_index: (A,) index of the image, -1 where the file has no such image.
        ids: (A,) integers, 0 where there is none.
        boxes: (A, 4) xywh.
        areas: (A,).
        crowd: (A,).
        num_keypoints: (A,) as the file says.
        keypoints: (A, K, 3) of x, y, v.
        invalid: for each key of an annotation, which of them (A,) lack it or have a value of another form; numbers are
            NaN there.
    """

    category: dict[str, Any]
    images: ImageTable
    records: list[Record]
    other_category: int
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
        """(A,) whether every key is there and of the right form."""
        return ~np.logical_or.reduce(list(self.invalid.values()))

    @cached_property
    def num_labeled(self) -> NDArray[np.int64]:
        """(A,) how many keypoints are labeled (v > 0)."""
        return (self.keypoints[..., 2] > 0).sum(axis=1)

    def describe(self, annotation: int) -> str:
        """Names an annotation by its id and image file."""
        image = self.image_index[annotation]
        name = self.images.names[image] if image >= 0 else ""
        return f"annotation {short(self.records[annotation].get('id'))}" + (f" of {name}" if name else "")

    def describe_keypoint(self, where: NDArray[np.int64]) -> str:
        """Names a keypoint by the indices of its annotation and of itself."""
        annotation, keypoint = where
        x, y, v = self.keypoints[annotation, keypoint]
        return f"{self.describe(annotation)}: {self.category['keypoints'][keypoint]} x {x:g}, y {y:g}, v {v:g}"

    def select_persons(self) -> tuple[BoolArray, dict[str, int]]:
        """Chooses the annotations to train and test on: valid, not a crowd, with a labeled keypoint.

        Returns:
            Which annotations (A,) these are, and how many others there are, by reason.
        """
        faulty = ~self.is_valid | (self.image_index < 0)
        crowd = ~faulty & self.crowd
        unlabeled = ~faulty & ~crowd & (self.num_labeled == 0)
        left_out = {"crowd": int(crowd.sum()), "no labeled keypoints": int(unlabeled.sum())}
        for reason, count in (("of other categories", self.other_category), ("with errors", int(faulty.sum()))):
            if count:
                left_out[reason] = count
        return ~(faulty | crowd | unlabeled), left_out


def read_annotations(file: CocoFile, images: ImageTable, category: dict[str, Any], log: FindingLog) -> AnnotationTable:
    """The annotations of a category; those without a valid category_id are logged and not among them."""
    records = objects(file.annotations, "annotations", log)
    category_id, num_keypoints = category["id"], len(category["keypoints"])
    category_ids = [record.get("category_id") for record in records]
    bad = invalid_ids(category_ids, isinstance(category_id, str))
    log.add(
        "error",
        "annotation without a valid category_id",
        np.flatnonzero(bad),
        lambda index: f"annotation {short(records[index].get('id'))}: {value_of(records[index], 'category_id')}",
        f"Write the id of its category (persons: {category_id}).",
    )
    of_category = [not skip and value == category_id for value, skip in zip(category_ids, bad, strict=True)]
    other_category = len(records) - int(bad.sum()) - sum(of_category)
    records = [record for record, keep in zip(records, of_category, strict=True) if keep]

    def column(key: str) -> list[Any]:
        return [record.get(key) for record in records]

    invalid = {}
    image_ids, ids = column("image_id"), column("id")
    invalid["id"] = invalid_ids(ids)
    invalid["image_id"] = invalid_ids(image_ids, images.have_text_ids)
    image_index = images.find_ids(image_ids, invalid["image_id"])
    keypoints, invalid["keypoints"] = number_rows(column("keypoints"), 3 * num_keypoints)
    boxes, _ = number_rows(column("bbox"), 4)
    invalid["bbox"] = np.logical_not(plausible(boxes).all(axis=1))
    boxes[invalid["bbox"]] = np.nan
    areas, invalid["area"] = number_column(column("area"))
    crowd, _ = number_column([int(value) if isinstance(value, bool) else value for value in column("iscrowd")])
    invalid["iscrowd"] = (crowd != 0) & (crowd != 1)
    counts, invalid["num_keypoints"] = number_column(column("num_keypoints"))
    return AnnotationTable(
        category=category,
        images=images,
        records=records,
        other_category=other_category,
        image_index=image_index,
        ids=np.array([0 if skip else value for value, skip in zip(ids, invalid["id"], strict=True)], dtype=np.int64),
        boxes=boxes,
        areas=areas,
        crowd=crowd == 1,
        num_keypoints=counts,
        keypoints=keypoints.reshape(-1, num_keypoints, 3),
        invalid=invalid,
    )


def log_invalid_values(
    table: AnnotationTable, log: FindingLog, keys: Collection[str], where: BoolArray | None = None
) -> None:
    """Logs the annotations that lack one of the keys, have a value of another form, or keypoints that are not finite.

    Args:
        table: the annotations.
        log: takes the errors.
        keys: what every annotation must have.
        where: (A,) the annotations that must have it; None is all.
    """
    records = table.records
    count = table.keypoints.shape[1]
    advice = {
        "id": "Every annotation needs an integer id.",
        "image_id": "Write the id of the annotation's image.",
        "keypoints": f"The category has {count} keypoints: write {3 * count} numbers (x, y, v each), 0, 0, 0 for a "
        "keypoint that is not labeled.",
        "bbox": "A box is four finite numbers: x, y, width, height in pixels.",
        "area": "OKS needs the area of the person's mask in square pixels, or of the box without one.",
        "iscrowd": "Write 0 for a person, 1 for a crowd; COCO's evaluation asks for it.",
        "num_keypoints": "Write the number of keypoints with v > 0; COCO's evaluation asks for it.",
    }
    required = np.ones(len(records), dtype=bool) if where is None else where
    for key in keys:
        bad = table.invalid[key] & required
        missing = np.array([key not in record for record in records], dtype=bool) if bad.any() else bad
        for kind, culprits in ((f"'{key}' missing", bad & missing), (f"'{key}' of the wrong form", bad & ~missing)):

            def describe(index: int, key: str = key) -> str:
                return f"{table.describe(index)}: {value_of(records[index], key)}"

            log.add("error", kind, np.flatnonzero(culprits), describe, advice[key])
    finite = plausible(table.keypoints[..., :2]).all(axis=-1) & np.isfinite(table.keypoints[..., 2])
    log.add(
        "error",
        "keypoint at NaN, infinity or beyond any photo",
        np.argwhere(~finite & (required & ~table.invalid["keypoints"])[:, None]),
        table.describe_keypoint,
        "Write image pixels, and 0, 0, 0 for a keypoint that is not labeled.",
    )


def objects(values: Sequence[Any], part: str, log: FindingLog) -> list[Record]:
    """The JSON objects of a list; other values are logged."""
    log.add(
        "error",
        f"entry of '{part}' that is not an object",
        [index for index, value in enumerate(values) if not isinstance(value, Mapping)],
        lambda index: f"{part}[{index}] is {short(values[index])}",
        "Each entry is a JSON object; remove or repair it.",
    )
    return [value for value in values if isinstance(value, Mapping)]


def value_of(record: Record, key: str) -> str:
    """A value of a record as errors show it."""
    return f"{key} {short(record[key])}" if key in record else f"no {key}"


def _file_name(record: Record) -> str:
    """The file name of an image's record; "" unless it is text without NUL that UTF-8 can hold."""
    name = record.get("file_name")
    if not isinstance(name, str) or "\0" in name:
        return ""
    try:
        name.encode()
    except UnicodeEncodeError:
        return ""
    return name

"""Reading of COCO annotation files and of their images.

A `CocoFile` holds the unchanged records of a file. The functions of this module and of `coco_annotations` convert them
to columns and log missing and invalid values; the caller reports these (`posedy check`) or raises them.
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
from posedy.data.tables import BoolArray, find_duplicates, invalid_ids, load_json, number_column

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
        """Reads a COCO annotation file, or wraps its content if that is given instead of a path.

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
    """Loads a COCO file as JSON; invalid JSON raises CocoFileError.

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
        """Whether the image ids are strings instead of integers."""
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

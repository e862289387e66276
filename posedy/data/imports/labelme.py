"""Reading of Labelme's JSON files, one for each image.

Keypoints are shapes of the type point, named by their label; a rectangle, or the one around an oriented rectangle, is
the box of a person. Shapes with the same group_id are one person. https://github.com/wkentaro/labelme
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from posedy.data.imports.grouping import BoxShape, KeypointShape, group_shapes
from posedy.data.imports.structure import (
    ErrorLog,
    ImportedFile,
    ImportedImage,
    ImportedKeypoint,
    ImportFileError,
    read_size,
)
from posedy.data.issues import short_repr
from posedy.data.tables import load_json

OCCLUDED_FLAGS = ("occluded", "hidden")
"""Flags and descriptions of a point that mark it as occluded."""
_VISIBILITY_OF_TEXT = {"0": 0, "1": 1, "2": 2, **dict.fromkeys(OCCLUDED_FLAGS, 1)}


def read_labelme(path: Path) -> ImportedFile:
    """Reads the Labelme files of a folder and its subfolders in the order of the paths, or one file.

    Raises:
        OSError: if a file cannot be read.
        ImportFileError: if a file is invalid, or the folder has none.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.json") if not file.name.startswith("."))
    errors = ErrorLog(path)
    reader = _FileReader(errors)
    images = []
    for file in files:
        content = _load(file)
        if is_labelme(content):
            images.append(reader.read(file, content))
        elif file == path:
            raise ImportFileError(
                f"{path}: expected an object with 'shapes' and 'imagePath', got {short_repr(content)}"
            )
        else:
            reader.left_out["other JSON files"] += 1
    errors.raise_errors()
    if not images:
        raise ImportFileError(f"{path} has no JSON file of Labelme: expected an object with 'shapes' and 'imagePath'")
    folders = [image.path.parent for image in images if image.path is not None]
    return ImportedFile(path, Path(os.path.commonpath(folders)), tuple(images), left_out=reader.left_out)


def is_labelme(content: Any) -> bool:
    """Returns whether JSON content is that of a file of Labelme."""
    return isinstance(content, Mapping) and isinstance(content.get("shapes"), list)


def _load(path: Path) -> Any:
    try:
        return load_json(path)
    except ValueError as error:
        raise ImportFileError(f"{path} is not a JSON file ({error}): save it again in Labelme") from error


class _FileReader:
    """Reads files.

    Attributes:
        left_out: number of other shapes and files.
    """

    def __init__(self, errors: ErrorLog) -> None:
        self.left_out: Counter[str] = Counter()
        self._errors = errors

    def read(self, file: Path, content: Mapping[str, Any]) -> ImportedImage:
        """Reads an image and its persons."""
        name = content.get("imagePath")
        if not isinstance(name, str) or not name:
            self._errors.add("missing value", f"{file}: imagePath, got {short_repr(name)}")
            name = file.with_suffix(".jpg").name
        name = name.replace("\\", "/")
        path = Path(os.path.abspath(file.parent / name))  # noqa: PTH100  (resolve() would follow links)
        size = read_size(content.get("imageWidth"), content.get("imageHeight"), str(file), self._errors)
        keypoints: list[KeypointShape] = []
        boxes: list[BoxShape] = []
        for index, shape in enumerate(content["shapes"]):
            where = f"{file}: shape {index + 1}"
            label = shape.get("label") if isinstance(shape, Mapping) else None
            if not isinstance(label, str) or not label:
                self._errors.add("invalid entry", f"{where}: expected an object with a label, got {short_repr(shape)}")
                continue
            kind = shape.get("shape_type")
            where = f"{where} ({label})"
            if kind == "point":
                keypoints.extend(self._read_point(shape, label, where))
            elif kind in ("rectangle", "oriented_rectangle"):
                boxes.extend(self._read_rectangle(shape, label, where))
            else:
                self.left_out[f"shapes of type {kind}"] += 1
        persons = group_shapes(keypoints, boxes, self._errors)
        return ImportedImage(str(file), (path.name,), size, persons, path)

    def _read_point(self, shape: Mapping[str, Any], label: str, where: str) -> Iterator[KeypointShape]:
        pairs, v = self._read_pairs(shape, where), _visibility(shape)
        if len(pairs) > 1:
            self._errors.add("invalid entry", f"{where}: expected one point, got {len(pairs)}")
        elif pairs and v:
            yield KeypointShape(label, ImportedKeypoint(where, *pairs[0], v), shape.get("group_id"))

    def _read_rectangle(self, shape: Mapping[str, Any], label: str, where: str) -> Iterator[BoxShape]:
        pairs = self._read_pairs(shape, where)
        if len(pairs) in (2, 4):
            xs, ys = zip(*pairs, strict=True)
            yield BoxShape(where, label, (min(xs), min(ys), max(xs), max(ys)), shape.get("group_id"))
        elif pairs:
            self._errors.add("invalid entry", f"{where}: expected 2 or 4 corners, got {len(pairs)}")

    def _read_pairs(self, shape: Mapping[str, Any], where: str) -> list[tuple[float, float]]:
        """Returns the points of a shape; none after logging an error."""
        points, group = shape.get("points"), shape.get("group_id")
        points = points if isinstance(points, list) else []
        are_pairs = all(isinstance(pair, list) and len(pair) == 2 for pair in points)
        if not points or not are_pairs or not (group is None or isinstance(group, int | str)):
            got = f"points {short_repr(shape.get('points'))}, group_id {short_repr(group)}"
            self._errors.add("invalid entry", f"{where}: expected points [x, y] and a number as group_id, got {got}")
            return []
        pairs = []
        for pair in points:
            numbers = self._errors.numbers(pair, where)
            if numbers is None:
                return []
            pairs.append((numbers[0], numbers[1]))
        return pairs


def _visibility(shape: Mapping[str, Any]) -> int:
    """Returns 1 for a point with an occluded flag or description, 0, 1 or 2 as described, and else 2."""
    flags, description = shape.get("flags"), shape.get("description")
    if isinstance(flags, Mapping) and any(flags.get(name) is True for name in OCCLUDED_FLAGS):
        return 1
    return _VISIBILITY_OF_TEXT.get(description.strip().lower(), 2) if isinstance(description, str) else 2

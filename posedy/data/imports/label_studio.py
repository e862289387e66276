"""Reading of Label Studio's export "JSON": a list of tasks with KeyPointLabels and RectangleLabels.

Coordinates are percent of the image. The keypoints of a person have the region of its rectangle as parent (parentID),
or are connected by relations. A turned view (image_rotation) does not change them.
https://labelstud.io/guide/task_format
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from posedy.data.imports.grouping import BoxShape, KeypointShape, group_shapes
from posedy.data.imports.structure import (
    Box,
    ErrorLog,
    ImportedFile,
    ImportedImage,
    ImportedKeypoint,
    ImportFileError,
    read_size,
    rotate_box,
)
from posedy.data.issues import short_repr
from posedy.image_paths import IMAGE_SUFFIXES

OCCLUDED_CHOICES = ("occluded", "hidden")
"""Choices of a region (perRegion) that mark a keypoint as occluded."""
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_READ = ("keypointlabels", "rectanglelabels", "relation", "choices")


def read_label_studio(path: Path, content: Any) -> ImportedFile:
    """Reads the JSON content of an export of Label Studio.

    Args:
        path: the file.
        content: its JSON content.

    Raises:
        ImportFileError: if it is invalid.
    """
    tasks = content if isinstance(content, list) else [content]
    for index, task in enumerate(tasks):
        if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
            raise ImportFileError(
                f"{path}: entry {index + 1}: expected a task with 'data' and 'annotations', got {short_repr(task)}: "
                "export as JSON, not as JSON-MIN or CSV"
            )
    errors = ErrorLog(path)
    reader = _TaskReader(errors)
    images = [image for task in tasks if (image := reader.read(task)) is not None]
    errors.raise_errors()
    notes = []
    if reader.num_rotated:
        notes.append(
            f"the view of {reader.num_rotated} images was turned (image_rotation): their coordinates are taken as "
            "those of the image that was not turned, which Label Studio writes since 2021"
        )
    return ImportedFile(path, path.parent, tuple(images), left_out=reader.left_out, notes=tuple(notes))


def image_names(reference: str) -> tuple[str, ...]:
    """Returns the names that the image of a task may have in its folder, the likeliest first; none for no path.

    Label Studio adds eight digits to the names of uploaded files; files of a local storage have a path after ?d=.
    """
    parts = urlsplit(reference)
    local = parse_qs(parts.query).get("d")
    path = (local[0] if local else unquote(parts.path)).replace("\\", "/").strip("/")
    pieces = [piece for piece in path.split("/") if piece not in ("", ".", "..")]
    endings = tuple("/".join(pieces[index:]) for index in range(len(pieces)))  # the longest first
    if local or not endings:
        return endings
    if "upload/" in path or "/" not in reference:
        return tuple(dict.fromkeys([_UPLOAD_PREFIX.sub("", endings[-1]), endings[-1]]))
    return (endings[-1], *endings[:-1])


class _TaskReader:
    """Reads tasks.

    Attributes:
        left_out: number of tasks, annotations and regions that are not read, by reason.
        num_rotated: number of images with a turned view.
    """

    def __init__(self, errors: ErrorLog) -> None:
        self.left_out: Counter[str] = Counter()
        self.num_rotated = 0
        self._errors = errors

    def read(self, task: Mapping[str, Any]) -> ImportedImage | None:
        """Reads the annotation of a task, None if it has none."""
        where = f"task {task.get('id')}"
        annotation = self._choose(task)
        if annotation is None:
            return None
        reference = _find_reference(task["data"])
        names = image_names(reference) if reference else ()
        if not names:
            self._errors.add("missing value", f"{where}: data.image, got {short_repr(task['data'])}")
            return None
        where = f"{where} ({names[0]})"
        regions = annotation.get("result")
        if not isinstance(regions, list) or not all(isinstance(region, Mapping) for region in regions):
            self._errors.add("invalid entry", f"{where}: result {short_repr(regions)}")
            return None
        size = self._read_size(regions, where)
        if size is None and any(region.get("type") in _READ[:2] for region in regions):
            return None
        groups = _group_regions(regions)
        occluded = {_identity(region, "id") for region in regions if _is_occluded(region)}
        keypoints: list[KeypointShape] = []
        boxes: list[BoxShape] = []
        for region in regions:
            kind, identity = region.get("type"), _identity(region, "id")
            item = f"{where}, region {identity}"
            group = groups.get(identity)
            if kind == "keypointlabels" and size:
                keypoints.extend(self._read_keypoint(region, size, group, 1 if identity in occluded else 2, item))
            elif kind == "rectanglelabels" and size:
                boxes.extend(self._read_box(region, size, group, item))
            elif kind not in _READ:
                self.left_out[f"regions of type {kind}"] += 1
        self.num_rotated += any(region.get("image_rotation") not in (None, 0) for region in regions)
        return ImportedImage(where, names, size, group_shapes(keypoints, boxes, self._errors))

    def _choose(self, task: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the ground truth among the annotations of a task, or the first."""
        annotations = task.get("annotations", task.get("completions"))
        listed = [value for value in annotations if isinstance(value, Mapping)] if isinstance(annotations, list) else []
        submitted = [value for value in listed if not value.get("was_cancelled")]
        self.left_out["skipped annotations"] += len(listed) - len(submitted)
        if not submitted:
            self.left_out["tasks without an annotation"] += 1
            return None
        self.left_out["further annotations of a task"] += len(submitted) - 1
        return next((value for value in submitted if value.get("ground_truth")), submitted[0])

    def _read_size(self, regions: list[Mapping[str, Any]], where: str) -> tuple[int, int] | None:
        sizes = [
            (region.get("original_width"), region.get("original_height"))
            for region in regions
            if region.get("type") in _READ[:2]
        ]
        if not sizes:
            return None
        if any(size != sizes[0] for size in sizes):
            self._errors.add("invalid entry", f"{where}: regions of images of several sizes: {short_repr(sizes)}")
            return None
        width, height = sizes[0]
        if width is None or height is None:
            self._errors.add("missing value", f"{where}: original_width, original_height")
        return read_size(width, height, where, self._errors)

    def _read_keypoint(
        self, region: Mapping[str, Any], size: tuple[int, int], group: int | None, v: int, where: str
    ) -> Iterable[KeypointShape]:
        value = region.get("value")
        label = _label(value, "keypointlabels")
        numbers = self._errors.numbers(_values(value, ("x", "y")), f"{where}: x, y")
        if label is None:
            self._errors.add("missing value", f"{where}: keypointlabels with one label")
        elif numbers is not None:
            x, y = (number / 100 * side for number, side in zip(numbers, size, strict=True))
            yield KeypointShape(label, ImportedKeypoint(f"{where} ({label})", x, y, v), group)

    def _read_box(
        self, region: Mapping[str, Any], size: tuple[int, int], group: int | None, where: str
    ) -> Iterable[BoxShape]:
        value = region.get("value")
        label = _label(value, "rectanglelabels")
        rotation = value.get("rotation") if isinstance(value, Mapping) else None
        values = [*_values(value, ("x", "y", "width", "height")), rotation or 0]
        numbers = self._errors.numbers(values, f"{where}: x, y, width, height, rotation")
        if label is None:
            self._errors.add("missing value", f"{where}: rectanglelabels with one label")
        elif numbers is not None:
            yield BoxShape(where, label, _to_box(numbers, size), group)


def _to_box(numbers: list[float], size: tuple[int, int]) -> Box:
    """Converts x, y, width, height in percent, and the degrees of a rotation about x, y, to a box."""
    x, y, width, height = (number / 100 * size[index % 2] for index, number in enumerate(numbers[:4]))
    return rotate_box((x, y, x + width, y + height), numbers[4], (x, y))


def _group_regions(regions: list[Mapping[str, Any]]) -> dict[str | int | None, int]:
    """Returns the number of each region's group: those connected by parentID or relations; other regions have none."""
    shapes = [_identity(region, "id") for region in regions if region.get("type") in _READ[:2]]
    number_of = {identity: index for index, identity in enumerate(shapes) if identity is not None}
    links = [(_identity(region, "id"), _identity(region, "parentID")) for region in regions]
    links += [(_identity(region, "from_id"), _identity(region, "to_id")) for region in regions]
    linked = set()
    for first, second in links:
        if first not in number_of or second not in number_of:
            continue
        linked |= {first, second}
        old, new = number_of[second], number_of[first]
        number_of = {identity: new if number == old else number for identity, number in number_of.items()}
    return {identity: number for identity, number in number_of.items() if identity in linked}


def _identity(region: Mapping[str, Any], key: str) -> str | int | None:
    value = region.get(key)
    return value if isinstance(value, str | int) else None


def _is_occluded(region: Mapping[str, Any]) -> bool:
    value = region.get("value")
    choices = value.get("choices") if isinstance(value, Mapping) else None
    return isinstance(choices, list) and any(str(choice).lower() in OCCLUDED_CHOICES for choice in choices)


def _label(value: Any, key: str) -> str | None:
    labels = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(labels, list) and len(labels) == 1 and isinstance(labels[0], str):
        return labels[0] or None
    return None


def _values(value: Any, keys: tuple[str, ...]) -> list[Any]:
    return [value.get(key) if isinstance(value, Mapping) else None for key in keys]


def _find_reference(data: Mapping[str, Any]) -> str | None:
    """Returns the reference to the image among the data of a task: `image`, or the first with an image's suffix."""
    texts = [value for value in (data.get("image"), *data.values()) if isinstance(value, str)]
    return next((text for text in texts if image_names(text)[:1] and _has_image_suffix(text)), None)


def _has_image_suffix(reference: str) -> bool:
    return image_names(reference)[0].lower().endswith(IMAGE_SUFFIXES)

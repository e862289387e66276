"""Writing of imported images and persons as the content of a COCO keypoint file."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posedy.data.conversion import ConvertedFile, create_annotation, create_category, read_image_headers
from posedy.data.imports.grouping import match_boxes
from posedy.data.imports.structure import (
    PERSON,
    ErrorLog,
    ImportedFile,
    ImportedImage,
    ImportedPerson,
    ImportFileError,
)
from posedy.data.issues import IssueLog
from posedy.data.orientation import ImageHeader
from posedy.geometry import FloatArray
from posedy.registration import nearest_name
from posedy.skeleton import COCO17

BOX_MARGIN = 0.1
"""Margin on each side of a box around keypoints, as a fraction of the larger extent of the keypoints."""
MIN_BOX_MARGIN = 0.01
"""Least margin, as a fraction of the image's longer side."""
KEYPOINT_TOLERANCE = 0.01
"""Keypoints may be outside their image by this fraction of its longer side."""


def to_coco(
    imported: ImportedFile,
    images: Path | None = None,
    label: str | None = None,
    keypoints: Sequence[str] | None = None,
) -> ConvertedFile:
    """Converts an export to the content of a COCO keypoint file.

    Images and persons are numbered from 1 in the order of the export. A person without a box has the box around its
    keypoints with a margin (`BOX_MARGIN`, `MIN_BOX_MARGIN`), clipped to the image. Areas are those of the boxes.

    Args:
        imported: the export.
        images: the folder that file names are relative to, which must have all images. None is that of the export;
            images that are not in it keep the recorded size.
        label: the label to convert; None is the only one, or person.
        keypoints: all keypoint names in their order; None is the export's order, or that of the first appearance.

    Raises:
        ImportFileError: if a label or a value is invalid; the message lists every kind of error with the first items.
    """
    errors = ErrorLog(imported.source)
    label = _choose_label(imported, label)
    selected = [_select(image, label) for image in imported.images]
    for problem in (person.problem for image in selected for person in image.persons):
        if problem is not None:
            errors.add("unnamed keypoints", problem)
    errors.raise_errors()
    names, notes = _order_names(imported, selected, label, keypoints, errors)
    errors.raise_errors()
    located = _locate(selected, imported.image_dir if images is None else images, images is not None, errors)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for place in located:
        image, header = place.image, place.header
        if header is None:
            counts["images without persons and without a size"] += 1
            continue
        records.append(
            {"id": len(records) + 1, "file_name": place.name, "width": header.width, "height": header.height}
        )
        for person in image.persons:
            if person.box is None and not person.keypoints:
                counts["without box and keypoints"] += 1
                continue
            counts["boxes around keypoints"] += person.box is None
            found = _to_annotation(person, names, header, errors)
            annotations.append({"id": len(annotations) + 1, "image_id": len(records), **found})
    errors.raise_errors()
    left_out = {
        "of other labels": sum(_num_other_label(image, label) for image in imported.images),
        "without box and keypoints": counts["without box and keypoints"],
        **imported.left_out,
        "images without persons and without a size": counts["images without persons and without a size"],
    }
    return ConvertedFile(
        content={
            "images": records,
            "annotations": annotations,
            "categories": [create_category(label, names, limbs=_limbs(imported, label, names))],
        },
        image_dir=imported.image_dir if images is None else images,
        left_out=left_out,
        notes=(*imported.notes, *notes, *_describe(located, counts)),
    )


def _limbs(imported: ImportedFile, label: str, names: Sequence[str]) -> list[tuple[str, str]]:
    return [limb for limb in imported.limbs.get(label, ()) if set(limb) <= set(names)]


def _choose_label(imported: ImportedFile, label: str | None) -> str:
    """Returns the label to convert among those of objects with keypoints, or else of all boxes."""
    persons = [person for image in imported.images for person in image.persons]
    labels = list(dict.fromkeys(person.label for person in persons if person.label and person.keypoints))
    labels = labels or list(dict.fromkeys(person.label for person in persons if person.label))
    known = list(dict.fromkeys([*labels, *imported.keypoint_names]))
    if label is not None:
        if known and label not in known:
            raise ImportFileError(
                f"{imported.source} has no label {label!r} (--class): the labels are {', '.join(known)}; the nearest "
                f"name is {nearest_name(label, known)!r}"
            )
        return label
    if PERSON in labels or not labels:
        return PERSON if PERSON in labels or not known else known[0]
    if len(labels) > 1:
        raise ImportFileError(f"{imported.source} has the labels {', '.join(labels)}: choose one with --class")
    return labels[0]


def _select(image: ImportedImage, label: str) -> ImportedImage:
    """Returns an image with the persons of the label, and with those that have none."""
    return replace(image, persons=match_boxes([person for person in image.persons if person.label in (None, label)]))


def _num_other_label(image: ImportedImage, label: str) -> int:
    return sum(person.label not in (None, label) for person in image.persons)


def _order_names(
    imported: ImportedFile,
    images: Sequence[ImportedImage],
    label: str,
    keypoints: Sequence[str] | None,
    errors: ErrorLog,
) -> tuple[tuple[str, ...], list[str]]:
    """Returns the keypoint names and notes about their order."""
    used: dict[str, str] = {}
    for image in images:
        for person in image.persons:
            for name, keypoint in person.keypoints.items():
                used.setdefault(name, keypoint.where)
    declared = imported.keypoint_names.get(label, ())
    known = declared or tuple(used)
    if not known:
        raise ImportFileError(
            f"{imported.source} has no keypoints of label {label!r}: label keypoints, or choose --class"
        )
    expected = tuple(keypoints) if keypoints is not None else known
    for name, where in used.items():
        if name not in expected:
            errors.add("unknown keypoint", f"{where}: {name!r}, expected one of {', '.join(expected)}")
    if keypoints is not None:
        if not set(keypoints) & set(known):
            errors.add("unknown keypoint", f"none of --keypoints {','.join(keypoints)} is among {', '.join(known)}")
        missing = [name for name in expected if name not in used]
        return expected, [f"no person has the keypoints {', '.join(missing)}"] if missing else []
    if declared:
        return declared, []
    if set(known) == set(COCO17.keypoints):
        return COCO17.keypoints, ["the keypoints have the order of COCO's 17 keypoints"]
    return known, [
        f"the keypoints have the order of their first appearance: keep it with --keypoints {','.join(known)}"
    ]


@dataclass(frozen=True)
class _Place:
    """An image with its file name, and its header: None if it has no file and no recorded size."""

    image: ImportedImage
    name: str
    header: ImageHeader | None
    is_found: bool


def _locate(images: Sequence[ImportedImage], folder: Path, must_exist: bool, errors: ErrorLog) -> list[_Place]:
    """Finds the image files and their sizes."""
    root = Path(os.path.abspath(folder))  # noqa: PTH100  (resolve() would follow links)
    names = [_candidates(image, root) for image in images]
    found = [next((name for name in candidates if (root / name).is_file()), None) for candidates in names]
    log = IssueLog()
    headers = read_image_headers([root / name for name in dict.fromkeys(found) if name is not None], log)
    errors.raise_errors(log)
    places = []
    by_name: dict[str, list[str]] = defaultdict(list)
    for image, candidates, name in zip(images, names, found, strict=True):
        if name is None and must_exist:
            errors.add("missing image", f"{image.where}: no file {' or '.join(candidates[:3])} in {root}")
        header = _choose_header(image, headers[root / name] if name is not None else None, errors)
        places.append(_Place(image, name or candidates[0], header, name is not None))
        by_name[name or candidates[0]].append(image.where)
    for name, items in by_name.items():
        if len(items) > 1:
            errors.add("several items with one image", f"{name}: {', '.join(items[:3])}")
    errors.raise_errors()
    return places


def _candidates(image: ImportedImage, root: Path) -> list[str]:
    """Returns the names that the file of an image may have in a folder, the likeliest first."""
    inside = [image.path.relative_to(root).as_posix()] if image.path and image.path.is_relative_to(root) else []
    safe = [name for name in image.names if not name.startswith("/") and ".." not in name.split("/")]
    return list(dict.fromkeys([*inside, *safe])) or [image.names[-1].rpartition("/")[2]]


def _choose_header(image: ImportedImage, header: ImageHeader | None, errors: ErrorLog) -> ImageHeader | None:
    """Returns the header whose upright image is that of the annotations.

    Annotation tools show upright images, so that the recorded size is the upright one; if it is the stored one, the
    tool ignored the orientation. Without a recorded size, coordinates are in pixels as stored.
    """
    if header is None:
        if image.size is None and image.persons:
            errors.add("image without a size", image.where)
        return ImageHeader(*image.size) if image.size is not None else None
    if image.size is None or image.size == (header.width, header.height) != header.upright_size:
        return ImageHeader(header.width, header.height)
    if image.size != header.upright_size:
        size = f"{header.upright_size[0]} x {header.upright_size[1]}"
        errors.add("image of another size", f"{image.where}: recorded {image.size[0]} x {image.size[1]}, file {size}")
    return header


def _to_annotation(
    person: ImportedPerson, names: Sequence[str], header: ImageHeader, errors: ErrorLog
) -> dict[str, Any]:
    size = np.array(header.upright_size, dtype=np.float64)
    keypoints = np.zeros((len(names), 3))
    for index, name in enumerate(names):
        found = person.keypoints.get(name)
        if found is None:
            continue
        keypoints[index] = found.x, found.y, found.v
        outside = np.maximum(-keypoints[index, :2], keypoints[index, :2] - size).max()
        if outside > KEYPOINT_TOLERANCE * size.max():
            errors.add("keypoint outside its image", f"{found.where}: x {found.x:g}, y {found.y:g}, {_format(size)}")
    if person.box is None:
        box = _box_around(keypoints[keypoints[:, 2] > 0, :2], size)
    else:
        box = np.array(person.box, dtype=np.float64)
        if not (box[2:] > box[:2]).all():
            errors.add("invalid box", f"{person.where}: {person.box}")
        elif (box[2:] <= 0).any() or (box[:2] >= size).any():
            errors.add("box outside its image", f"{person.where}: {person.box}, {_format(size)}")
    return create_annotation(box, keypoints, header)


def _box_around(points: FloatArray, size: FloatArray) -> FloatArray:
    """Returns the box (4,) xyxy around keypoints (N, 2) with a margin, clipped to the image."""
    points = np.clip(points, 0.0, size)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = max(BOX_MARGIN * (high - low).max(), MIN_BOX_MARGIN * size.max())
    return np.concatenate([np.clip(low - margin, 0.0, size), np.clip(high + margin, 0.0, size)])


def _format(size: FloatArray) -> str:
    return f"image {size[0]:g} x {size[1]:g} (width x height)"


def _describe(places: Sequence[_Place], counts: Counter[str]) -> list[str]:
    """Returns notes about boxes, orientations and images that were not found."""
    notes = []
    boxes = counts["boxes around keypoints"]
    rotated = sum(place.header is not None and place.header.orientation != 1 for place in places)
    missing = sum(not place.is_found for place in places)
    if boxes:
        notes.append(f"boxes around the keypoints, with a margin, of persons without a box: {boxes}")
    if rotated:
        notes.append(f"{rotated} images have an EXIF orientation: coordinates were converted to pixels as stored")
    if missing:
        notes.append(
            f"{missing} images were not found: their EXIF orientation is ignored unless --images gives their folder"
        )
    return notes

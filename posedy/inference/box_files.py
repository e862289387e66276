"""Person boxes from a file in COCO's form, by photo.

Photos are known by their file names. An image id means nothing without the annotation file that gives it, so ids are
never read out of file names.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.tables import load_json, number_column, number_rows
from posedy.geometry import xywh_to_xyxy
from posedy.inference.boxes import checked_box_threshold

_PERSON = 1
"""COCO's category id of persons."""

BoxesAndScores = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class PhotoBoxes:
    """The boxes of a file.

    Attributes:
        path: the file.
        by_name: boxes (P, 4) xyxy in image pixels and scores (P,) of each photo that the file knows, by file name.
        sizes: (width, height) of the pixels that boxes count in, of each photo whose size is recorded, by file name.
        left_out: how many boxes of the file are not among them, by reason.
        lists_photos: whether photos without boxes are known too, as annotation files tell them.
    """

    path: Path
    by_name: Mapping[str, BoxesAndScores]
    sizes: Mapping[str, tuple[int, int]]
    left_out: Mapping[str, int]
    lists_photos: bool

    def of(self, photo: Path) -> BoxesAndScores | None:
        """The boxes of a photo, none of them if it has none, and None if the file does not know the photo.

        The photo's path must end in the file name; the longest such name counts.
        """
        name = self._name_of(photo)
        return None if name is None else self.by_name[name]

    def size_of(self, photo: Path) -> tuple[int, int] | None:
        """The recorded (width, height) of a photo, which its boxes count in; None if there is no record of it."""
        name = self._name_of(photo)
        return None if name is None else self.sizes.get(name)

    def _name_of(self, photo: Path) -> str | None:
        return name_of(photo, self.by_name)


def name_of(photo: Path, names: Container[str]) -> str | None:
    """The longest of the names that the photo's path ends in; None if there is none."""
    parts = photo.absolute().parts
    ends = (Path(*parts[start:]).as_posix() for start in range(len(parts)))
    return next((end for end in ends if end in names), None)


def boxes_from_file(path: str | Path, annotations: str | Path | None = None, threshold: float = 0.0) -> PhotoBoxes:
    """Reads person boxes.

    Args:
        path: a COCO annotation file, or a list of {"file_name" or "image_id", "bbox": [x, y, width, height], "score"}.
            The score is 1 where there is none. Entries of a list may have "width" and "height", the size of the photo
            that the box counts in. Persons are of the annotation file's category with keypoints or named
            person; in a list by itself they have no category_id, or 1.
        annotations: the annotation file of a list with image ids.
        threshold: boxes with lower scores are left out, and so are crowds and boxes without area.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if it is in another form; the message names the file and the entry; or if the threshold
            is not from 0 to 1.
    """
    checked_box_threshold(threshold)
    path = Path(path)
    content = _load(path)
    names: dict[Any, str] | None = None
    sizes: dict[str, tuple[int, int]] = {}
    person = _PERSON
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        if annotations is not None:
            raise ValueError(f"{path} is an annotation file itself: leave out the other one, {annotations}")
        names, sizes, person = _photos_and_category(content, path)
        entries = content["annotations"]
    elif isinstance(content, list):
        entries = content
        if annotations is not None:
            names, sizes, person = _photos_and_category(_load(Path(annotations)), Path(annotations))
    else:
        raise ValueError(
            f"{path} holds a {type(content).__name__} instead of a list of boxes or COCO's annotations and images"
        )
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: entry {index} is {entry!r:.60} instead of an object with bbox")
    rows, bad_rows = number_rows([entry.get("bbox") for entry in entries], 4)
    scores, bad_scores = number_column([entry.get("score", 1.0) for entry in entries])
    for key, bad, wanted in (("bbox", bad_rows, "[x, y, width, height]"), ("score", bad_scores, "a number")):
        for culprit in np.flatnonzero(bad):
            came = entries[culprit].get(key)
            raise ValueError(f"{path}: entry {culprit} has {key} {came!r:.60}, it must be {wanted}")
    with np.errstate(over="ignore", invalid="ignore"):  # such boxes are left out below
        boxes = xywh_to_xyxy(rows).astype(np.float32).reshape(-1, 4)
    usable = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(scores)

    of_photo: dict[str, list[int]] = defaultdict(list)
    photos = [_photo_of(entry, index, names, path) for index, entry in enumerate(entries)]
    if isinstance(content, list):
        sizes = _sizes_of_list(entries, photos, sizes, path)
    for name in names.values() if names is not None else ():
        of_photo[name] = []
    left_out: Counter[str] = Counter()
    for index, (entry, photo) in enumerate(zip(entries, photos, strict=True)):
        if photo is None:
            left_out[f"on photos that {Path(annotations or path).name} does not list"] += 1
            continue
        kept = of_photo[photo]
        if entry.get("category_id", person) != person:
            left_out["of another category"] += 1
        elif entry.get("iscrowd"):
            left_out["of crowds"] += 1
        elif not usable[index]:
            left_out["without area"] += 1
        elif scores[index] < threshold:
            left_out[f"with scores under {threshold:g}"] += 1
        else:
            kept.append(index)
    by_name = {name: (boxes[indices], scores[indices].astype(np.float32)) for name, indices in of_photo.items()}
    return PhotoBoxes(path, by_name, sizes, left_out, lists_photos=names is not None)


def named_images(annotations: Path) -> tuple[dict[str, int | str], dict[str, tuple[int, int]], int]:
    """Ids and recorded sizes of an annotation file's images, by their file names, and the category id of persons.

    Raises:
        OSError, ValueError: see `boxes_from_file`.
    """
    names, sizes, person = _photos_and_category(_load(annotations), annotations)
    return {name: image_id for image_id, name in names.items()}, sizes, person


def _load(path: Path) -> Any:
    try:
        return load_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _photo_of(entry: Mapping[str, Any], index: int, names: Mapping[Any, str] | None, path: Path) -> str | None:
    """The file name of an entry's photo; None if the list of photos does not have it."""
    if isinstance(entry.get("file_name"), str):
        return _normal(entry["file_name"])
    image_id = entry.get("image_id")
    if not isinstance(image_id, int | str):
        raise ValueError(f"{path}: entry {index} has neither a file_name nor an image_id")
    if names is None:
        raise ValueError(
            f"{path}: entry {index} names its photo by image_id {image_id!r}; which photo that is stands in the "
            "annotation file only: give it with --annotations FILE, or write file_name into the entries"
        )
    return names.get(image_id)


def _sizes_of_list(
    entries: Sequence[Mapping[str, Any]], photos: Sequence[str | None], known: Mapping[str, tuple[int, int]], path: Path
) -> dict[str, tuple[int, int]]:
    """The sizes that the annotation file knows and those that the entries of a list say; all of them must agree."""
    sizes = dict(known)
    for index, (entry, photo) in enumerate(zip(entries, photos, strict=True)):
        said = entry.get("width"), entry.get("height")
        if photo is None or said == (None, None):
            continue
        size = _size(*said)
        if size is None:
            raise ValueError(
                f"{path}: entry {index} has width {said[0]!r:.60} and height {said[1]!r:.60}: they are the size of its "
                "photo in whole pixels; write both, or none"
            )
        if sizes.setdefault(photo, size) != size:
            other = "{} x {}".format(*sizes[photo])
            raise ValueError(
                f"{path}: entry {index} counts in {size[0]} x {size[1]} pixels, but {photo} has {other} by "
                f"{'the annotation file' if photo in known else 'an entry before'}: all boxes of a photo count in the "
                "same pixels; make them again"
            )
    return sizes


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """The size if both are whole numbers from 1."""
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _photos_and_category(content: Any, path: Path) -> tuple[dict[Any, str], dict[str, tuple[int, int]], int]:
    """File names by image id, sizes by file name, and the category id of persons, of an annotation file."""
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise ValueError(f"{path} is not an annotation file: it has no list under 'images'")
    names: dict[Any, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for index, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or "id" not in image:
            raise ValueError(f"{path}: entry {index} of 'images' needs an id and a file_name, got {image!r:.60}")
        if not isinstance(image["id"], int | str):
            raise ValueError(
                f"{path}: entry {index} of 'images' has id {image['id']!r:.60}, it must be an integer or text"
            )
        name = names[image["id"]] = _normal(image["file_name"])
        size = _size(image.get("width"), image.get("height"))
        if size is not None:
            sizes[name] = size
    repeated = [name for name, count in Counter(names.values()).items() if count > 1]
    if repeated or len(names) < len(images):
        raise ValueError(f"{path}: two images have the same {'file_name ' + repeated[0] if repeated else 'id'}")
    listed = content.get("categories", [])
    if not isinstance(listed, list):
        raise ValueError(f"{path}: 'categories' is {listed!r:.60}, it must be a list of objects with id and name")
    categories = [category for category in listed if isinstance(category, dict)]
    for fits in (lambda category: category.get("keypoints"), lambda category: category.get("name") == "person"):
        found = [category.get("id") for category in categories if fits(category)]
        if len(found) == 1 and isinstance(found[0], int):
            return names, sizes, found[0]
    if categories:
        found_names = [category.get("name") for category in categories]
        raise ValueError(f"{path}: none or several of its categories {found_names} have keypoints or are named person")
    return names, sizes, _PERSON


def _normal(file_name: str) -> str:
    return PurePosixPath(file_name.replace("\\", "/")).as_posix()

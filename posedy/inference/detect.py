"""Person boxes of image files, in the forms that COCO's tools and `posedy predict --boxes` take."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posedy.geometry import xyxy_to_xywh
from posedy.images import read_photo, rgb_to_bgr

if TYPE_CHECKING:  # heavy
    from posedy.inference.detectors import CleanedDetector, Detector


@dataclass(frozen=True)
class Photo:
    """A photo to look at.

    Attributes:
        path: the file.
        file_name: the name that its boxes know it by.
        image_id: the id that its boxes know it by.
        upright: whether its boxes count in upright pixels, else in stored ones, without its EXIF orientation.
        recorded: (width, height) of the pixels that boxes must count in, if that is known.
    """

    path: Path
    file_name: str
    image_id: int | str
    upright: bool
    recorded: tuple[int, int] | None = None


def photos_by_themselves(paths: Sequence[Path]) -> list[Photo]:
    """Photos of no annotation file: upright, as `posedy demo` reads them, with ids from 1.

    Raises:
        ValueError: if two have the same name, by which boxes name them.
    """
    [(name, count)] = Counter(path.name for path in paths).most_common(1)
    if count > 1:
        raise ValueError(
            f"{count} photos are named {name}: boxes name photos without their folders; detect them folder by folder, "
            "or give an annotation file"
        )
    return [Photo(path, path.name, number, upright=True) for number, path in enumerate(paths, start=1)]


def photos_of_annotations(paths: Sequence[Path], annotations: Path) -> tuple[list[Photo], int]:
    """Photos by the ends of their paths, with the names and ids of an annotation file, and its category of persons.

    They are read as COCO readers do, without their EXIF orientation, so that boxes fit the annotations.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it does not know a photo, or two photos are the same of its images.
    """
    from posedy.inference.box_files import name_of, named_images

    ids, sizes, category = named_images(annotations)
    photos: dict[str, Photo] = {}
    for path in paths:
        name = name_of(path, ids)
        if name is None:
            raise ValueError(f"{annotations} has no image {path.name}: leave it out, or leave out --annotations")
        if name in photos:
            raise ValueError(
                f"{annotations}: {photos[name].path} and {path} are both its image {name}: give one folder of photos"
            )
        photos[name] = Photo(path, name, ids[name], upright=False, recorded=sizes.get(name))
    return list(photos.values()), category


def detect_photos(photos: Sequence[Photo], detector: "Detector", warn: Callable[[str], None]) -> "list[DetectedPhoto]":
    """The boxes of photos; one that cannot be read, or has another size than recorded, is left out.

    Args:
        photos: what to look at.
        detector: what finds persons; its boxes are cleaned as by `PoseEstimator`.
        warn: takes a line of text for each photo that is left out, with the reason.
    """
    from tqdm import tqdm

    from posedy.inference.detectors import CleanedDetector

    cleaned = CleanedDetector(detector)
    detected = []
    for photo in tqdm(photos, desc="detect", unit="photo", disable=None):
        try:
            detected.append(_detect(photo, cleaned))
        except (OSError, ValueError) as error:
            warn(f"{photo.path}: NOT DONE: {error}")
    return detected


def _detect(photo: Photo, detector: "CleanedDetector") -> "DetectedPhoto":
    image = rgb_to_bgr(read_photo(photo.path, honour_exif=photo.upright))
    height, width = image.shape[:2]
    if photo.recorded not in (None, (width, height)):
        raise ValueError(
            f"the annotation file records {photo.recorded[0]} x {photo.recorded[1]} pixels, as stored the photo has "
            f"{width} x {height}: boxes would not fit the annotations; give the photo that they belong to"
        )
    boxes, scores = detector.detect(image)
    return DetectedPhoto(photo.file_name, photo.image_id, (width, height), boxes, scores)


_PERSON = {"id": 1, "name": "person"}
"""COCO's category of persons."""


@dataclass(frozen=True, eq=False)
class DetectedPhoto:
    """The boxes of a photo.

    Attributes:
        file_name: the name that boxes know it by.
        image_id: the id that boxes know it by.
        size: (width, height) of the photo in the pixels that the boxes count in.
        boxes: (P, 4) xyxy.
        scores: (P,).
    """

    file_name: str
    image_id: int | str
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def to_results(photos: Sequence[DetectedPhoto], category: int) -> list[dict[str, Any]]:
    """A list of boxes, as COCO's tools take results of the images of an annotation file.

    It says nothing of photos without boxes, which the annotation file knows.
    """
    return [
        {"image_id": photo.image_id, "file_name": photo.file_name, "width": photo.size[0], "height": photo.size[1]}
        | {"category_id": category, "bbox": box, "score": score}
        for photo in photos
        for box, score in _boxes_and_scores(photo)
    ]


def to_annotations(photos: Sequence[DetectedPhoto]) -> dict[str, Any]:
    """Images, annotations and the category of persons, as in an annotation file: it knows photos without boxes too."""
    images = [
        {"id": photo.image_id, "file_name": photo.file_name, "width": photo.size[0], "height": photo.size[1]}
        for photo in photos
    ]
    boxes = [(photo, *found) for photo in photos for found in _boxes_and_scores(photo)]
    annotations = [
        {"id": number, "image_id": photo.image_id, "category_id": _PERSON["id"], "bbox": box, "score": score}
        | {"area": box[2] * box[3], "iscrowd": 0}
        for number, (photo, box, score) in enumerate(boxes, start=1)
    ]
    return {"images": images, "annotations": annotations, "categories": [_PERSON]}


def _boxes_and_scores(photo: DetectedPhoto) -> list[tuple[list[float], float]]:
    """Each box as x, y, width, height, with its score."""
    return list(zip(xyxy_to_xywh(photo.boxes).tolist(), photo.scores.tolist(), strict=True))

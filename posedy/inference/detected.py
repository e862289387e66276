"""What a detector found on photos, in COCO's two forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.geometry import xyxy_to_xywh

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

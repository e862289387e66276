"""Person boxes of a COCO file, looked up by image file name.

Image ids are defined by annotation files only; they are never parsed from file names.
"""

import warnings
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.data.box_form import describe_misfit
from posedy.data.detections import read_box_file
from posedy.data.file_names import normalize_file_name
from posedy.data.orientation import ImageHeader
from posedy.inference.boxes import checked_box_threshold

BoxesAndScores = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class BoxesByName:
    """The person boxes of a file, by image file name.

    Attributes:
        path: the file.
        by_name: boxes (P, 4) xyxy in image pixels and scores (P,) of each image of the file, by file name.
        sizes: (width, height) of the pixel grid of the boxes, of each image whose size is recorded, by file name.
        left_out: number of boxes of the file that were dropped, by reason.
        has_all_images: whether images without boxes are included, as in an annotation file.
    """

    path: Path
    by_name: Mapping[str, BoxesAndScores]
    sizes: Mapping[str, tuple[int, int]]
    left_out: Mapping[str, int]
    has_all_images: bool

    def find(self, image_path: Path) -> BoxesAndScores | None:
        """Returns the boxes and scores of an image, or None if the file does not have the image.

        The image path must end in the file name; the longest such name is used.
        """
        name = match_file_name(image_path, self.by_name)
        return None if name is None else self.by_name[name]

    def find_size(self, image_path: Path) -> tuple[int, int] | None:
        """Returns the recorded (width, height) of an image, or None if there is no record."""
        name = match_file_name(image_path, self.by_name)
        return None if name is None else self.sizes.get(name)

    def warn_of_misfit(self, headers: Mapping[Path, ImageHeader]) -> None:
        """Warns if many boxes of image files do not fit these, with the likely cause."""
        boxes: list[NDArray[np.float32]] = [np.zeros((0, 4), dtype=np.float32)]
        sizes: list[NDArray[np.int64]] = [np.zeros((0, 2), dtype=np.int64)]
        for image, header in headers.items():
            found, size = self.find(image), header.upright_size
            if found is not None and self.find_size(image) in (None, size):  # another size fails when it is predicted
                boxes.append(found[0])
                sizes.append(np.tile(size, (len(found[0]), 1)))
        if misfit := describe_misfit(np.concatenate(boxes), np.concatenate(sizes)):
            warnings.warn(f"{self.path}: {misfit}", stacklevel=3)


def match_file_name(image_path: Path, names: Container[str]) -> str | None:
    """Returns the longest of the names that the image path ends in, or None if there is none."""
    parts = image_path.absolute().parts
    ends = (Path(*parts[start:]).as_posix() for start in range(len(parts)))
    return next((end for end in ends if end in names), None)


def read_boxes_by_name(path: str | Path, annotations: str | Path | None = None, threshold: float = 0.0) -> BoxesByName:
    """Reads person boxes from a COCO file.

    Args:
        path: a COCO annotation file, or a list of {"file_name" or "image_id", "bbox": [x, y, width, height], "score"}.
            Scores are 1 in a file without scores. Entries of a list may have "width" and "height", the size of the
            image. The person category of an annotation file is the one with keypoints or named person; entries of a
            list without an annotation file have no category_id, or 1. `posedy.data.detections.parse_boxes` has all
            rules.
        annotations: the annotation file of a list with image ids.
        threshold: boxes with lower scores are dropped, and so are crowds and boxes without area.

    Raises:
        OSError: if a file cannot be read.
        CocoFileError: if its format is invalid; the message names the file and the entries.
        ValueError: if the threshold is not from 0 to 1.
    """
    checked_box_threshold(threshold)
    path = Path(path)
    detections = read_box_file(path, None if annotations is None else Path(annotations), threshold)
    names = [normalize_file_name(name) for name in detections.images.names]
    order = np.argsort(detections.image_index, kind="stable")
    ends = np.cumsum(np.bincount(detections.image_index, minlength=len(names)))[:-1]
    rows_of_image = np.split(order, ends) if names else []
    return BoxesByName(
        path=path,
        by_name={
            name: (detections.boxes[rows], detections.scores[rows])
            for name, rows in zip(names, rows_of_image, strict=True)
        },
        sizes={
            name: (width, height)
            for name, (width, height) in zip(names, detections.images.sizes.tolist(), strict=True)
            if width > 0
        },
        left_out=detections.left_out,
        has_all_images=detections.has_annotation_file,
    )

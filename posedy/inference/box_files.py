"""Person boxes of a COCO file, by image file.

Images are known by their file names. An image id means nothing without the annotation file that gives it, so ids are
never read out of file names.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco_file import normal_name
from posedy.data.detections import read_box_file
from posedy.inference.boxes import checked_box_threshold

BoxesAndScores = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class BoxesByName:
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


def boxes_from_file(path: str | Path, annotations: str | Path | None = None, threshold: float = 0.0) -> BoxesByName:
    """Reads person boxes.

    Args:
        path: a COCO annotation file, or a list of {"file_name" or "image_id", "bbox": [x, y, width, height], "score"}.
            The score is 1 in a file without scores. Entries of a list may have "width" and "height", the size of the
            image that the box counts in. Persons are of the annotation file's category with keypoints or named
            person; in a list by itself they have no category_id, or 1. `posedy.data.detections.read_boxes` has all
            rules.
        annotations: the annotation file of a list with image ids.
        threshold: boxes with lower scores are left out, and so are crowds and boxes without area.

    Raises:
        OSError: if a file cannot be read.
        CocoFileError: if it is in another form; the message names the file and the entries.
        ValueError: if the threshold is not from 0 to 1.
    """
    checked_box_threshold(threshold)
    path = Path(path)
    found = read_box_file(path, None if annotations is None else Path(annotations), threshold)
    names = [normal_name(name) for name in found.images.names]
    order = np.argsort(found.image_index, kind="stable")
    ends = np.cumsum(np.bincount(found.image_index, minlength=len(names)))[:-1]
    of_image = np.split(order, ends) if names else []
    return BoxesByName(
        path=path,
        by_name={name: (found.boxes[rows], found.scores[rows]) for name, rows in zip(names, of_image, strict=True)},
        sizes={
            name: (width, height)
            for name, (width, height) in zip(names, found.images.sizes.tolist(), strict=True)
            if width > 0
        },
        left_out=found.left_out,
        lists_photos=found.lists_images,
    )

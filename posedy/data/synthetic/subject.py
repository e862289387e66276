"""What data sets can be drawn of: how a photo comes about, what its keypoints mean, and how the files are named."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from posedy.data.synthetic.animal import ANIMAL12
from posedy.data.synthetic.animal_scene import draw_animals
from posedy.data.synthetic.annotation import Photo
from posedy.data.synthetic.scene import draw_photo
from posedy.data.synthetic.simulated_detector import detect_people
from posedy.skeleton import COCO17

_CROWD_EVERY, _FAR_PEOPLE_EVERY = 12, 9  # photos; the first photo of a split has both


@dataclass(frozen=True)
class Subject:
    """A kind of drawn data set; what makes its photos are functions of a module, for they go to other processes.

    Attributes:
        name: in the plural.
        category: the record in the annotation files that says what the keypoints mean.
        splits: names of the photo folders for 'train' and 'val', which the annotation files end in too.
        draw: makes the photo with a number from its own random numbers.
        detect: simulates a detector's boxes for val, as COCO detections without `image_id`; None if there are none.
    """

    name: str
    category: dict[str, Any]
    splits: dict[str, str]
    draw: Callable[[np.random.Generator, int], Photo]
    detect: Callable[[np.random.Generator, Photo], list[dict[str, Any]]] | None = None

    @property
    def mark(self) -> str:
        """The description in `info` that tells a drawn set from others."""
        return f"{self.name} drawn by posedy"

    @property
    def folders(self) -> tuple[str, ...]:
        """All folders of a set; the annotations come last."""
        return (*self.splits.values(), "annotations")

    def keypoints_file(self, split: str) -> str:
        """The annotation file of 'train' or 'val', from the set's folder."""
        return f"annotations/{self.category['name']}_keypoints_{self.splits[split]}.json"

    @property
    def detections_file(self) -> str | None:
        """The file of detected boxes, from the set's folder."""
        return f"annotations/{self.category['name']}_detections_{self.splits['val']}.json" if self.detect else None

    def owns(self, path: str) -> bool:
        """Whether a file or folder of this name, from the set's folder, is part of a set."""
        files = {self.keypoints_file(split) for split in self.splits} | {self.detections_file}
        photo = re.fullmatch(r"([^/]+)/\d{12}\.jpg", path)
        return path in files or path in self.folders or (photo is not None and photo[1] in self.splits.values())


def _draw_people(rng: np.random.Generator, index: int) -> Photo:
    return draw_photo(rng, with_crowd=index % _CROWD_EVERY == 0, with_far_people=index % _FAR_PEOPLE_EVERY == 0)


def _draw_animals(rng: np.random.Generator, index: int) -> Photo:
    return draw_animals(rng)


PEOPLE = Subject(
    "people", COCO17.to_coco_category(), {"train": "train2017", "val": "val2017"}, _draw_people, detect_people
)
# The file leaves out what files of one's own mostly lack: sigmas, and pairs, which the names tell.
_ANIMAL_CATEGORY = {
    "supercategory": "animal",
    "id": 1,
    "name": "animal",
    "keypoints": list(ANIMAL12.keypoints),
    "skeleton": [[a + 1, b + 1] for a, b in ANIMAL12.limbs],
}
ANIMALS = Subject("animals", _ANIMAL_CATEGORY, {"train": "train", "val": "val"}, _draw_animals)
SUBJECTS = {subject.name: subject for subject in (PEOPLE, ANIMALS)}

"""How the files of a synthetic data set are named: COCO's tree, as of its 2017 release."""

import re

from posedy.skeleton import COCO17

MARK = "people drawn by posedy"
"""The description in `info` that tells a synthetic set from others."""
CATEGORY = COCO17.to_coco_category()
"""The record in the annotation files that says what the keypoints mean."""
SPLITS = {"train": "train2017", "val": "val2017"}
"""The folders of images of each split, which the annotation files end in too."""
FOLDERS = (*SPLITS.values(), "annotations")
"""All folders of a set; the annotations come last."""
DETECTIONS_FILE = f"annotations/person_detections_{SPLITS['val']}.json"
"""The simulated detector's boxes, from the set's folder."""


def keypoints_file(split: str) -> str:
    """The annotation file of 'train' or 'val', from the set's folder."""
    return f"annotations/person_keypoints_{SPLITS[split]}.json"


def owns(path: str) -> bool:
    """Whether a file or folder of this name, from the set's folder, is part of a set."""
    files = {*map(keypoints_file, SPLITS), DETECTIONS_FILE}
    image = re.fullmatch(r"([^/]+)/\d{12}\.jpg", path)
    return path in files or path in FOLDERS or (image is not None and image[1] in SPLITS.values())

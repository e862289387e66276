"""File names of a synthetic dataset: those of COCO 2017."""

import re

from posedy.skeleton import COCO17

MARK = "people drawn by posedy"
"""`info.description` of a synthetic dataset, by which it is recognized before it is replaced."""
CATEGORY = COCO17.to_coco_category()
"""The category record of the annotation files."""
SPLITS = {"train": "train2017", "val": "val2017"}
"""Image folder of each split, also the suffix of its annotation files."""
FOLDERS = (*SPLITS.values(), "annotations")
"""All folders of a dataset; annotations are last."""
DETECTIONS_FILE = f"annotations/person_detections_{SPLITS['val']}.json"
"""Boxes of the simulated detector, relative to the dataset's folder."""


def keypoints_file(split: str) -> str:
    """Returns the annotation file of 'train' or 'val', relative to the dataset's folder."""
    return f"annotations/person_keypoints_{SPLITS[split]}.json"


def is_dataset_path(path: str) -> bool:
    """Returns whether a path, relative to the dataset's folder, belongs to a dataset."""
    files = {*map(keypoints_file, SPLITS), DETECTIONS_FILE}
    image = re.fullmatch(r"([^/]+)/\d{12}\.jpg", path)
    return path in files or path in FOLDERS or (image is not None and image[1] in SPLITS.values())

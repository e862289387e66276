"""A small valid COCO keypoint file with synthetic images, for tests to modify."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from posedy.skeleton import COCO17

MAX_BYTES = 30_000_000  # the files have 6 kB


class CocoFolder(NamedTuple):
    """A dataset: the content and the path of its annotation file, and the image folder."""

    content: dict[str, Any]
    annotations: Path
    images: Path

    def write(self) -> None:
        self.annotations.write_text(json.dumps(self.content), encoding="utf-8")


def person(annotation_id: int, image_id: int, **changes: Any) -> dict[str, Any]:
    """A person with five labeled keypoints in an image of 64 x 48 pixels."""
    keypoints = np.zeros((17, 3))
    keypoints[:5] = [[20, 10, 2], [22, 9, 2], [18, 9, 1], [24, 11, 2], [16, 11, 1]]
    record = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [10.5, 5.25, 20.0, 30.0],
        "area": 300.0,
        "num_keypoints": 5,
        "keypoints": keypoints.reshape(-1).tolist(),
        "segmentation": [[10, 5, 30, 5, 30, 35]],
    }
    return record | changes


def coco_content() -> dict[str, Any]:
    """Four images (40 has no persons) and five annotations: three usable persons, a crowd, one without keypoints."""
    unlabeled = {"keypoints": [0] * 51, "num_keypoints": 0}
    names = {10: "a.jpg", 20: "sub/b.jpg", 30: "ünï ✓.jpg", 40: "empty.jpg"}
    return {
        "info": {"description": "synthetic"},
        "images": [{"id": id_, "file_name": name, "width": 64, "height": 48} for id_, name in names.items()],
        "annotations": [
            person(1, 10),
            person(2, 10, bbox=[0, 0, 64, 48], area_source="estimated"),
            person(3, 20),
            person(4, 20, iscrowd=1, segmentation={"size": [48, 64], "counts": [1, 2]}, **unlabeled),
            person(5, 30, **unlabeled),
        ],
        "categories": [COCO17.to_coco_category()],
    }


@pytest.fixture
def coco_folder(tmp_path: Path) -> CocoFolder:
    """A valid dataset in a temporary folder; `write()` writes its content after a change."""
    folder = CocoFolder(coco_content(), tmp_path / "persons.json", tmp_path / "images")
    for image in folder.content["images"]:
        path = folder.images / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(image["id"]).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    folder.write()
    return folder


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_BYTES

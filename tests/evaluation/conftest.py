"""COCO annotations with every case that COCOeval distinguishes, and noisy predictions of their ground truth."""

from typing import Any

import numpy as np
import pytest

from posedy.skeleton import COCO17

Annotations = dict[str, Any]


def _person(rng: np.random.Generator, annotation_id: int, image_id: int, labeled: float, crowd: bool) -> Annotations:
    x, y = rng.uniform(0, 300, 2)
    width, height = rng.uniform(20, 60, 2) * rng.choice([1, 1.5, 4])
    points = rng.uniform([x, y], [x + width, y + height], (17, 2)).round(1)
    visibility = np.where(rng.random(17) < labeled, rng.integers(1, 3, 17), 0)
    points[visibility == 0] = 0
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": int(crowd),
        "bbox": [float(x), float(y), float(width), float(height)],
        "area": float(width * height * rng.uniform(0.4, 0.8)),
        "keypoints": np.column_stack([points, visibility]).reshape(-1).tolist(),
        "num_keypoints": int((visibility > 0).sum()),
        "segmentation": [],
    }


@pytest.fixture
def annotations() -> Annotations:
    """Annotations of 12 images, one without persons, with labeled persons, unlabeled persons and crowds."""
    rng = np.random.default_rng(5)
    images = [{"id": int(i), "width": 640, "height": 480, "file_name": f"{i:012d}.jpg"} for i in range(10, 130, 10)]
    records = []
    for image in images[:-1]:
        for labeled, crowd in [(0.9, False), (0.5, False), (0.7, False), (0, False), (0, True), (0.3, True)]:
            if labeled == 0.9 or rng.random() < 0.6:
                records.append(_person(rng, 1000 + len(records), image["id"], labeled, crowd))
    return {"images": images, "annotations": records, "categories": [COCO17.to_coco_category()]}


@pytest.fixture
def noised_results(annotations: Annotations) -> list[Annotations]:
    """Ground truth with noise of different sizes and false positives; two images have no results."""
    rng = np.random.default_rng(6)
    results = []
    for person in annotations["annotations"]:
        if person["image_id"] in (20, 30):
            continue
        for _ in range(rng.integers(1, 4)):
            keypoints = np.array(person["keypoints"]).reshape(17, 3)
            keypoints[:, :2] += rng.normal(0, rng.choice([0.01, 0.04, 0.1]) * person["area"] ** 0.5, (17, 2))
            keypoints[:, 2] = rng.random(17)
            score = round(rng.random(), 1)
            results.append(
                {
                    "image_id": person["image_id"],
                    "category_id": 1,
                    "keypoints": keypoints.reshape(-1).tolist(),
                    "score": score,
                }
            )
    return results

"""A simulated person detector: true boxes with jitter and scores, some missed, some doubled, some false."""

from typing import Any

import numpy as np

from posedy.geometry import xywh_to_xyxy, xyxy_to_xywh
from tools.lab.synthetic.annotation import Photo
from tools.lab.synthetic.body import FloatArray

_MISSED, _DOUBLED, _FALSE_PER_PHOTO = 0.08, 0.06, 0.3


def detect_people(rng: np.random.Generator, photo: Photo) -> list[dict[str, Any]]:
    """COCO detection records of one photo without `image_id`; crowds are not detected."""
    height, width = photo.picture.shape[:2]
    found: list[tuple[FloatArray, float]] = []
    for record in photo.annotations:
        if record["iscrowd"] or rng.random() < _MISSED:
            continue
        box = xywh_to_xyxy(record["bbox"])
        # A detector is less sure of small people.
        sureness = np.clip(0.55 + record["bbox"][3] / 250, 0.5, 0.9)
        found.append((_jittered(rng, box, 0.03), rng.beta(14 * sureness, 14 * (1 - sureness))))
        if rng.random() < _DOUBLED:
            found.append((_jittered(rng, box, 0.1), rng.uniform(0.1, 0.5)))
    for _ in range(rng.poisson(_FALSE_PER_PHOTO)):
        size = rng.uniform(15, 120) * np.array([rng.uniform(0.3, 0.8), 1])
        corner = rng.uniform(0, 1, 2) * [width, height] - size / 2
        found.append((np.concatenate([corner, corner + size]), rng.uniform(0.02, 0.35)))
    detections = []
    for box, score in found:
        box = np.clip(box, 0, [width, height, width, height])
        detections.append(
            {
                "category_id": 1,
                "bbox": [float(side) for side in xyxy_to_xywh(box).round(2)],
                "score": round(float(score), 3),
            }
        )
    return detections


def _jittered(rng: np.random.Generator, box: FloatArray, spread: float) -> FloatArray:
    """The box with each side moved by a normal share of the box's width or height."""
    size = (box[2:] - box[:2])[[0, 1, 0, 1]]
    return box + size * rng.normal(0, spread, 4).clip(-0.25, 0.25)

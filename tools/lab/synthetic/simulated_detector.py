"""A simulated person detector: ground-truth boxes with jitter, missed detections, duplicates and false positives."""

from typing import Any

import numpy as np

from posedy.geometry import xywh_to_xyxy, xyxy_to_xywh
from tools.lab.synthetic.annotation import SyntheticImage
from tools.lab.synthetic.body import FloatArray

_MISSED, _DUPLICATED, _FALSE_PER_IMAGE = 0.08, 0.06, 0.3


def simulate_detections(rng: np.random.Generator, image: SyntheticImage) -> list[dict[str, Any]]:
    """Returns COCO detection records of an image without `image_id`; crowds are not detected."""
    height, width = image.image.shape[:2]
    candidates: list[tuple[FloatArray, float]] = []
    for record in image.annotations:
        if record["iscrowd"] or rng.random() < _MISSED:
            continue
        box = xywh_to_xyxy(record["bbox"])
        # scores of small people are lower
        mean_score = np.clip(0.55 + record["bbox"][3] / 250, 0.5, 0.9)
        candidates.append((_jitter(rng, box, 0.03), rng.beta(14 * mean_score, 14 * (1 - mean_score))))
        if rng.random() < _DUPLICATED:
            candidates.append((_jitter(rng, box, 0.1), rng.uniform(0.1, 0.5)))
    for _ in range(rng.poisson(_FALSE_PER_IMAGE)):
        size = rng.uniform(15, 120) * np.array([rng.uniform(0.3, 0.8), 1])
        corner = rng.uniform(0, 1, 2) * [width, height] - size / 2
        candidates.append((np.concatenate([corner, corner + size]), rng.uniform(0.02, 0.35)))
    detections = []
    for box, score in candidates:
        box = np.clip(box, 0, [width, height, width, height])
        detections.append(
            {
                "category_id": 1,
                "bbox": [float(side) for side in xyxy_to_xywh(box).round(2)],
                "score": round(float(score), 3),
            }
        )
    return detections


def _jitter(rng: np.random.Generator, box: FloatArray, spread: float) -> FloatArray:
    """Moves each side of a box by a normal random fraction of its width or height."""
    size = (box[2:] - box[:2])[[0, 1, 0, 1]]
    return box + size * rng.normal(0, spread, 4).clip(-0.25, 0.25)

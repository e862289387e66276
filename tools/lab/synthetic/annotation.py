"""Annotations of a synthetic image, derived from the final canvas as by an annotator."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.lab.synthetic.body import FloatArray
from tools.lab.synthetic.canvas import ZOOM, Canvas

MIN_AREA = 12.0  # square pixels; persons with a smaller visible area are not annotated
_MIN_VISIBLE_KEYPOINTS = 4  # persons with fewer are annotated without keypoints


@dataclass
class SyntheticImage:
    """A synthetic image with its ground truth.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        annotations: COCO annotation records without `id` and `image_id`.
        from_behind: for each annotation whether the person is seen from behind; False for crowds.
    """

    image: NDArray[np.uint8]
    annotations: list[dict[str, Any]] = field(default_factory=list)
    from_behind: list[bool] = field(default_factory=list)


def visible_region(canvas: Canvas, labels: range) -> tuple[NDArray[np.bool_], float, list[float]]:
    """Returns the mask of the canvas pixels with these labels, and its area and xywh box in image pixels."""
    mask = (canvas.labels >= labels.start) & (canvas.labels < labels.stop)
    x, y, width, height = (side / ZOOM for side in cv2.boundingRect(mask.view(np.uint8)))
    return mask, float(np.count_nonzero(mask)) / ZOOM**2, [x, y, width, height]


def inside_image(canvas: Canvas, points: FloatArray) -> NDArray[np.bool_]:
    """Returns which points (K, 2) lie inside the image."""
    width, height = canvas.size
    return np.asarray(((points >= 0) & (points <= [width - 1, height - 1])).all(axis=1))


def annotation_record(
    canvas: Canvas, labels: range, keypoints: FloatArray, visibility: NDArray[np.int64]
) -> dict[str, Any] | None:
    """Returns the COCO record of a person without `id` and `image_id`; None if the visible area is too small.

    Args:
        canvas: the final canvas.
        labels: labels of the person's parts on the canvas.
        keypoints: (K, 2) in image pixels.
        visibility: (K,) 2 visible, 1 occluded, 0 not labeled.
    """
    _, area, box = visible_region(canvas, labels)
    if area < MIN_AREA:
        return None
    # annotators do not guess occluded keypoints far from the visible region
    corner, extent = np.array(box[:2]), np.array(box[2:])
    near = ((keypoints >= corner - 0.1 * extent) & (keypoints <= corner + 1.1 * extent)).all(axis=1)
    visibility = np.where((visibility == 1) & ~near, 0, visibility)
    if np.count_nonzero(visibility == 2) < _MIN_VISIBLE_KEYPOINTS:
        visibility = np.zeros_like(visibility)
    triplets = np.column_stack([keypoints.round(2), visibility])
    triplets[visibility == 0] = 0
    return {
        "category_id": 1,
        "iscrowd": 0,
        "area": area,
        "bbox": box,
        "num_keypoints": int(np.count_nonzero(visibility)),
        "keypoints": [int(v) if v == int(v) else float(v) for v in triplets.ravel()],
    }

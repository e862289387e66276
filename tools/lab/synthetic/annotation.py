"""What a drawn photo says about its persons, read from the finished canvas as an annotator would."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.lab.synthetic.body import FloatArray
from tools.lab.synthetic.canvas import ZOOM, Canvas

MIN_AREA = 12.0  # image pixels; who shows less is not annotated
_MIN_VISIBLE_KEYPOINTS = 4  # who shows fewer is annotated without keypoints


@dataclass
class Photo:
    """A drawn photo with the truth about it.

    Attributes:
        picture: (H, W, 3) uint8 BGR.
        annotations: COCO annotation records without `id` and `image_id`.
        from_behind: for each annotation whether the person faces away from the viewer; False for crowds.
    """

    picture: NDArray[np.uint8]
    annotations: list[dict[str, Any]] = field(default_factory=list)
    from_behind: list[bool] = field(default_factory=list)


def visible(canvas: Canvas, labels: range) -> tuple[NDArray[np.bool_], float, list[float]]:
    """Where parts with these labels are seen on the canvas; the area and the xywh box of that in image pixels."""
    mask = (canvas.labels >= labels.start) & (canvas.labels < labels.stop)
    x, y, width, height = (side / ZOOM for side in cv2.boundingRect(mask.view(np.uint8)))
    return mask, float(np.count_nonzero(mask)) / ZOOM**2, [x, y, width, height]


def inside(canvas: Canvas, points: FloatArray) -> NDArray[np.bool_]:
    """Which points (K, 2) lie in the picture."""
    width, height = canvas.size
    return np.asarray(((points >= 0) & (points <= [width - 1, height - 1])).all(axis=1))


def annotation_record(
    canvas: Canvas, labels: range, points: FloatArray, flags: NDArray[np.int64]
) -> dict[str, Any] | None:
    """The COCO record of one person without `id` and `image_id`; None if hardly anything of the person is seen.

    Args:
        canvas: the finished picture.
        labels: of its parts on the canvas.
        points: (K, 2) keypoints in image pixels.
        flags: (K,) 2 seen, 1 covered, 0 not labeled.
    """
    _, area, box = visible(canvas, labels)
    if area < MIN_AREA:
        return None
    # An annotator does not guess hidden keypoints far from what is seen.
    corner, extent = np.array(box[:2]), np.array(box[2:])
    near = ((points >= corner - 0.1 * extent) & (points <= corner + 1.1 * extent)).all(axis=1)
    flags = np.where((flags == 1) & ~near, 0, flags)
    if np.count_nonzero(flags == 2) < _MIN_VISIBLE_KEYPOINTS:
        flags = np.zeros_like(flags)
    keypoints = np.column_stack([points.round(2), flags])
    keypoints[flags == 0] = 0
    return {
        "category_id": 1,
        "iscrowd": 0,
        "area": area,
        "bbox": box,
        "num_keypoints": int(np.count_nonzero(flags)),
        "keypoints": [int(v) if v == int(v) else float(v) for v in keypoints.ravel()],
    }

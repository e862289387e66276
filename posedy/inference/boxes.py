"""Validation of person boxes given by users, and cleaning of detectors' boxes."""

import numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.data.box_form import LARGEST_FRACTION, are_outside
from posedy.data.issues import count_reasons


def checked_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    """Validates boxes (P, 4) xyxy in image pixels and returns them as float32.

    An empty list has no boxes. Boxes may extend beyond the image.

    Raises:
        ValueError: if the shape is invalid, a number is not finite, or a box has no area; the message has the box's
            index.
    """
    values = _as_rows(boxes)
    checked = _as_float32(values)
    for index in np.flatnonzero(~np.isfinite(checked).all(axis=1)):
        raise ValueError(f"box {index} is not finite: {values[index].tolist()}")
    for index in np.flatnonzero(~_have_area(checked)):
        x, y, width, height = values[index].tolist()
        hint = ""
        if width > 0 and height > 0:
            hint = (
                f"; if these are COCO's x, y, width, height, the box is "
                f"{[x, y, x + width, y + height]}: convert them with posedy.geometry.xywh_to_xyxy"
            )
        raise ValueError(
            f"box {index} has no area: expected x1, y1, x2, y2 with x2 > x1 and y2 > y1, got "
            f"{values[index].tolist()}{hint}"
        )
    return checked


def check_boxes_meet_image(boxes: NDArray[np.float32], width: int, height: int) -> None:
    """Checks that boxes overlap an image of width x height pixels.

    Raises:
        ValueError: if a box lies outside the image, or boxes are in fractions of the image; the message has the box.
    """
    for index in np.flatnonzero(are_outside(boxes, np.array([width, height]))):
        raise ValueError(
            f"box {index} lies outside the image of {width} x {height} pixels (width x height): x1, y1, x2, y2 are "
            f"{boxes[index].tolist()}"
        )
    if len(boxes) and boxes.max() <= LARGEST_FRACTION < max(width, height):
        raise ValueError(f"expected boxes in pixels, got {boxes[0].tolist()}, which looks like fractions of the image")


def checked_box_scores(scores: ArrayLike | None, num_boxes: int) -> NDArray[np.float32]:
    """Validates the scores (P,) of P boxes and returns them as float32; None stands for scores of 1.

    Raises:
        ValueError: if the number of scores differs from that of boxes, or a score is not finite.
    """
    checked = _as_scores(scores, num_boxes)
    if not np.isfinite(checked).all():
        raise ValueError(f"the score of box {np.flatnonzero(~np.isfinite(checked))[0]} is not finite")
    return checked


def clean_detections(
    boxes: ArrayLike, scores: ArrayLike | None, width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, int]]:
    """Clips a detector's boxes to the image and drops the invalid ones.

    The returned boxes pass `checked_boxes` and `check_boxes_meet_image`.

    Args:
        boxes: (D, 4) xyxy in image pixels.
        scores: (D,); None stands for scores of 1.
        width: image width in pixels.
        height: image height in pixels.

    Returns:
        Boxes (P, 4), their scores (P,), and the number of dropped boxes by reason.

    Raises:
        ValueError: if boxes or scores have an invalid shape or are not numbers.
    """
    values = _as_float32(_as_rows(boxes))
    score_values = _as_scores(scores, len(values))
    clipped = np.clip(values, 0, np.array([width, height, width, height], dtype=np.float32))
    is_kept, dropped = count_reasons(
        {
            "not finite": ~(np.isfinite(values).all(axis=1) & np.isfinite(score_values)),
            "without area": ~_have_area(values),
            "outside the image": ~_have_area(clipped),
            "in fractions of the image instead of pixels": (clipped.max(axis=1, initial=0) <= LARGEST_FRACTION)
            & (max(width, height) > LARGEST_FRACTION),
        }
    )
    return clipped[is_kept], score_values[is_kept], {reason: count for reason, count in dropped.items() if count}


def _as_rows(boxes: ArrayLike) -> NDArray[np.float64]:
    """Converts boxes to an array (P, 4); an empty list has no boxes."""
    try:
        values = np.asarray(_without_grad(boxes), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected boxes (P, 4) of numbers x1, y1, x2, y2 in image pixels: {error}") from error
    if values.shape == (0,):
        values = values.reshape(0, 4)
    if values.ndim != 2 or values.shape[1] != 4:
        hint = ""
        if values.shape == (4,):
            hint = "; write [[x1, y1, x2, y2]] for a single box"
        elif values.ndim == 2 and values.shape[1] == 5:
            hint = "; give the fifth column as box_scores"
        raise ValueError(f"expected boxes (P, 4) xyxy in image pixels, got shape {values.shape}{hint}")
    return values


def _as_scores(scores: ArrayLike | None, num_boxes: int) -> NDArray[np.float32]:
    """Converts the scores of P boxes to an array (P,); None stands for scores of 1."""
    if scores is None:
        return np.ones(num_boxes, dtype=np.float32)
    try:
        values = np.asarray(_without_grad(scores), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected box scores to be numbers, one per box: {error}") from error
    if values.shape != (num_boxes,):
        raise ValueError(f"expected box scores of shape ({num_boxes},), one per box, got {values.shape}")
    return _as_float32(values)


def _without_grad(numbers: Any) -> Any:
    """Returns a tensor, such as that of a detector, on the CPU and without its gradient; also those of a list."""
    if isinstance(numbers, list | tuple):
        return [_without_grad(number) for number in numbers]
    if hasattr(numbers, "detach"):  # numpy has no bfloat16
        return numbers.detach().cpu().double().numpy()
    return numbers


def _as_float32(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Converts to float32; numbers beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _have_area(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))


BOX_THRESHOLD = 0.3
"""Default score threshold of detected boxes (`PoseEstimator`, `posedy predict`, the web page).

Most boxes with lower scores are not persons.
"""


def checked_box_threshold(threshold: float) -> float:
    """Validates a threshold of box scores and returns it.

    Raises:
        ValueError: if it is not a number from 0 to 1.
    """
    given: object = threshold
    if isinstance(given, bool) or not isinstance(given, numbers.Real) or not 0 <= threshold <= 1:  # also false for NaN
        raise ValueError(f"expected a box threshold from 0 to 1, got {threshold!r}")
    return threshold

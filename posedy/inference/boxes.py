"""Person boxes: those of users are validated, those of detectors cleaned; the score under which they are dropped."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.data.findings import count_reasons

_LARGEST_FRACTION = 1.5  # boxes with no larger number are taken for fractions of the image


def checked_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    """Boxes (P, 4) xyxy in image pixels as float32; an empty list is no box. They may reach beyond the image.

    Raises:
        ValueError: if the shape is another, a number is not finite, or a box has no area; the message names the box.
    """
    given = _as_rows(boxes)
    checked = _as_float32(given)
    for index in np.flatnonzero(~np.isfinite(checked).all(axis=1)):
        raise ValueError(f"box {index} is not finite: {given[index].tolist()}")
    for index in np.flatnonzero(~_have_area(checked)):
        x, y, width, height = given[index].tolist()
        hint = ""
        if width > 0 and height > 0:
            hint = (
                f"; if these are COCO's x, y, width, height, the box is "
                f"{[x, y, x + width, y + height]} (posedy.geometry.xywh_to_xyxy)"
            )
        raise ValueError(
            f"box {index} has no area: {given[index].tolist()} as x1, y1, x2, y2 needs x2 > x1 and y2 > y1{hint}"
        )
    return checked


def check_boxes_meet_image(boxes: NDArray[np.float32], width: int, height: int) -> None:
    """Rejects boxes that lie wholly beside the image of width x height pixels.

    Raises:
        ValueError: naming the first such box.
    """
    beside = (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, 0] >= width) | (boxes[:, 1] >= height)
    for index in np.flatnonzero(beside):
        raise ValueError(
            f"box {index}, {boxes[index].tolist()} as x1, y1, x2, y2, lies beside the image of {width} x {height} "
            "pixels"
        )
    if len(boxes) and boxes.max() <= _LARGEST_FRACTION:
        raise ValueError(f"boxes are in pixels, not in fractions of the image, got {boxes[0].tolist()}")


def checked_box_scores(scores: ArrayLike | None, num_boxes: int) -> NDArray[np.float32]:
    """Scores (P,) of P boxes as float32; 1 for each where none are given.

    Raises:
        ValueError: if there are more or fewer than boxes, or one is not finite.
    """
    checked = _as_scores(scores, num_boxes)
    if not np.isfinite(checked).all():
        raise ValueError(f"the score of box {np.flatnonzero(~np.isfinite(checked))[0]} is not finite")
    return checked


def clean_detections(
    boxes: ArrayLike, scores: ArrayLike | None, width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, int]]:
    """Clips a detector's boxes to the image and drops the invalid ones.

    What it returns passes the checks of the boxes that users give.

    Args:
        boxes: (D, 4) xyxy in image pixels.
        scores: (D,); 1 for each where None is given.
        width: of the image in pixels.
        height: of the image in pixels.

    Returns:
        Boxes (P, 4), their scores (P,), and how many boxes were dropped, by reason.

    Raises:
        ValueError: if boxes or scores have another shape or are no numbers.
    """
    given = _as_float32(_as_rows(boxes))
    given_scores = _as_scores(scores, len(given))
    clipped = np.clip(given, 0, np.array([width, height, width, height], dtype=np.float32))
    is_kept, dropped = count_reasons(
        {
            "not finite": ~(np.isfinite(given).all(axis=1) & np.isfinite(given_scores)),
            "without area": ~_have_area(given),
            "outside the image": ~_have_area(clipped),
            "in fractions of the image instead of pixels": clipped.max(axis=1, initial=0) <= _LARGEST_FRACTION,
        }
    )
    return clipped[is_kept], given_scores[is_kept], {reason: count for reason, count in dropped.items() if count}


def _as_rows(boxes: ArrayLike) -> NDArray[np.float64]:
    """Boxes (P, 4) as numbers; an empty list is no box."""
    try:
        given = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes are (P, 4) numbers x1, y1, x2, y2 in image pixels: {error}") from error
    if given.shape == (0,):
        given = given.reshape(0, 4)
    if given.ndim != 2 or given.shape[1] != 4:
        hint = ""
        if given.shape == (4,):
            hint = "; write [[x1, y1, x2, y2]] for a single box"
        elif given.ndim == 2 and given.shape[1] == 5:
            hint = "; give the fifth column as box_scores"
        raise ValueError(f"boxes are (P, 4) numbers x1, y1, x2, y2 in image pixels, got shape {given.shape}{hint}")
    return given


def _as_scores(scores: ArrayLike | None, num_boxes: int) -> NDArray[np.float32]:
    """Scores (P,) of P boxes as numbers; 1 for each where none are given."""
    if scores is None:
        return np.ones(num_boxes, dtype=np.float32)
    try:
        given = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"box scores are numbers, one for each box: {error}") from error
    if given.shape != (num_boxes,):
        raise ValueError(f"{num_boxes} boxes have scores of shape ({num_boxes},), got {given.shape}")
    return _as_float32(given)


def _as_float32(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """The numbers as float32; those too large are infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _have_area(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))


BOX_THRESHOLD = 0.3
"""Of whatever shows persons: `PoseEstimator`, the demo, videos, the web page. Lower scores are mostly no persons."""


def checked_box_threshold(threshold: float) -> float:
    """The threshold, if it is a score.

    Raises:
        ValueError: if it is not a number from 0 to 1.
    """
    if not 0 <= threshold <= 1:  # NaN is not either
        raise ValueError(f"a threshold of box scores is a number from 0 to 1, got {threshold}")
    return threshold

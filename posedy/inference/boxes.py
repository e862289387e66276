"""Person boxes as users and detectors give them, checked."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def checked_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    """Boxes (P, 4) xyxy in image pixels as float32; an empty list is no box. They may reach beyond the image.

    Raises:
        ValueError: if the shape is another, a number is not finite, or a box has no area; the message names the box.
    """
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
    with np.errstate(over="ignore"):
        checked = given.astype(np.float32)
    for index in np.flatnonzero(~np.isfinite(checked).all(axis=1)):
        raise ValueError(f"box {index} is not finite: {given[index].tolist()}")
    for index in np.flatnonzero(~(checked[:, 2:] > checked[:, :2]).all(axis=1)):
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
    """Refuses boxes that lie wholly beside the image of width x height pixels.

    Raises:
        ValueError: naming the first such box.
    """
    beside = (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, 0] >= width) | (boxes[:, 1] >= height)
    for index in np.flatnonzero(beside):
        raise ValueError(
            f"box {index}, {boxes[index].tolist()} as x1, y1, x2, y2, lies beside the image of {width} x {height} "
            "pixels"
        )
    if len(boxes) and boxes.max() <= 1.5:
        raise ValueError(f"boxes are in pixels, not in fractions of the image, got {boxes[0].tolist()}")


def checked_box_scores(scores: ArrayLike | None, num_boxes: int) -> NDArray[np.float32]:
    """Scores (P,) of P boxes as float32; 1 for each where none are given.

    Raises:
        ValueError: if there are more or fewer than boxes, or one is not finite.
    """
    if scores is None:
        return np.ones(num_boxes, dtype=np.float32)
    try:
        checked = np.asarray(scores, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"box scores are numbers, one for each box: {error}") from error
    if checked.shape != (num_boxes,):
        raise ValueError(f"{num_boxes} boxes have scores of shape ({num_boxes},), got {checked.shape}")
    if not np.isfinite(checked).all():
        raise ValueError(f"the score of box {np.flatnonzero(~np.isfinite(checked))[0]} is not finite")
    return checked

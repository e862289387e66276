"""Likely causes of boxes that do not fit their images: other tools write fractions, percent, corners or centers."""

import numpy as np
from numpy.typing import NDArray

LARGEST_FRACTION = 1.5
"""Boxes with numbers up to this one are fractions of a larger image; boxes may exceed the image."""
LARGEST_PERCENT = 101.0
"""Coordinates up to this one may be percent of a larger image."""
_TOLERANCE = 0.1  # of the image's side: detectors that do not clip their boxes exceed images by less
_SUSPICIOUS_SHARE = 0.2
_MIN_EXCEEDING = 3
_MIN_BOXES = 10


def are_outside(boxes: NDArray[np.floating], sizes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Returns the mask (N,) of boxes (N, 4) xyxy that do not overlap their images.

    Args:
        boxes: the boxes in image pixels.
        sizes: (N, 2) or (2,) width and height of the images.
    """
    return np.asarray(((boxes[:, 2:] <= 0) | (boxes[:, :2] >= sizes)).any(axis=1))


def are_fractions(boxes: NDArray[np.floating], sizes: NDArray[np.integer]) -> bool:
    """Returns whether boxes (N, 4) of any form are fractions of images of the sizes (N, 2), (0, 0) if unknown."""
    is_pixel = (sizes > 0).all(axis=1) & (sizes <= LARGEST_FRACTION).all(axis=1)
    return len(boxes) > 0 and bool((np.abs(boxes) <= LARGEST_FRACTION).all()) and not is_pixel.all()


def describe_misfit(boxes: NDArray[np.floating], sizes: NDArray[np.integer]) -> str | None:
    """Describes the likely cause if boxes that were read as x, y, width, height do not fit their images.

    Args:
        boxes: (N, 4) xyxy, converted from x, y, width, height.
        sizes: (N, 2) width and height of the images, (0, 0) if unknown; such boxes are ignored.

    Returns:
        A sentence for a warning, or None if the boxes fit.
    """
    is_known = (sizes > 0).all(axis=1)
    boxes, sizes = boxes[is_known], sizes[is_known]
    if len(boxes) == 0:
        return None
    exceeds = (boxes[:, 2:] > (1 + _TOLERANCE) * sizes).any(axis=1)
    if exceeds.mean() >= _SUSPICIOUS_SHARE:
        found = (
            f"{100 * exceeds.mean():.0f} % of {len(boxes)} boxes exceed their image by more than a tenth of its side"
        )
        first, second = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]  # as in the file
        if _fit(np.concatenate([first, second], axis=1), sizes):
            return f"{found}; as x1, y1, x2, y2 they would fit: write x, y, width, height"
        if exceeds.sum() >= _MIN_EXCEEDING:
            if _fit(np.concatenate([first - second / 2, first + second / 2], axis=1), sizes):
                return f"{found}; as center and size they would fit: write x, y of the upper left corner, width, height"
            for form, end in (("y, x, height, width", first + second), ("y1, x1, y2, x2", second)):
                if _fit(np.concatenate([first[:, ::-1], end[:, ::-1]], axis=1), sizes):
                    return f"{found}; as {form} they would fit: write x, y, width, height"
            return f"{found}; are they in pixels of images of another size?"
    if len(boxes) >= _MIN_BOXES and boxes.max() <= LARGEST_PERCENT and sizes.min() > 2 * LARGEST_PERCENT:
        return (
            f"no coordinate of {len(boxes)} boxes exceeds 100, the smallest side of their images is {sizes.min()}: "
            "percent of the image? Write pixels"
        )
    return None


def _fit(boxes: NDArray[np.floating], sizes: NDArray[np.integer]) -> bool:
    """Returns whether nearly all boxes (N, 4) xyxy have an area and lie in their images, up to rounding."""
    margin = 1 + 0.02 * sizes
    inside = (boxes[:, :2] >= -margin) & (boxes[:, 2:] <= sizes + margin) & (boxes[:, 2:] > boxes[:, :2])
    return bool(inside.all(axis=1).mean() >= 0.95)

"""How persons look: the colours along their limbs, which are those of their clothes."""

import cv2
import numpy as np
from numpy.typing import NDArray

_ALONG = (0.25, 0.5, 0.75)  # of a limb: its ends are joints, which others' limbs cross


def limb_colours(
    image_bgr: NDArray[np.uint8], keypoints: NDArray, sure: NDArray[np.bool_], limbs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The mean colour along each limb of each person, in CIE L*a*b*.

    Args:
        image_bgr: (H, W, 3).
        keypoints: (P, K, 2) in image pixels.
        sure: (P, K); a limb has no colour where one of its ends is not sure.
        limbs: (L, 2) indices of keypoints.

    Returns:
        (P, L, 3), NaN for limbs without a colour or with a point outside of the image.
    """
    height, width = image_bgr.shape[:2]
    begin, end = keypoints[:, limbs[:, 0]], keypoints[:, limbs[:, 1]]
    points = np.rint([begin + share * (end - begin) for share in _ALONG]).astype(np.int64)
    inside = np.all((points >= 0) & (points < [width, height]), axis=(0, -1))
    points = np.where(inside[..., None], points, 0)
    pixels = image_bgr[points[..., 1], points[..., 0]].astype(np.float32) / 255
    if not pixels.size:
        return np.zeros((*begin.shape[:2], 3))
    colours = np.reshape(cv2.cvtColor(pixels.reshape(1, -1, 3), cv2.COLOR_BGR2LAB), pixels.shape).mean(axis=0)
    known = inside & np.all(sure[:, limbs], axis=-1)
    return np.where(known[..., None], colours, np.nan)


def colour_difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The mean distance in L*a*b* of two persons' limbs (L, 3) whose colours are known; 0 if there are none."""
    distances = np.linalg.norm(one - other, axis=-1)
    known = ~np.isnan(distances)
    return float(distances[known].mean()) if known.any() else 0.0

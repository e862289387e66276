"""OKS-NMS: of nearly equal poses in one image only the best scored stays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.evaluation.oks import oks_matrix


def oks_nms(
    keypoints: ArrayLike, scores: ArrayLike, areas: ArrayLike, sigmas: ArrayLike, threshold: float = 0.9
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression of the poses of one image.

    From the highest score down, a pose is kept unless its OKS with a pose kept before is over the threshold. Equal
    scores keep the order in which they came.

    Args:
        keypoints: (P, K, 2) in image pixels.
        scores: (P,) by which poses are ranked; published numbers rank by the rescored box score.
        areas: (P,) in square image pixels; published numbers use the area of the padded crop.
        sigmas: (K,) as in `Skeleton.sigmas`.
        threshold: OKS above which the lower scored pose goes.

    Returns:
        Indices of the kept poses by falling score; empty for no poses.

    Raises:
        ValueError: if shapes do not fit together or a number is not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if scores.ndim != 1 or len(scores) != len(keypoints):
        raise ValueError(f"{len(keypoints)} poses need scores of shape ({len(keypoints)},), got {scores.shape}")
    if len(scores) == 0:
        return np.zeros(0, dtype=np.intp)
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite: poses cannot be ranked otherwise")
    order = np.argsort(-scores, kind="stable")
    suppresses = oks_matrix(keypoints, areas, sigmas)[np.ix_(order, order)] > threshold
    kept = np.ones(len(order), dtype=bool)
    for rank in range(len(order)):
        if kept[rank]:
            kept[rank + 1 :] &= ~suppresses[rank, rank + 1 :]
    return order[kept]

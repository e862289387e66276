"""The score of a pose: how sure the box is times how sure its keypoints are."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rescore(box_scores: ArrayLike, keypoint_scores: ArrayLike, threshold: float = 0.2) -> NDArray[np.float64]:
    """Box score times the mean of the keypoint scores over the threshold, 0 where none is over it.

    The protocol of Xiao et al. (ECCV 2018) and Sun et al. (CVPR 2019).

    Args:
        box_scores: (P,), 1 for boxes of the ground truth.
        keypoint_scores: (P, K).
        threshold: keypoint scores up to this one do not count.

    Returns:
        (P,) scores.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    box_scores = np.asarray(box_scores, dtype=np.float64)
    keypoint_scores = np.asarray(keypoint_scores, dtype=np.float64)
    if keypoint_scores.ndim != 2 or box_scores.shape != keypoint_scores.shape[:1]:
        raise ValueError(
            f"box scores (P,) and keypoint scores (P, K) must fit together, got {box_scores.shape} and "
            f"{keypoint_scores.shape}"
        )
    counts = keypoint_scores > threshold
    total = np.where(counts, keypoint_scores, 0).sum(axis=1)
    return box_scores * total / np.maximum(counts.sum(axis=1), 1)

"""Object keypoint similarity (OKS), OKS-NMS and the score of a person."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def oks_matrix(keypoints: ArrayLike, areas: ArrayLike, sigmas: ArrayLike) -> NDArray[np.float64]:
    """The OKS of every pose with every other pose of the same image.

    OKS_ij = 1/K * sum_k exp(-d_ijk^2 / (2 * (2 sigma_k)^2 * (a_i + a_j) / 2)), where d_ijk is the distance of keypoint
    k of pose i to keypoint k of pose j. All K keypoints count, whatever their scores, and the area is the mean of both
    poses' (the protocol of Xiao et al., ECCV 2018, and Sun et al., CVPR 2019). The OKS of a prediction with the truth
    is another one, over the labeled keypoints and the truth's area: COCOeval computes it.

    Args:
        keypoints: (P, K, 2) in image pixels.
        areas: (P,) in square image pixels.
        sigmas: (K,) as in `Skeleton.sigmas`.

    Returns:
        (P, P), symmetric, within [0, 1], with ones on the diagonal. Memory grows with P * P * K.

    Raises:
        ValueError: if shapes do not fit together, a number is not finite, an area is negative or a sigma not positive.
    """
    keypoints, areas, sigmas = (np.asarray(value, dtype=np.float64) for value in (keypoints, areas, sigmas))
    if keypoints.ndim != 3 or keypoints.shape[2] != 2:
        raise ValueError(f"keypoints must have shape (P, K, 2), got {keypoints.shape}")
    poses, count = keypoints.shape[:2]
    if areas.shape != (poses,) or sigmas.shape != (count,):
        raise ValueError(
            f"{poses} poses of {count} keypoints need areas of shape ({poses},) and sigmas of shape ({count},), "
            f"got {areas.shape} and {sigmas.shape}"
        )
    if not (np.isfinite(keypoints).all() and np.isfinite(areas).all() and (areas >= 0).all()):
        raise ValueError("keypoints must be finite and areas finite and not negative: OKS is undefined otherwise")
    if not (np.isfinite(sigmas).all() and (sigmas > 0).all()):
        raise ValueError(f"sigmas must be positive numbers, got {sigmas.tolist()}")
    squared_distance = np.square(keypoints[:, None] - keypoints[None]).sum(axis=-1)
    # The spacing keeps poses without an area apart from 0/0, as in COCOeval.
    mean_area = (areas[:, None] + areas[None]) / 2 + np.spacing(1.0)
    similarity = np.exp(-squared_distance / (2 * sigmas) ** 2 / mean_area[..., None] / 2)
    return similarity.mean(axis=-1)


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

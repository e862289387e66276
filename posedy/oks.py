"""Object keypoint similarity (OKS), OKS-NMS and rescoring of poses."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def oks_matrix(keypoints: ArrayLike, areas: ArrayLike, sigmas: ArrayLike) -> NDArray[np.float64]:
    """Computes the pairwise OKS of the poses of an image.

    OKS_ij = 1/K * sum_k exp(-d_ijk^2 / (2 * (2 sigma_k)^2 * (a_i + a_j) / 2)), where d_ijk is the distance of keypoint
    k of pose i to keypoint k of pose j. It averages over all K keypoints, whatever their scores, and uses the mean area
    of both poses (the protocol of Xiao et al., ECCV 2018, and Sun et al., CVPR 2019). COCOeval's OKS of a prediction
    with the ground truth differs: it uses the labeled keypoints and the area of the ground truth.

    Args:
        keypoints: (P, K, 2) in image pixels.
        areas: (P,) in square image pixels.
        sigmas: (K,) as in `Skeleton.sigmas`.

    Returns:
        The symmetric matrix (P, P) of values in [0, 1], with ones on the diagonal. Memory grows with P * P * K.

    Raises:
        ValueError: if shapes do not match, a number is not finite, an area is negative or a sigma not positive.
    """
    keypoints, areas, sigmas = (np.asarray(value, dtype=np.float64) for value in (keypoints, areas, sigmas))
    if keypoints.ndim != 3 or keypoints.shape[2] != 2:
        raise ValueError(f"expected keypoints of shape (P, K, 2), got {keypoints.shape}")
    poses, count = keypoints.shape[:2]
    if areas.shape != (poses,) or sigmas.shape != (count,):
        raise ValueError(
            f"expected areas of shape ({poses},) and sigmas of shape ({count},) as for the keypoints, "
            f"got {areas.shape} and {sigmas.shape}"
        )
    if not (np.isfinite(keypoints).all() and np.isfinite(areas).all() and (areas >= 0).all()):
        raise ValueError("expected finite keypoints and finite, non-negative areas: OKS is undefined otherwise")
    if not (np.isfinite(sigmas).all() and (sigmas > 0).all()):
        raise ValueError(f"expected positive finite sigmas, got {sigmas.tolist()}")
    squared_distance = np.square(keypoints[:, None] - keypoints[None]).sum(axis=-1)
    # Adding the spacing avoids 0/0 for poses without area, as in COCOeval.
    mean_area = (areas[:, None] + areas[None]) / 2 + np.spacing(1.0)
    similarity = np.exp(-squared_distance / (2 * sigmas) ** 2 / mean_area[..., None] / 2)
    return similarity.mean(axis=-1)


def oks_nms(
    keypoints: ArrayLike, scores: ArrayLike, areas: ArrayLike, sigmas: ArrayLike, threshold: float = 0.9
) -> NDArray[np.intp]:
    """Applies greedy non-maximum suppression by OKS (OKS-NMS) to the poses of one image.

    In descending order of score, a pose is kept unless its OKS with a pose kept before exceeds the threshold. Poses of
    equal score keep their order.

    Args:
        keypoints: (P, K, 2) in image pixels.
        scores: (P,) scores that rank the poses; published results use the rescored box scores.
        areas: (P,) in square image pixels; published results use the areas of the padded crops.
        sigmas: (K,) as in `Skeleton.sigmas`.
        threshold: OKS above which the pose with the lower score is suppressed.

    Returns:
        Indices of the kept poses in descending order of score; empty for no poses.

    Raises:
        ValueError: if shapes do not match or a number is not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if scores.ndim != 1 or len(scores) != len(keypoints):
        raise ValueError(f"expected scores of shape ({len(keypoints)},) for {len(keypoints)} poses, got {scores.shape}")
    if len(scores) == 0:
        return np.zeros(0, dtype=np.intp)
    if not np.isfinite(scores).all():
        raise ValueError("expected finite scores: poses cannot be ranked otherwise")
    order = np.argsort(-scores, kind="stable")
    suppresses = oks_matrix(keypoints, areas, sigmas)[np.ix_(order, order)] > threshold
    kept = np.ones(len(order), dtype=bool)
    for rank in range(len(order)):
        if kept[rank]:
            kept[rank + 1 :] &= ~suppresses[rank, rank + 1 :]
    return order[kept]


def rescore(box_scores: ArrayLike, keypoint_scores: ArrayLike, threshold: float = 0.2) -> NDArray[np.float64]:
    """Computes pose scores: the box score times the mean of the keypoint scores above the threshold, or 0.

    The protocol of Xiao et al. (ECCV 2018) and Sun et al. (CVPR 2019).

    Args:
        box_scores: (P,), 1 for ground truth boxes.
        keypoint_scores: (P, K).
        threshold: keypoint scores up to this value are ignored.

    Returns:
        (P,) scores.

    Raises:
        ValueError: if the shapes do not match.
    """
    box_scores = np.asarray(box_scores, dtype=np.float64)
    keypoint_scores = np.asarray(keypoint_scores, dtype=np.float64)
    if keypoint_scores.ndim != 2 or box_scores.shape != keypoint_scores.shape[:1]:
        raise ValueError(
            f"expected box scores (P,) and keypoint scores (P, K), got shapes {box_scores.shape} and "
            f"{keypoint_scores.shape}"
        )
    is_used = keypoint_scores > threshold
    total = np.where(is_used, keypoint_scores, 0).sum(axis=1)
    return box_scores * total / np.maximum(is_used.sum(axis=1), 1)

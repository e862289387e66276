"""Object keypoint similarity (OKS) between predicted poses, as OKS-NMS uses it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def oks_matrix(keypoints: ArrayLike, areas: ArrayLike, sigmas: ArrayLike) -> NDArray[np.float64]:
    """The OKS of every pose with every other pose of the same image.

    OKS_ij = 1/K * sum_k exp(-d_ijk^2 / (2 * (2 sigma_k)^2 * (a_i + a_j) / 2)), where d_ijk is the distance of keypoint
    k of pose i to keypoint k of pose j. All K keypoints count, whatever their scores, and the area is the mean of both
    poses' (the protocol of Xiao et al., ECCV 2018, and Sun et al., CVPR 2019). The OKS of a prediction with the truth
    is another one, over the labelled keypoints and the truth's area: COCOeval computes it.

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

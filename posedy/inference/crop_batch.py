"""Batches of person crops of one or several images."""

import numpy as np
from numpy.typing import NDArray

from posedy.geometry import FloatArray


class CropBatch:
    """A batch of person crops for the network, and the arrays that their keypoints are written to."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._targets: list[tuple[NDArray[np.float32], NDArray[np.float32], int]] = []
        self.crops: list[NDArray[np.uint8]] = []
        self.matrices: list[FloatArray] = []

    @property
    def is_full(self) -> bool:
        """Whether the batch has its full size."""
        return len(self.crops) >= self._size

    def add(
        self,
        crop: NDArray[np.uint8],
        matrix: FloatArray,
        keypoints: NDArray[np.float32],
        scores: NDArray[np.float32],
        person: int,
    ) -> None:
        """Adds a crop with its (2, 3) affine map; its keypoints are written to the row `person` of two arrays."""
        self.crops.append(crop)
        self.matrices.append(matrix)
        self._targets.append((keypoints, scores, person))

    def store(self, keypoints: FloatArray, scores: NDArray[np.float32]) -> None:
        """Writes the keypoints (N, K, 2) and scores (N, K) of the crops, and empties the batch."""
        for (all_keypoints, all_scores, person), points, values in zip(self._targets, keypoints, scores, strict=True):
            all_keypoints[person], all_scores[person] = points, values
        self.crops, self.matrices, self._targets = [], [], []

"""Batches of person crops of one or several images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posedy.geometry import FloatArray, image_to_crop_matrix, padded_region, warp_crop
from posedy.images import ChannelOrder
from posedy.poses import Poses
from posedy.prediction import Model, predict_keypoints
from posedy.skeleton import Skeleton

# OpenCV's warps count pixels in 16 bits
_LARGEST_SIDE = 32766


def check_sides(rgb: NDArray[np.uint8], name: str) -> None:
    """Checks that crops of an image (H, W, 3) can be made.

    Raises:
        ValueError: if a side has more pixels than OpenCV warps; the message begins with the name.
    """
    if max(rgb.shape[:2]) > _LARGEST_SIDE:
        raise ValueError(
            f"{name} is {rgb.shape[1]} x {rgb.shape[0]} pixels (width x height): OpenCV warps up to {_LARGEST_SIDE} a "
            "side; crop or shrink it"
        )


class CropBatch:
    """Collects the crops of persons over images, and predicts them in batches of the network.

    The arrays of the returned poses are filled when their batch is predicted: when it is full, or by `flush`.

    Args:
        model: predicts the crops.
        skeleton: the skeleton of the poses.
        flip_permutation: K indices for the flip test; None is no flip test.
        size: maximum number of crops in a batch.
    """

    def __init__(self, model: Model, skeleton: Skeleton, flip_permutation: Sequence[int] | None, size: int) -> None:
        self._model = model
        self._skeleton = skeleton
        self._flip_permutation = flip_permutation
        self._size = size
        self._crops: list[NDArray[np.uint8]] = []
        self._matrices: list[FloatArray] = []
        self._targets: list[tuple[NDArray[np.float32], NDArray[np.float32], int]] = []  # keypoints, scores and the row

    def add(
        self,
        rgb: NDArray[np.uint8],
        boxes: NDArray[np.float32],
        box_scores: NDArray[np.float32],
        channels: ChannelOrder = "bgr",
    ) -> Poses:
        """Adds the persons of an image.

        Args:
            rgb: the image (H, W, 3) uint8 RGB; it is not kept.
            boxes: (P, 4) xyxy in image pixels.
            box_scores: (P,).
            channels: the channel order that the poses record.

        Returns:
            The poses, whose keypoints and scores are zero until they are predicted.
        """
        keypoints = np.zeros((len(boxes), self._model.num_keypoints, 2), dtype=np.float32)
        scores = np.zeros(keypoints.shape[:2], dtype=np.float32)
        width, height = self._model.input_size
        matrices = image_to_crop_matrix(*padded_region(boxes, width / height), self._model.input_size)
        for person, matrix in enumerate(matrices):
            self._crops.append(warp_crop(rgb, matrix, self._model.input_size))
            self._matrices.append(matrix)
            self._targets.append((keypoints, scores, person))
            if len(self._crops) >= self._size:
                self.flush()
        return Poses(keypoints, scores, boxes, box_scores, self._skeleton, channels)

    def flush(self) -> None:
        """Predicts the crops that are left, and writes their keypoints and scores to the poses."""
        if not self._crops:
            return
        keypoints, scores = predict_keypoints(
            self._model, np.stack(self._crops), np.stack(self._matrices), self._flip_permutation
        )
        for (all_keypoints, all_scores, person), points, values in zip(self._targets, keypoints, scores, strict=True):
            all_keypoints[person], all_scores[person] = points, values
        self._crops, self._matrices, self._targets = [], [], []

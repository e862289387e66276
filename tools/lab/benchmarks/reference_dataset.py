"""Reference implementation of training samples: the baseline of the data loading benchmark.

The image is decoded, converted and flipped as a whole, and the worker normalizes the crop and computes the target
heatmaps keypoint by keypoint (as in the code of Sun et al., CVPR 2019, and its many descendants).
"""

import math
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posedy.codecs import STRIDE, HeatmapCodec
from posedy.config import AugmentConfig
from posedy.data.coco import CocoPersons
from posedy.data.datasets import SampleIndex
from posedy.geometry import FloatArray, image_to_crop_matrix, padded_region

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ReferenceDataset:
    """Training samples with random flip, scale and rotation, without half body augmentation.

    A sample has `image` (3, H, W) float32 normalized, `target` (K, h, w) and `weight` (K, 1).

    Args:
        persons: the training set.
        codec: defines sizes and sigma of the targets.
        augment: augmentation settings.
        padding: factor on the size of the boxes.
        seed: seed of the augmentation.
    """

    def __init__(
        self, persons: CocoPersons, codec: HeatmapCodec, augment: AugmentConfig, padding: float, seed: int
    ) -> None:
        self.persons = persons
        self.codec = codec
        self.augment = augment
        self.padding = padding
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.persons)

    def __getitem__(self, sample: SampleIndex) -> dict[str, Any]:
        persons, augment, rng = self.persons, self.augment, self.rng
        path = persons.image_path(int(persons.image_index[sample.index]))
        image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert image is not None
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        keypoints = persons.keypoints[sample.index].astype(np.float64).copy()
        labeled = persons.visibility[sample.index].astype(np.float64).copy()
        width, height = self.codec.input_size
        center, size = padded_region(persons.boxes[sample.index], width / height, self.padding)
        size = size * np.clip(rng.normal(1, augment.scale_std), *augment.scale_range)
        rotation = 0.0
        if rng.random() < augment.rotation_probability:
            rotation = float(np.clip(rng.normal(0, augment.rotation_std), -augment.rotation_max, augment.rotation_max))
        if rng.random() < augment.flip_probability:
            image = image[:, ::-1, :].copy()
            keypoints[:, 0] = image.shape[1] - 1 - keypoints[:, 0]
            for left, right in persons.skeleton.flip_pairs:
                keypoints[[left, right]] = keypoints[[right, left]]
                labeled[[left, right]] = labeled[[right, left]]
            center = np.array([image.shape[1] - 1 - center[0], center[1]])
        matrix = image_to_crop_matrix(center, size, self.codec.input_size, rotation)
        crop = cv2.warpAffine(image, matrix, self.codec.input_size, flags=cv2.INTER_LINEAR)
        for index in range(len(keypoints)):
            if labeled[index] > 0:
                keypoints[index] = matrix @ np.array([*keypoints[index], 1.0])
        target, weight = self._target(keypoints, labeled)
        return {"image": _to_normalized_tensor(crop), "target": target, "weight": weight}

    def _target(self, keypoints: FloatArray, labeled: FloatArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        width, height = self.codec.heatmap_size
        radius = int(self.codec.target_sigma * 3)
        side = np.arange(2 * radius + 1, dtype=np.float32)
        patch = np.exp(-((side - radius) ** 2 + (side[:, None] - radius) ** 2) / (2 * self.codec.target_sigma**2))
        target = np.zeros((len(keypoints), height, width), dtype=np.float32)
        weight = np.ones((len(keypoints), 1), dtype=np.float32)
        weight[:, 0] = labeled > 0
        for index, (x, y) in enumerate(keypoints):
            column, row = math.floor(x / STRIDE + 0.5), math.floor(y / STRIDE + 0.5)
            left, top, right, bottom = column - radius, row - radius, column + radius + 1, row + radius + 1
            if left >= width or top >= height or right <= 0 or bottom <= 0:
                weight[index] = 0
            if weight[index] > 0.5:
                inside = (max(0, top), min(bottom, height)), (max(0, left), min(right, width))
                target[index][inside[0][0] : inside[0][1], inside[1][0] : inside[1][1]] = patch[
                    inside[0][0] - top : inside[0][1] - top, inside[1][0] - left : inside[1][1] - left
                ]
        return target, weight


def _to_normalized_tensor(crop: NDArray) -> Tensor:
    """Converts a crop like torchvision's ToTensor and Normalize."""
    tensor = torch.from_numpy(crop).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = torch.tensor(_MEAN)[:, None, None], torch.tensor(_STD)[:, None, None]
    return tensor.clone().sub_(mean).div_(std)

"""What training minimizes: the distance of heatmaps to their targets, in float32."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from posedy.config import Loss

_SMALLEST_PROBABILITY = 1e-30


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor, kind: Loss, normalizer: Tensor) -> Tensor:
    """The loss of a batch or of a part of it, a scalar: a sum divided by what belongs to the whole batch.

    Args:
        heatmaps: (N, K, h, w) of the network.
        targets: (N, K, h, w) of the codec.
        weights: (N, K), 1 for keypoints that count.
        kind: "mse", "cross_entropy" or "binary_cross_entropy".
        normalizer: `loss_normalizer` of the whole batch.
    """
    with torch.autocast(heatmaps.device.type, enabled=False):
        return _LOSSES[kind](heatmaps.float(), targets, weights) / normalizer


def loss_normalizer(weights: Tensor, targets: Tensor, persons: int, kind: Loss) -> Tensor:
    """What the sum over a batch is divided by, a scalar on the device.

    For "mse" all cells of all keypoints of `persons`, labeled or not, which is known for the batch of all processes;
    for the others the number of keypoints of these weights (N, K) that count, to be added up over processes.
    """
    if kind == "mse":
        return weights.new_tensor(persons * targets[0].numel())
    return weights.sum()


def squared_error(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """0.5 * sum over N, K, h, w of weight * (heatmap - target)^2; its mean is Sun et al.'s loss (CVPR 2019)."""
    return 0.5 * (weights[..., None, None] * (heatmaps - targets) ** 2).sum()


def cross_entropy(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The sum over keypoints that count of -sum over cells of q log p.

    q is the target and p the heatmap, each divided by its sum; it needs heatmaps that are distributions
    (`model.output: softmax`). From scratch it leaves the mean pose sooner than squared error does, whose gradient at
    first only says "nothing anywhere".
    """
    q = targets / targets.sum(dim=(-2, -1), keepdim=True).clamp_min(_SMALLEST_PROBABILITY)
    p = heatmaps / heatmaps.sum(dim=(-2, -1), keepdim=True)
    per_keypoint = -(q * p.clamp_min(_SMALLEST_PROBABILITY).log()).sum(dim=(-2, -1))
    return (weights * per_keypoint).sum()


def binary_cross_entropy(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The sum over keypoints that count of -sum over cells of t log p + (1 - t) log(1 - p).

    t is the target and p the heatmap; it needs heatmaps from 0 to 1 (`model.output: sigmoid`).
    """
    per_cell = F.binary_cross_entropy(heatmaps, targets, reduction="none")
    return (weights * per_cell.sum(dim=(-2, -1))).sum()


_LOSSES: dict[Loss, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": squared_error,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}

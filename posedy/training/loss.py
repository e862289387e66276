"""What training minimises: the distance of heatmaps to their targets, in float32."""

import torch
from torch import Tensor

from posedy.config import Loss

_SMALLEST_PROBABILITY = 1e-30


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor, kind: Loss) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        heatmaps: (N, K, h, w) of the network.
        targets: (N, K, h, w) of the codec.
        weights: (N, K), 1 for keypoints that count.
        kind: "mse" or "cross_entropy".
    """
    with torch.autocast(heatmaps.device.type, enabled=False):
        loss = mean_squared_error if kind == "mse" else cross_entropy
        return loss(heatmaps.float(), targets, weights)


def mean_squared_error(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """0.5 * mean over N, K, h, w of weight * (heatmap - target)^2 (Sun et al., CVPR 2019)."""
    return 0.5 * (weights[..., None, None] * (heatmaps - targets) ** 2).mean()


def cross_entropy(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The mean over keypoints that count of -sum over cells of q log p.

    q is the target and p the heatmap, each divided by its sum; it needs heatmaps that are distributions
    (`model.output: softmax`). From scratch it leaves the mean pose sooner than squared error does, whose gradient at
    first only says "nothing anywhere".
    """
    q = targets / targets.sum(dim=(-2, -1), keepdim=True).clamp_min(_SMALLEST_PROBABILITY)
    p = heatmaps / heatmaps.sum(dim=(-2, -1), keepdim=True)
    per_keypoint = -(q * p.clamp_min(_SMALLEST_PROBABILITY).log()).sum(dim=(-2, -1))
    return (weights * per_keypoint).sum() / weights.sum().clamp_min(1)

"""Heatmap losses, computed in float32."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from posedy.codecs import Codec
from posedy.config import Loss
from posedy.models.pose_net import name_outputs

_MIN_PROBABILITY = 1e-30


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor, kind: Loss, normalizer: Tensor) -> Tensor:
    """Computes the loss of a batch or a micro-batch: a sum, divided by the normalizer of the whole batch.

    Args:
        heatmaps: (N, K, h, w) predicted by the network.
        targets: (N, K, h, w) encoded by the codec.
        weights: (N, K), 1 for keypoints that count and 0 for the others.
        kind: "mse", "cross_entropy" or "binary_cross_entropy".
        normalizer: `loss_normalizer` of the whole batch.

    Returns:
        A scalar.
    """
    with torch.autocast(heatmaps.device.type, enabled=False):
        return _LOSSES[kind](heatmaps.float(), targets, weights) / normalizer


def codec_loss(
    codec: Codec,
    outputs: Tensor | Sequence[Tensor],
    targets: Tensor,
    weights: Tensor,
    kind: Loss,
    normalizer: Tensor,
) -> Tensor:
    """Returns the loss of a batch or micro-batch: the codec's own, or that of its heatmaps.

    Args:
        codec: names the outputs.
        outputs: outputs of the network.
        targets: (N, K, ...) from the codec.
        weights: (N, K) from the codec.
        kind: "mse", "cross_entropy" or "binary_cross_entropy", for heatmaps.
        normalizer: `loss_normalizer` of the whole batch.
    """
    named = name_outputs(outputs, codec)
    if not codec.has_loss:
        return heatmap_loss(named["heatmaps"], targets, weights, kind, normalizer)
    with torch.autocast(targets.device.type, enabled=False):
        return codec.loss({name: output.float() for name, output in named.items()}, targets, weights) / normalizer


def loss_normalizer(
    codec: Codec,
    weights: Tensor,
    targets: Tensor,
    num_samples: int,
    kind: Loss,
    reduce: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    """Computes the divisor of the loss sum of a batch, a scalar on the device.

    "mse" divides by the number of heatmap pixels of all keypoints of `num_samples`, labeled or not, the batch of all
    processes. The other losses, and those of codecs, divide by the number of keypoints that count in `weights` (N, K),
    which `reduce` adds up over processes.
    """
    if kind == "mse" and not codec.has_loss:
        return weights.new_tensor(num_samples * targets[0].numel())
    return reduce(weights.sum())


def squared_error(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Computes half the sum of weight * (heatmap - target)^2; the mean is the loss of Sun et al. (CVPR 2019)."""
    return 0.5 * (weights[..., None, None] * (heatmaps - targets) ** 2).sum()


def cross_entropy(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Computes the weighted sum over keypoints of -sum over heatmap pixels of q log p.

    q is the target and p the heatmap, each divided by its sum; the heatmaps must be distributions
    (`model.output: softmax`). With squared error, training from scratch first pushes all heatmaps to zero and stays
    longer at predicting the mean pose.
    """
    q = targets / targets.sum(dim=(-2, -1), keepdim=True).clamp_min(_MIN_PROBABILITY)
    p = heatmaps / heatmaps.sum(dim=(-2, -1), keepdim=True)
    per_keypoint = -(q * p.clamp_min(_MIN_PROBABILITY).log()).sum(dim=(-2, -1))
    return (weights * per_keypoint).sum()


def binary_cross_entropy(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Computes the weighted sum over keypoints of -sum over heatmap pixels of t log p + (1 - t) log(1 - p).

    t is the target and p the heatmap; the heatmaps must lie in [0, 1] (`model.output: sigmoid`).
    """
    per_pixel = F.binary_cross_entropy(heatmaps, targets, reduction="none")
    return (weights * per_pixel.sum(dim=(-2, -1))).sum()


_LOSSES: dict[Loss, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": squared_error,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}

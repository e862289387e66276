"""The SimCC codec: a keypoint is one bin of each axis, and each axis is a classification (Li et al., ECCV 2022)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from posedy.codecs.base import Codec, Outputs, register_codec

SPLIT_RATIO = 2
"""Bins per crop pixel."""
_SIGMA = 6 / 256  # of the paper, in bins per crop pixel of the height: 6 bins at 256x192


@register_codec("simcc")
@dataclass(frozen=True)
class SimCCCodec(Codec):
    """Classification of each coordinate into bins of half a crop pixel, `codec="simcc"` (Li et al., ECCV 2022).

    An axis of S crop pixels extends from -1/2 to S - 1/2, the outer borders of its first and its last pixel, and has
    B = 2 S bins. A coordinate x is at the position

        beta = 2 (x + 1/2) - 1/2 = 2 x + 1/2

    where bin b is centered at b, so that the coordinate S - 1 - x of the flipped crop is at B - 1 - beta: a flip of the
    bins is exact. The targets are Gaussians over bins that are not rounded and sum to one,

        q(b) = exp(-(b - beta)^2 / (2 sigma^2)) / sum over b' of exp(-(b' - beta)^2 / (2 sigma^2))

    and the loss of a keypoint is KL(q_x || p_x) + KL(q_y || p_y), where p is the softmax of the network's logits.

    Decoding takes the highest bin and the vertex of the parabola through its log-probability and those of its
    neighbors, which is at most half a bin away and for a Gaussian is beta. The highest bin alone is the paper's
    decoding: its error is up to half a bin, and for a coordinate between two bins (such as each whole crop pixel) it is
    arbitrary which of them is the highest.

    The score is the product over both axes of min(1, sqrt(2 pi) sigma max_b p(b)): about 1 for a target. Where the
    network is uncertain by a Gaussian of standard deviation s on each axis, p has the variance sigma^2 + s^2 and the
    score is sigma^2 / (sigma^2 + s^2), as the peak of the mean of heatmap targets, the optimum of squared error.

    Attributes:
        input_size: (W, H) of the crop in pixels, divisible by 32.
        sigma: standard deviation of a target in bins; None is the paper's 6 for a crop of 256 pixels in height, and in
            proportion.
    """

    output_names: ClassVar[tuple[str, ...]] = ("x_logits", "y_logits")

    @property
    def num_bins(self) -> tuple[int, int]:
        """The number of bins of x and of y."""
        return self.input_size[0] * SPLIT_RATIO, self.input_size[1] * SPLIT_RATIO

    @property
    def target_sigma(self) -> float:
        """Standard deviation of a target in bins."""
        return self.sigma if self.sigma is not None else _SIGMA * self.input_size[1]

    def encode(self, keypoints: Tensor, labeled: Tensor) -> tuple[Tensor, Tensor]:
        """Creates the target distributions of keypoints.

        Args:
            keypoints: (N, K, 2) in crop pixels.
            labeled: (N, K), true or nonzero where a keypoint is labeled.

        Returns:
            Targets (N, K, 2 W + 2 H) float32, the distribution of x followed by that of y, and weights (N, K) float32:
            1 for labeled keypoints with a bin within 3 sigma on each axis, else 0 (and targets of 0).
        """
        labeled = labeled.bool()
        beta = SPLIT_RATIO * torch.where(labeled[..., None], keypoints.float(), 0.0) + (SPLIT_RATIO - 1) / 2
        last = beta.new_tensor(self.num_bins) - 1
        reach = max(0.5, 3 * self.target_sigma)  # keypoints inside the crop are at most half a bin from a bin
        weights = (labeled & ((beta + reach >= 0) & (beta - reach <= last)).all(dim=-1)).float()
        targets = torch.cat([self._target(size, beta[..., axis]) for axis, size in enumerate(self.num_bins)], dim=-1)
        return targets * weights[..., None], weights

    def decode(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Decodes logits: the keypoint is the highest bin of each axis, and the offset to the vertex.

        Args:
            outputs: `x_logits` (N, K, 2 W) and `y_logits` (N, K, 2 H).

        Returns:
            Keypoints (N, K, 2) float32 in crop pixels and scores (N, K) float32 from 0 to 1, NaN where the logits
            contain NaN.

        Raises:
            ValueError: if the logits have the wrong size.
        """
        self._check_sizes(outputs)
        scale = max(1.0, math.sqrt(2 * math.pi) * self.target_sigma)
        positions, scores = [], []
        for name in self.output_names:
            log_p = outputs[name].float().log_softmax(dim=-1)
            peak, index = log_p.max(dim=-1)
            positions.append(index + _offset_to_vertex(log_p, peak, index))
            scores.append((scale * peak.exp()).clamp_max(1))
        beta = torch.stack(positions, dim=-1)
        return (beta - (SPLIT_RATIO - 1) / 2) / SPLIT_RATIO, scores[0] * scores[1]

    def merge_flipped(self, outputs: Outputs, flipped: Outputs, flip_permutation: Sequence[int]) -> dict[str, Tensor]:
        """Averages the distributions of crops with those of the flipped crops, which are flipped back.

        Args:
            outputs: `x_logits` (N, K, 2 W) and `y_logits` (N, K, 2 H) of the crops.
            flipped: the logits of the crops flipped in x.
            flip_permutation: K indices, `Skeleton.flip_permutation`.

        Returns:
            The logarithms of the mean probabilities, which are logits, too.
        """
        back = {name: logits[:, list(flip_permutation)] for name, logits in flipped.items()}
        back["x_logits"] = back["x_logits"].flip(-1)
        return {
            name: torch.logaddexp(logits.log_softmax(dim=-1), back[name].log_softmax(dim=-1)) - math.log(2)
            for name, logits in outputs.items()
        }

    def loss(self, outputs: Outputs, targets: Tensor, weights: Tensor) -> Tensor:
        """Computes the sum over labeled keypoints of KL(q_x || p_x) + KL(q_y || p_y).

        Args:
            outputs: `x_logits` (N, K, 2 W) and `y_logits` (N, K, 2 H).
            targets: (N, K, 2 W + 2 H) of `encode`.
            weights: (N, K) of `encode`.

        Raises:
            ValueError: if the logits have the wrong size.
        """
        self._check_sizes(outputs)
        log_p = torch.cat([outputs[name].log_softmax(dim=-1) for name in self.output_names], dim=-1)
        return (weights * F.kl_div(log_p, targets, reduction="none").sum(dim=-1)).sum()

    def soft_targets(self, outputs: Outputs) -> Tensor:
        """Returns the distributions of a teacher's logits as targets (N, K, 2 W + 2 H)."""
        return torch.cat([outputs[name].softmax(dim=-1) for name in self.output_names], dim=-1)

    def _target(self, size: int, beta: Tensor) -> Tensor:
        """Computes the targets on an axis of `size` bins: (..., size) for positions (...)."""
        distance = torch.arange(size, device=beta.device, dtype=torch.float32) - beta[..., None]
        return (-(distance**2) / (2 * self.target_sigma**2)).softmax(dim=-1)

    def _check_sizes(self, outputs: Outputs) -> None:
        for name, size in zip(self.output_names, self.num_bins, strict=True):
            if outputs[name].ndim != 3 or outputs[name].shape[-1] != size:
                raise ValueError(
                    f"{name} of (N, K, {size}) belong to crops of {self.input_size[1]}x{self.input_size[0]} pixels "
                    f"(height x width), got {tuple(outputs[name].shape)}"
                )


def _offset_to_vertex(log_p: Tensor, peak: Tensor, index: Tensor) -> Tensor:
    """Returns the offset from the highest bin to the vertex of the parabola through it and its neighbors.

        offset = (before - after) / (2 (before - 2 peak + after))

    It is at most half a bin, as no neighbor is higher, and 0 at the border and between equal neighbors.
    """
    interior = (index > 0) & (index < log_p.shape[-1] - 1)
    before, after = (
        log_p.gather(-1, torch.where(interior, index + step, index)[..., None])[..., 0] for step in (-1, 1)
    )
    curvature = before - 2 * peak + after
    has_vertex = curvature < 0
    return torch.where(has_vertex, (before - after) / torch.where(has_vertex, 2 * curvature, 1.0), 0.0)

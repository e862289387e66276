"""The entropy of a dynamic network's attention, which is logged at each evaluation."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from posedy.models.dynamic_conv import KernelAttention

ENTROPY = "attention_entropy"
"""The column of metrics.csv."""


class EntropyMeter:
    """The mean entropy of the attention of all layers with at least two kernels, in the forward passes of a block.

        H = -sum_k p_k ln p_k / ln K,    p_k = pi_k / sum_j pi_j

    of an image and a layer: 1 if all kernels have the same weight, as initially or at a high temperature, 0 if one
    kernel has all of it. The mean is over images and layers.
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._count = 0

    @contextmanager
    def record(self, net: nn.Module) -> Iterator[None]:
        """Context manager that records the attention of a network; a static network has none."""
        layers = [module for module in net.modules() if isinstance(module, KernelAttention)]
        handles = [layer.register_forward_hook(self._add) for layer in layers if layer.fc2.out_features > 1]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _add(self, module: nn.Module, inputs: Any, weights: Tensor) -> None:
        shares = weights.float() / weights.float().sum(dim=1, keepdim=True)
        entropy = torch.special.entr(shares).sum() / math.log(weights.shape[1])
        self._total = entropy if self._total is None else self._total + entropy
        self._count += len(weights)

    def totals(self, device: torch.device) -> Tensor:
        """Returns the sum and the count (2,) on a device, which processes may add up."""
        total = torch.zeros((), device=device) if self._total is None else self._total.to(device)
        return torch.stack([total, torch.tensor(float(self._count), device=device)])

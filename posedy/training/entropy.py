"""The entropy of a dynamic network's attention, which is logged at each evaluation."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from posedy.models.dynamic_conv import KernelAttention

ENTROPY = "attention_entropy"
"""The column of metrics.csv with the mean over layers."""


class EntropyMeter:
    """The mean entropy of the attention of each layer with at least two kernels, in the forward passes of a block.

        H = -sum_k p_k ln p_k / ln K,    p_k = pi_k / sum_j pi_j

    of an image and a layer: 1 if all kernels have the same weight, as initially or at a high temperature, 0 if one
    kernel has all of it. The mean is over images.

    Args:
        net: the network; a static one has no layers.

    Attributes:
        layers: the names of the layers.
    """

    def __init__(self, net: nn.Module) -> None:
        self._attention = {
            name.removesuffix(".attention"): module
            for name, module in net.named_modules()
            if isinstance(module, KernelAttention) and module.fc2.out_features > 1
        }
        self.layers = tuple(self._attention)
        self._sums = {name: torch.zeros(2) for name in self.layers}

    @contextmanager
    def record(self) -> Iterator[None]:
        """Context manager that records the attention of the network."""
        handles = [module.register_forward_hook(partial(self._add, name)) for name, module in self._attention.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _add(self, name: str, module: nn.Module, inputs: Any, weights: Tensor) -> None:
        shares = weights.float() / weights.float().sum(dim=1, keepdim=True)
        entropy = torch.special.entr(shares).sum() / math.log(weights.shape[1])
        added = torch.stack([entropy, entropy.new_tensor(len(weights))])
        self._sums[name] = self._sums[name].to(added.device) + added

    def totals(self, device: torch.device) -> Tensor:
        """Returns the sum and the count of each layer (L, 2) on a device, which processes may add up."""
        sums = [self._sums[name].to(device) for name in self.layers]
        return torch.stack(sums) if sums else torch.zeros(0, 2, device=device)

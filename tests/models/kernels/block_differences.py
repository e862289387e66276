"""Differences between blocks with and without Triton kernels; see measure.py."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import posedy.models.blocks
import posedy.models.ops
from posedy.models.blocks import ConvFactory, DynamicConvFactory, InvertedResidual, static_conv
from posedy.models.kernels.availability import can_use_triton

BLOCKS: dict[str, tuple[ConvFactory, Callable[[], nn.Module], int]] = {
    "dynamic, stride 1": (DynamicConvFactory(), nn.ReLU6, 1),
    "static, stride 2": (static_conv, nn.ReLU, 2),
    "an activation without a kernel": (static_conv, nn.Hardswish, 1),
}


def train_step(block: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Yields the output, all gradients and all buffers of a training step."""
    x = x.clone().requires_grad_()
    y = block(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    yield y.detach()
    yield from (parameter.grad for parameter in block.parameters() if parameter.grad is not None)
    yield x.grad if x.grad is not None else torch.empty(0)
    yield from block.buffers()


def measure() -> list[Any]:
    """Returns the largest relative difference between blocks with and without kernels, and the kernels used."""
    from posedy.models.kernels import batch_norm, depthwise

    used: list[str] = []

    def recorded(kernel: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            used.append(f"{name} {arguments[2]}")
            return kernel(*arguments)

        return call

    batch_norm.batch_norm_act = recorded(batch_norm.batch_norm_act, "norm")
    depthwise.depthwise = recorded(depthwise.depthwise, "depthwise")
    rows = []
    for name, (conv, activation, stride) in BLOCKS.items():
        torch.manual_seed(0)
        reference = InvertedResidual(2, 3, 2, 3, stride, conv, activation=activation)
        fused = copy.deepcopy(reference)
        x = torch.randn(2, 2, 4, 3)
        expected = list(train_step(reference, x))
        posedy.models.blocks.can_use_triton = posedy.models.ops.can_use_triton = torch.is_tensor
        used.clear()
        difference = max(
            float((actual - wanted).abs().max() / wanted.abs().max().clamp_min(1))
            for actual, wanted in zip(train_step(fused, x), expected, strict=True)
        )
        posedy.models.blocks.can_use_triton = posedy.models.ops.can_use_triton = can_use_triton
        rows.append([name, difference, list(used)])
    return rows

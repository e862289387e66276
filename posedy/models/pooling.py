"""The mean over the pixels of a map, with a gradient that takes no memory.

Torch's gradient of a mean in float32 over a map in bfloat16 is a whole map in float32, then cast. Here it is one number
for each channel, expanded, which autograd adds to the map's other gradients in the pass that it makes anyway.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def pixel_mean(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean (N, C) of x (N, C, H, W), computed in a type."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _PixelMean.apply(x, dtype)
    return x.mean(dim=(2, 3), dtype=dtype)


class _PixelMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return x.mean(dim=(2, 3), dtype=dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        H, W = ctx.shape[2:]
        return (grad / (H * W)).to(ctx.dtype)[..., None, None].expand(ctx.shape), None

"""Depthwise convolution with gradients that are fast.

On a GPU torch's kernels for it take 28 of the 181 ms of a training step of these networks (an H200 in bfloat16 with 128
persons), 17 of them the weight's gradient: there Triton kernels take their place.

On a CPU, in torch's contiguous format, torch spends most of a training step of these networks in two gradients of
depthwise convolutions: the weight's of 5x5 kernels (ten times the forward pass) and, in bfloat16, the input's at stride
2 (forty times). At stride 1 the weight's gradient is itself a depthwise convolution, with the output's gradient as
kernels:

    dL/dW[c, i, j] = sum over y, x of dL/dY[c, y, x] * X[c, y + i - p, x + j - p]
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair

from posedy.models.kernels.availability import takes

Pair = tuple[int, int]


def pad_below_and_right(x: Tensor, pixels: int) -> Tensor:
    """Adds rows and columns of zeros to the end of both axes: (N, C, H, W) -> (N, C, H + pixels, W + pixels)."""
    return F.pad(x, (0, pixels, 0, pixels)) if pixels else x


def depthwise_conv(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, pad_end: int = 0) -> Tensor:
    """Convolves each channel of x (N, C, H, W) with its own kernel of weight (C, 1, kh, kw).

    `pad_end` more rows and columns of zeros are added below and to the right.
    """
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        if _is_regular(weight, stride, padding, dilation) and takes(x) and weight.dtype == x.dtype:
            from posedy.models.kernels.depthwise import depthwise  # Triton is not everywhere

            return depthwise(x, weight, stride[0], padding[0], pad_end)
        if x.device.type == "cpu" and not _is_channels_last(x):
            return _DepthwiseConv.apply(pad_below_and_right(x, pad_end), weight, stride, padding, dilation)
    return F.conv2d(pad_below_and_right(x, pad_end), weight, None, stride, padding, dilation, x.shape[1])


def _is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel lie together, where torch's own gradients are the faster ones."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _is_regular(weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> bool:
    """Whether a convolution is the same in both directions, and not dilated."""
    is_square = weight.shape[-2] == weight.shape[-1] and stride[0] == stride[1] and padding[0] == padding[1]
    return is_square and dilation == (1, 1)


class EndPaddedConv2d(nn.Conv2d):
    """An `nn.Conv2d` with one more row and column of zeros below and to the right, see `Geometry`."""

    pad_end = 1

    def forward(self, x: Tensor) -> Tensor:
        """Convolves the padded map."""
        return super().forward(pad_below_and_right(x, self.pad_end))


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise `nn.Conv2d` without bias, with fast gradients.

    (N, channels, H, W) -> (N, channels, H / stride, W / stride).

    Args:
        channels: of the input and the output.
        kernel_size: odd.
        stride: in both directions.
        padding: None pads by kernel_size // 2 on all sides, which keeps the size at stride 1.
        pad_end: more rows and columns of zeros below and to the right, see `Geometry`.
    """

    def __init__(
        self, channels: int, kernel_size: int, stride: int = 1, padding: int | None = None, pad_end: int = 0
    ) -> None:
        padding = kernel_size // 2 if padding is None else padding
        super().__init__(channels, channels, kernel_size, stride, padding, groups=channels, bias=False)
        self.pad_end = pad_end

    def forward(self, x: Tensor) -> Tensor:
        """Convolves each channel with its kernel, under autocast in its precision."""
        weight = self.weight
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        geometry = _pair(self.stride), _pair(self.padding), _pair(self.dilation)
        return depthwise_conv(x, weight, *geometry, self.pad_end)


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        grad_x = grad_weight = None
        if wants_weight and stride == dilation == (1, 1):
            N, C = x.shape[:2]
            kernels = grad.reshape(N * C, 1, *grad.shape[2:])
            per_image = F.conv2d(x.reshape(1, N * C, *x.shape[2:]), kernels, None, 1, padding, 1, N * C)
            grad_weight = per_image.reshape(N, *weight.shape).sum(dim=0)
            wants_weight = False
        if wants_x or wants_weight:
            # bfloat16 has no fast input gradient at stride 2
            dtype = torch.promote_types(x.dtype, torch.float32)
            arguments = grad.to(dtype), x.to(dtype), weight.to(dtype)
            mask = [wants_x, wants_weight, False]
            wide_x, wide_weight, _ = torch.ops.aten.convolution_backward(
                *arguments, None, stride, padding, dilation, False, [0, 0], x.shape[1], mask
            )
            grad_x = wide_x.to(x.dtype) if wants_x else None
            grad_weight = wide_weight.to(weight.dtype) if wants_weight else grad_weight
        return grad_x, grad_weight, None, None, None

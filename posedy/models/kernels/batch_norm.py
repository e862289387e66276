"""Batch norm in training mode fused with the activation that follows it.

For the M = N H W values x of a channel, with scale w and shift b,

    mu = mean of x,    r = 1 / sqrt(mean of (x - mu)^2 + eps),    z = w r (x - mu) + b,    y = act(z)

and with d = act'(z) dL/dy

    dL/db = sum of d,    dL/dw = r * sum of d (x - mu),
    dL/dx = w r (d - dL/db / M - r (x - mu) dL/dw / M).

Torch's kernel for bfloat16 in NCHW assigns each channel to one block of threads, so that most of a large GPU is idle,
and the activation reads and writes the feature map once more. Here S programs share a channel, each with every S-th
image, and only x and four values per channel are saved for the backward pass. Sums are accumulated in float32 for any
dtype of x.
"""

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from posedy.models.kernels.derivatives import first_derivatives_only

Activation = Literal["none", "relu", "relu6"]

_MAX_BLOCK = 1024
_MAX_SPLITS = tl.constexpr(128)
_PROGRAMS = 1056  # keeps a GPU busy: eight for each of the 132 multiprocessors of an H200


@triton.jit
def _normalize(x, coefficients, c):
    """Returns z and x - mu of values x of channel c."""
    mean = tl.load(coefficients + c * 4)
    scale = tl.load(coefficients + c * 4 + 2)
    shift = tl.load(coefficients + c * 4 + 3)
    centered = x - mean
    return centered * scale + shift, centered


@triton.jit
def _activate(z, ACTIVATION: tl.constexpr):
    if ACTIVATION != "none":
        z = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)  # as torch does: the loss shows what diverged
    if ACTIVATION == "relu6":
        z = tl.minimum(z, 6.0, propagate_nan=tl.PropagateNan.ALL)
    return z


@triton.jit
def _activation_gradient(g, z, ACTIVATION: tl.constexpr):
    """Returns the gradient with respect to z, given the gradient g with respect to the activation's output."""
    if ACTIVATION != "none":
        g = tl.where(z <= 0.0, 0.0, g)
    if ACTIVATION == "relu6":
        g = tl.where(z >= 6.0, 0.0, g)
    return g


@triton.jit
def _load_sums(sums, c, S):
    """Returns the two sums of channel c, added over its S programs."""
    program = tl.arange(0, _MAX_SPLITS)
    first = tl.load(sums + (c * S + program) * 2, mask=program < S, other=0.0)
    second = tl.load(sums + (c * S + program) * 2 + 1, mask=program < S, other=0.0)
    return tl.sum(first), tl.sum(second)


@triton.jit
def _sum_values(x, sums, N, C, HW, S, BLOCK: tl.constexpr):
    """Sums x - p and (x - p)^2 over every S-th image, where p is the first value of the channel.

    Without p, a mean far from 0 would lose the variance in the rounding of the squares.
    """
    c = tl.program_id(0)
    s = tl.program_id(1)
    pivot = tl.load(x + c.to(tl.int64) * HW).to(tl.float32)
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    offset = tl.arange(0, BLOCK)
    for n in range(s, N, S):
        plane = x + (n * C + c).to(tl.int64) * HW
        for start in range(0, HW, BLOCK):
            inside = start + offset < HW
            value = tl.load(plane + start + offset, mask=inside, other=0.0).to(tl.float32)
            distance = tl.where(inside, value - pivot, 0.0)
            first += distance
            second += distance * distance
    tl.store(sums + (c * S + s) * 2, tl.sum(first))
    tl.store(sums + (c * S + s) * 2 + 1, tl.sum(second))


@triton.jit
def _finish_statistics(x, sums, weight, bias, running_mean, running_var, coefficients, HW, S, M, eps, momentum):
    """Computes mu, r, w r and b of a channel from its sums, and updates its running statistics."""
    c = tl.program_id(0)
    pivot = tl.load(x + c.to(tl.int64) * HW).to(tl.float32)
    first, second = _load_sums(sums, c, S)
    mean = pivot + first / M
    variance = tl.maximum(second / M - (first / M) * (first / M), 0.0, propagate_nan=tl.PropagateNan.ALL)
    rstd = 1.0 / tl.sqrt(variance + eps)
    tl.store(coefficients + c * 4, mean)
    tl.store(coefficients + c * 4 + 1, rstd)
    tl.store(coefficients + c * 4 + 2, tl.load(weight + c) * rstd)
    tl.store(coefficients + c * 4 + 3, tl.load(bias + c))
    unbiased = variance * M / (M - 1)
    tl.store(running_mean + c, tl.load(running_mean + c) * (1 - momentum) + momentum * mean)
    tl.store(running_var + c, tl.load(running_var + c) * (1 - momentum) + momentum * unbiased)


@triton.jit
def _apply(x, y, coefficients, C, HW, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """Computes y for a block of a plane."""
    plane = tl.program_id(0)
    offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < HW
    at = plane.to(tl.int64) * HW + offset
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    z, _ = _normalize(value, coefficients, plane % C)
    tl.store(y + at, _activate(z, ACTIVATION).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _sum_gradients(x, g, coefficients, sums, N, C, HW, S, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """Sums d and d (x - mu) over every S-th image."""
    c = tl.program_id(0)
    s = tl.program_id(1)
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    offset = tl.arange(0, BLOCK)
    for n in range(s, N, S):
        plane = (n * C + c).to(tl.int64) * HW
        for start in range(0, HW, BLOCK):
            inside = start + offset < HW
            value = tl.load(x + plane + start + offset, mask=inside, other=0.0).to(tl.float32)
            gradient = tl.load(g + plane + start + offset, mask=inside, other=0.0).to(tl.float32)
            z, centered = _normalize(value, coefficients, c)
            d = _activation_gradient(gradient, z, ACTIVATION)
            first += d
            second += d * centered
    tl.store(sums + (c * S + s) * 2, tl.sum(first))
    tl.store(sums + (c * S + s) * 2 + 1, tl.sum(second))


@triton.jit
def _finish_gradients(sums, coefficients, grad_weight, grad_bias, line, S, M):
    """Computes dL/dw, dL/db and the coefficients of dL/dx = w r d + line[0] (x - mu) + line[1] of a channel."""
    c = tl.program_id(0)
    sum_d, sum_d_centered = _load_sums(sums, c, S)
    rstd = tl.load(coefficients + c * 4 + 1)
    scale = tl.load(coefficients + c * 4 + 2)
    tl.store(grad_bias + c, sum_d)
    tl.store(grad_weight + c, sum_d_centered * rstd)
    tl.store(line + c * 2, -scale * rstd * rstd * sum_d_centered / M)
    tl.store(line + c * 2 + 1, -scale * sum_d / M)


@triton.jit
def _apply_gradients(x, g, grad_x, coefficients, line, C, HW, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """Computes dL/dx for a block of a plane."""
    plane = tl.program_id(0)
    c = plane % C
    offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < HW
    at = plane.to(tl.int64) * HW + offset
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    gradient = tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
    z, centered = _normalize(value, coefficients, c)
    d = _activation_gradient(gradient, z, ACTIVATION)
    scale = tl.load(coefficients + c * 4 + 2)
    slope = tl.load(line + c * 2)
    level = tl.load(line + c * 2 + 1)
    tl.store(grad_x + at, (d * scale + centered * slope + level).to(grad_x.dtype.element_ty), mask=inside)


class _BatchNormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
        momentum: float,
        activation: Activation,
    ) -> Tensor:
        N, C, H, W = x.shape
        splits, block = _splits(N, C), _block(H * W)
        sums = torch.empty(C, splits, 2, device=x.device)
        coefficients = torch.empty(C, 4, device=x.device)
        _sum_values[(C, splits)](x, sums, N, C, H * W, splits, BLOCK=block)
        _finish_statistics[(C,)](
            x,
            sums,
            weight,
            bias,
            running_mean,
            running_var,
            coefficients,
            H * W,
            splits,
            float(N * H * W),
            eps,
            momentum,
        )
        y = torch.empty_like(x)
        grid = (N * C, triton.cdiv(H * W, block))
        _apply[grid](x, y, coefficients, C, H * W, ACTIVATION=activation, BLOCK=block)
        ctx.save_for_backward(x, coefficients)
        ctx.activation = activation
        return y

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, coefficients = ctx.saved_tensors
        grad = grad.contiguous()
        N, C, H, W = x.shape
        splits, block = _splits(N, C), _block(H * W)
        sums = torch.empty(C, splits, 2, device=x.device)
        line = torch.empty(C, 2, device=x.device)
        grad_weight, grad_bias = torch.empty(C, device=x.device), torch.empty(C, device=x.device)
        arguments = {"ACTIVATION": ctx.activation, "BLOCK": block}
        _sum_gradients[(C, splits)](x, grad, coefficients, sums, N, C, H * W, splits, **arguments)
        _finish_gradients[(C,)](sums, coefficients, grad_weight, grad_bias, line, splits, float(N * H * W))
        grad_x = torch.empty_like(x)
        grid = (N * C, triton.cdiv(H * W, block))
        _apply_gradients[grid](x, grad, grad_x, coefficients, line, C, H * W, **arguments)
        return grad_x, grad_weight, grad_bias, *[None] * 5


def batch_norm_act(x: Tensor, norm: nn.BatchNorm2d, activation: Activation) -> Tensor:
    """Applies a batch norm in training mode and an activation to x (N, C, H, W), and updates the running statistics.

    Args:
        x: contiguous tensor with more than one value per channel.
        norm: affine batch norm with running statistics and a momentum.
        activation: activation after the norm.
    """
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    statistics = norm.running_mean, norm.running_var
    return _BatchNormAct.apply(x, norm.weight, norm.bias, *statistics, norm.eps, norm.momentum, activation)


def _block(size: int) -> int:
    """Returns the number of values of a plane that a program processes at once."""
    return min(_MAX_BLOCK, triton.next_power_of_2(size))


def _splits(N: int, C: int) -> int:
    """Returns S, the number of programs that share a channel."""
    return max(1, min(N, _MAX_SPLITS.value, -(-_PROGRAMS // C)))

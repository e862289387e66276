"""Depthwise convolution of N x C planes with stride s, and its gradients.

With K x K kernels W, padding p at the top and the left and zeros outside X, in each plane

    Y[y, x]     = sum over i, j of W[i, j] X[s y + i - p, s x + j - p]
    dL/dX[v, u] = sum over i, j of W[i, j] dL/dY[(v + p - i) / s, (u + p - j) / s]    where s divides both
    dL/dW[i, j] = sum over y, x of dL/dY[y, x] X[s y + i - p, s x + j - p]

A plane is one channel of one image. Its kernel belongs to the channel, or to the plane itself if a batch was folded
into the channels. Sums are accumulated in float32 for any dtype of X and W.

Most instructions would compute indices and masks. Therefore the size of a plane is a compile-time constant (divisions
become multiplications, comparisons are halved, offsets of other taps move into the loads), and one pass over a plane
computes dL/dW for all taps.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from posedy.models.kernels.derivatives import first_derivatives_only

_MAX_BLOCK = 256  # eight pixels for each thread of a warp
_WARP = 32
_WARP_SUMS = 2048  # partial sums of dL/dW in a warp: 64 registers of each thread


@triton.jit
def _pixel_offsets(BLOCK: tl.constexpr):
    """Returns the offsets of the pixels in a program's block.

    If Triton knew that they are contiguous, it would give each thread eight consecutive pixels, for the store. The
    loads of a warp, nearly all of the work, would then be 16 bytes apart and touch four times as many cache lines.
    """
    return tl.max_contiguous(tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), 1)


@triton.jit
def _convolve(
    x,
    weight,
    y,
    C,
    H: tl.constexpr,
    W: tl.constexpr,
    OH: tl.constexpr,
    OW: tl.constexpr,
    STRIDE: tl.constexpr,
    K: tl.constexpr,
    PAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes Y for a block of a plane."""
    plane = tl.program_id(0)
    offset = _pixel_offsets(BLOCK)
    inside = offset < OH * OW
    out_row = offset // OW
    out_column = offset % OW
    x += plane.to(tl.int64) * H * W
    y += plane.to(tl.int64) * OH * OW
    weight += (plane % C).to(tl.int64) * K * K
    total = tl.zeros((BLOCK,), tl.float32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            row = out_row * STRIDE + i - PAD
            column = out_column * STRIDE + j - PAD
            exists = inside & (row >= 0) & (row < H) & (column >= 0) & (column < W)
            value = tl.load(x + row * W + column, mask=exists, other=0.0).to(tl.float32)
            total += value * tl.load(weight + i * K + j).to(tl.float32)
    tl.store(y + offset, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _input_gradient(
    g,
    weight,
    grad_x,
    C,
    H: tl.constexpr,
    W: tl.constexpr,
    OH: tl.constexpr,
    OW: tl.constexpr,
    STRIDE: tl.constexpr,
    K: tl.constexpr,
    PAD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes dL/dX for a block of a plane."""
    plane = tl.program_id(0)
    offset = _pixel_offsets(BLOCK)
    inside = offset < H * W
    row = offset // W
    column = offset % W
    g += plane.to(tl.int64) * OH * OW
    grad_x += plane.to(tl.int64) * H * W
    weight += (plane % C).to(tl.int64) * K * K
    total = tl.zeros((BLOCK,), tl.float32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            down = row + PAD - i
            right = column + PAD - j
            out_row = down // STRIDE
            out_column = right // STRIDE
            exists = inside & (down >= 0) & (right >= 0) & (out_row < OH) & (out_column < OW)
            exists = exists & (out_row * STRIDE == down) & (out_column * STRIDE == right)
            gradient = tl.load(g + out_row * OW + out_column, mask=exists, other=0.0).to(tl.float32)
            total += gradient * tl.load(weight + i * K + j).to(tl.float32)
    tl.store(grad_x + offset, total.to(grad_x.dtype.element_ty), mask=inside)


@triton.jit
def _weight_gradient(
    x,
    g,
    grad_weight,
    H: tl.constexpr,
    W: tl.constexpr,
    OH: tl.constexpr,
    OW: tl.constexpr,
    STRIDE: tl.constexpr,
    K: tl.constexpr,
    PAD: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes dL/dW for a plane, all K * K taps (and zeros up to TAPS) in one pass."""
    plane = tl.program_id(0)
    x += plane.to(tl.int64) * H * W
    g += plane.to(tl.int64) * OH * OW
    grad_weight += plane.to(tl.int64) * K * K
    tap = tl.arange(0, TAPS)
    i = tap[:, None] // K
    j = tap[:, None] % K
    total = tl.zeros((TAPS, BLOCK), tl.float32)
    for start in range(0, OH * OW, BLOCK):
        offset = start + tl.arange(0, BLOCK)
        inside = offset < OH * OW
        gradient = tl.load(g + offset, mask=inside, other=0.0).to(tl.float32)
        row = (offset // OW * STRIDE)[None, :] + i - PAD
        column = (offset % OW * STRIDE)[None, :] + j - PAD
        exists = inside[None, :] & (i < K) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        value = tl.load(x + row * W + column, mask=exists, other=0.0).to(tl.float32)
        total += value * gradient[None, :]
    tl.store(grad_weight + tap, tl.sum(total, axis=1), mask=tap < K * K)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, pad_end: int) -> Tensor:
        weight = weight.contiguous()
        N, C, H, W = x.shape
        K = weight.shape[-1]
        OH, OW = ((size + 2 * padding + pad_end - K) // stride + 1 for size in (H, W))
        y = x.new_empty(N, C, OH, OW)
        sizes = H, W, OH, OW
        constants = {"STRIDE": stride, "K": K, "PAD": padding}
        block = _block(OH * OW)
        grid = (N * C, triton.cdiv(OH * OW, block))
        _convolve[grid](x, weight, y, C, *sizes, **constants, BLOCK=block, num_warps=1)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return y

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        N, C, H, W = x.shape
        K = weight.shape[-1]
        sizes = H, W, *grad.shape[2:]
        constants = {"STRIDE": ctx.stride, "K": K, "PAD": ctx.padding}
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        grad_x = grad_weight = None
        if needs_x:
            grad_x = torch.empty_like(x)
            block = _block(H * W)
            grid = (N * C, triton.cdiv(H * W, block))
            _input_gradient[grid](grad, weight, grad_x, C, *sizes, **constants, BLOCK=block, num_warps=1)
        if needs_weight:
            per_plane = torch.empty(N, *weight.shape, device=x.device)
            taps = triton.next_power_of_2(K * K)
            block = min(triton.next_power_of_2(grad.shape[2] * grad.shape[3]), max(_WARP, _WARP_SUMS // taps))
            # one warp sums without exchanging data with others, which is faster than several warps
            _weight_gradient[(N * C,)](x, grad, per_plane, *sizes, **constants, TAPS=taps, BLOCK=block, num_warps=1)
            grad_weight = (per_plane[0] if N == 1 else per_plane.sum(dim=0)).to(weight.dtype)
        return grad_x, grad_weight, None, None, None


def depthwise(x: Tensor, weight: Tensor, stride: int, padding: int, pad_end: int = 0) -> Tensor:
    """Convolves each channel of x (N, C, H, W) with its own kernel of weight (C, 1, K, K).

    Args:
        x: contiguous tensor.
        weight: kernels with the dtype of x.
        stride: stride along both axes.
        padding: rows and columns of zeros on all sides.
        pad_end: additional rows and columns of zeros at the bottom and the right.
    """
    return _Depthwise.apply(x, weight, stride, padding, pad_end)


def _block(size: int) -> int:
    """Returns the number of pixels of a plane that a program processes at once."""
    return min(_MAX_BLOCK, triton.next_power_of_2(size))

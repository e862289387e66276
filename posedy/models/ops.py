"""Operations of the networks that torch lacks or is slow at: per-image, depthwise, pooling, upsampling.

**Depthwise convolution with fast gradients.** On a GPU torch's kernels for it take 28 of the 181 ms of a training step
of these networks (an H200 in bfloat16 with 128 persons), 17 of them the weight's gradient: there Triton kernels take
their place.

On a CPU, in torch's contiguous format, torch spends most of a training step of these networks in two gradients of
depthwise convolutions: the weight's of 5x5 kernels (ten times the forward pass) and, in bfloat16, the input's at stride
2 (forty times). At stride 1 the weight's gradient is itself a depthwise convolution, with the output's gradient as
kernels:

    dL/dW[c, i, j] = sum over y, x of dL/dY[c, y, x] * X[c, y + i - p, x + j - p]

**Per-image convolution**: each image of a batch is convolved with a kernel of its own. The formulations are equal up to
rounding. No library has such an operation; what can be made of what they have:

- `plain`: one image is an ordinary convolution.
- `matrix`: a 1x1 convolution is a product of matrices for each image, of its kernel and its pixels (N, C, H * W).
- `grouped`: the images become the groups of one image of N * C channels.
- `beside`: the same with the N * C numbers of a pixel lying together, in memory (H, W, N, C): depthwise convolutions
  are then ordinary ones of N * C channels in torch's channels_last. Whatever works on each number, such as an
  activation, keeps that order; batch norm does not.
- `rows`: a 1x1 convolution as products of matrices whose rows are pixels, which may lie N * C apart.
- `one_by_one`: a convolution for each image.

The choice, as `python -m tools.lab.benchmarks layers` measures it anew on the machine it runs on:

| batch | kernel | in training, or with batch norms | fused for inference |
|---|---|---|---|
| 1 | all | plain | plain |
| more | 1x1 | matrix | rows |
| more | depthwise | grouped | beside |
| more | other | grouped | one_by_one |

Measured on two cores of an AMD EPYC with AVX2, one thread, float32, batch 8, in times of a static convolution in
channels_last: 1x1 with 16 -> 96 channels at 64x48 rows 1.2, matrix 1.7; depthwise 3x3 of 96 channels beside 1.1,
grouped 2.0, one_by_one 1.8; of 480 channels at 8x6 beside 1.1, grouped 1.7, one_by_one 4.7. A block with
large maps is faster still with one image after the other, see `posedy/export/fuse.py`.

On a GPU (H200, bfloat16, batch 128) grouped 1x1 convolutions take 3 to 90 times as long as `matrix`, which takes as
long as static ones; `beside` was not measured there.

**Pooling.** The mean over the pixels of a map, with a gradient that takes no memory.

Torch's gradient of a mean in float32 over a map in bfloat16 is a whole map in float32, then cast. Here it is one number
for each channel, expanded, which autograd adds to the map's other gradients in the pass that it makes anyway.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Geometry(NamedTuple):
    """What a convolution is beside its kernel; pairs are (vertical, horizontal).

    Attributes:
        stride: as in `F.conv2d`.
        padding: as in `F.conv2d`.
        dilation: as in `F.conv2d`.
        groups: as in `F.conv2d`.
        pad_end: more rows and columns of zeros below and to the right, as TensorFlow's SAME padding has at stride 2.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    pad_end: int = 0

    def is_pointwise(self, weight: Tensor) -> bool:
        """Whether kernels (..., kh, kw) see one pixel each and all channels of it."""
        sides = (*weight.shape[-2:], *self.stride)
        return sides == (1, 1, 1, 1) and self.padding == (0, 0) and self.groups == 1 and not self.pad_end

    def is_depthwise(self, weight: Tensor) -> bool:
        """Whether kernels (N, out, in / groups, kh, kw) see one channel each, and each channel has one."""
        return weight.shape[2] == 1 and weight.shape[1] == self.groups > 1


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`F.conv2d` of a geometry: (N, in, H, W) and kernels (out, in / groups, kh, kw) -> (N, out, H', W')."""
    x = pad_below_and_right(x, geometry.pad_end)
    return F.conv2d(x, weight, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)


Formulation = Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]
"""(x (N, in, H, W), kernels (N, out, in / groups, kh, kw), biases (N, out) or None, geometry) -> (N, out, H', W')."""


def choose(batch: int, weight: Tensor, geometry: Geometry, fused: bool) -> str:
    """The name of the formulation for a batch, by the table above."""
    if batch == 1:
        return "plain"
    if geometry.is_pointwise(weight):
        return "rows" if fused else "matrix"
    if geometry.is_depthwise(weight):
        return "beside" if fused else "grouped"
    return "one_by_one" if fused else "grouped"


def applies(name: str, batch: int, weight: Tensor, geometry: Geometry) -> bool:
    """Whether a formulation is one for such kernels."""
    pointwise, depthwise = geometry.is_pointwise(weight), geometry.is_depthwise(weight)
    return {"plain": batch == 1, "matrix": pointwise, "rows": pointwise, "beside": depthwise}.get(name, True)


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """One image (1, in, H, W)."""
    if bias is None and geometry.is_depthwise(weight):
        return depthwise_conv(x, weight[0], geometry.stride, geometry.padding, geometry.dilation, geometry.pad_end)
    return conv2d(x, weight[0], None if bias is None else bias[0], geometry)


def matrix(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """A 1x1 convolution of images in torch's contiguous format."""
    pixels, matrices = x.flatten(2), weight.flatten(2)
    y = torch.bmm(matrices, pixels) if bias is None else torch.baddbmm(bias[..., None], matrices, pixels)
    return y.reshape(x.shape[0], -1, *x.shape[2:])


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Any convolution of images in torch's contiguous format."""
    N, out_channels = weight.shape[:2]
    one = x.reshape(1, -1, *x.shape[2:])
    if geometry.is_depthwise(weight):
        kernels = weight.flatten(0, 1)
        y = depthwise_conv(one, kernels, geometry.stride, geometry.padding, geometry.dilation, geometry.pad_end)
        y = y.reshape(N, out_channels, *y.shape[2:])
        return y if bias is None else y + bias[..., None, None]
    flat_bias = None if bias is None else bias.flatten()
    y = conv2d(one, weight.flatten(0, 1), flat_bias, geometry._replace(groups=N * geometry.groups))
    return y.reshape(N, out_channels, *y.shape[2:])


def beside(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """A depthwise convolution of images that lie beside each other, and so does the output."""
    N, C, H, W = x.shape
    one = x.permute(2, 3, 0, 1).reshape(1, H, W, N * C).permute(0, 3, 1, 2)
    flat_bias = None if bias is None else bias.flatten()
    y = conv2d(one, weight.flatten(0, 1), flat_bias, geometry._replace(groups=N * C))
    return y.permute(0, 2, 3, 1).view(*y.shape[2:], N, C).permute(2, 3, 0, 1)


def rows(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """A 1x1 convolution of images that lie beside each other or in channels_last; without gradients.

    More outputs than inputs, which a depthwise convolution takes in these networks, lie beside each other; fewer lie in
    channels_last.
    """
    N, C, H, W = x.shape
    out_channels = weight.shape[1]
    if bias is None:
        bias = x.new_zeros(N, out_channels)
    pixels, matrices = x.permute(0, 2, 3, 1).reshape(N, H * W, C), weight.flatten(2).mT
    if out_channels <= C:
        return torch.baddbmm(bias[:, None], pixels, matrices).view(N, H, W, out_channels).permute(0, 3, 1, 2)
    y = x.new_empty(H * W, N, out_channels).copy_(bias)
    y.transpose(0, 1).baddbmm_(pixels, matrices)
    return y.view(H, W, N, out_channels).permute(2, 3, 0, 1)


def one_by_one(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Any convolution, best of images in channels_last.

    Split, not indexed: under autograd each index of a batch makes a gradient of the whole batch's size.
    """
    biases = [None] * len(x) if bias is None else bias.unbind()
    parts = zip(x.split(1), weight.unbind(), biases, strict=True)
    return torch.cat([conv2d(image, kernel, b, geometry) for image, kernel, b in parts])


FORMULATIONS: dict[str, Formulation] = {
    "plain": plain,
    "matrix": matrix,
    "grouped": grouped,
    "rows": rows,
    "beside": beside,
    "one_by_one": one_by_one,
}


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


class BilinearUpsample(nn.Module):
    """Doubles height and width: `nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)`.

    Along each axis, with the border repeated,

        y[2 i] = x[i - 1] / 4 + 3 x[i] / 4,    y[2 i + 1] = 3 x[i] / 4 + x[i + 1] / 4.

    Torch's CUDA kernel gives a thread to each cell of a map and goes through all maps of the batch in it, which takes
    45 % of a training step of these networks; there it is two products with constant matrices, R x C^T.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, 2 h, 2 w)."""
        if not x.is_cuda:
            return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        rows, columns = (doubling_matrix(size, x) for size in x.shape[-2:])
        return rows @ (x @ columns.T)


def doubling_matrix(size: int, like: Tensor) -> Tensor:
    """The matrix (2 size, size) that doubles an axis, with the type and the device of `like`."""
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    before = torch.cat([identity[:1], identity[:-1]])
    after = torch.cat([identity[1:], identity[-1:]])
    return torch.stack([before + 3 * identity, 3 * identity + after], dim=1).flatten(0, 1) / 4

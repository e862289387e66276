"""Ways to convolve each image of a batch with a kernel of its own, all equal up to rounding, and the choice among them.

No library has such a convolution. What can be made of what they have:

- `plain`: one image is an ordinary convolution.
- `matrix`: a 1x1 convolution is a product of matrices for each image, of its kernel and its pixels (N, C, H * W).
- `grouped`: the images become the groups of one image of N * C channels.
- `beside`: the same with the N * C numbers of a pixel lying together, in memory (H, W, N, C): depthwise convolutions
  are then ordinary ones of N * C channels in torch's channels_last. Whatever works on each number, such as an
  activation, keeps that order; batch norm does not.
- `rows`: a 1x1 convolution as products of matrices whose rows are pixels, which may lie N * C apart.
- `one_by_one`: a convolution for each image.

The choice, as `posedy benchmark layers` measures it anew on the machine it runs on:

| batch | kernel | in training, or with batch norms | fused for inference |
|---|---|---|---|
| 1 | all | plain | plain |
| more | 1x1 | matrix | rows |
| more | depthwise | grouped | beside |
| more | other | grouped | one_by_one |

Measured on two cores of an AMD EPYC with AVX2, one thread, float32, batch 8, in times of a static convolution in
channels_last: 1x1 with 16 -> 96 channels at 64x48 rows 1.2, matrix 1.7; depthwise 3x3 of 96 channels beside 1.1,
grouped 2.0, one_by_one 1.8; of 480 channels at 8x6 beside 1.1, grouped 1.7, one_by_one 4.7. A block with
large maps is faster still with one image after the other, see `posedy/deploy/image_by_image.py`.

On a GPU (H200, bfloat16, batch 128) grouped 1x1 convolutions take 3 to 90 times as long as `matrix`, which takes as
long as static ones; `beside` was not measured there.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from posedy.models.depthwise import depthwise_conv, pad_below_and_right


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

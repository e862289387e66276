"""Replacements of dynamic convolutions for the export to ONNX.

All compute the same as `DynamicConv2d`. They differ in the batch sizes that the graph supports and in their speed in a
runtime; `make_export_layer` chooses one.
"""

import copy
import functools
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.export.fuse import Net, fold_attention, fold_norms
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from posedy.models.ops import conv2d

Batch = Literal["free", 1]

MIN_SUMMED_VALUES = 16_384
"""Values of a kernel from which `SummedKernel` is faster than `ComputedKernel` in OpenVINO."""


def prepare_for_export(net: Net, batch: Batch, runtime: str) -> Net:
    """Returns a copy of a module for export to a runtime, with norms folded and dynamic convolutions replaced."""
    net = fold_norms(net)
    for name, layer in list(net.named_modules()):
        if isinstance(layer, DynamicConv2d):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, make_export_layer(layer, batch, runtime))
    return net


def make_export_layer(conv: DynamicConv2d, batch: Batch, runtime: str) -> nn.Module:
    """Creates the replacement of a dynamic convolution for export.

    | batch | kernel                               | replacement       |
    |-------|--------------------------------------|-------------------|
    | 1     | large, in OpenVINO                   | `SummedKernel`    |
    | 1     | others                               | `ComputedKernel`  |
    | free  | 1x1                                  | `MatrixProduct`   |
    | free  | depthwise, kxk                       | `WeightedOutputs` |

    `python -m tools.lab.benchmarks aggregation` measures the replacements, and `python -m tools.lab.benchmarks latency`
    whole networks; docs/results/speed.md has the numbers. What was tried at batch size 1 and is slower:

    - OpenVINO multiplies K kernels by a vector at half of the speed at which it sums them elementwise, since the inner
      dimension K of the product is too small; the sum also takes kernels in float16 or int8, see
      `posedy.export.compressed_constants`. In ONNX Runtime the sum is slower than the product.
    - A 1x1 convolution as a matrix product: in both runtimes feature maps change their layout before and after it.
    - A depthwise convolution as weighted outputs of K convolutions or as shifted multiply-adds.

    In ONNX Runtime half of the time is depthwise convolution, because computed kernels prevent its blocked layout. A
    layer written in that layout took half of its time, but the layout depends on the CPU, and so would the file.
    """
    if batch == 1:
        is_large = conv.weight[0].numel() >= MIN_SUMMED_VALUES
        return SummedKernel(conv) if is_large and runtime == "openvino" else ComputedKernel(conv)
    return MatrixProduct(conv) if conv.conv_params.is_pointwise(conv.weight) else WeightedOutputs(conv)


class ExportedAttention(nn.Module):
    """`KernelAttention` in float32 with its norm and temperature folded into the last layer: (N, C, H, W) -> (N, K)."""

    def __init__(self, attention: KernelAttention) -> None:
        super().__init__()
        folded = copy.deepcopy(attention).requires_grad_(False)
        fold_attention(folded)
        self.fc1, self.fc2 = folded.fc1, folded.fc2
        self.is_softmax = folded.temperature is not None

    def forward(self, x: Tensor) -> Tensor:
        """Computes the attention weights (N, K)."""
        z = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3)))))
        return F.softmax(z, dim=-1) if self.is_softmax else F.sigmoid(z)


class _ExportLayer(nn.Module):
    """Base class of the replacements, with attention and convolution parameters."""

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__()
        self.attention = ExportedAttention(conv.attention)
        self.conv_params = conv.conv_params


class _AggregatingLayer(_ExportLayer):
    """Base class of the replacements that aggregate kernels and biases.

    After `fold_norms` the K biases of a layer without own biases are equal. As softmax attention sums to one, their
    aggregation is then a constant, which runtimes add within the convolution.
    """

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__(conv)
        self.kernel_shape = tuple(conv.weight.shape[1:])
        bias = conv.bias
        is_constant = bias is not None and self.attention.is_softmax and bool((bias == bias[0]).all())
        self.constant_bias = _constant(bias[:1]) if bias is not None and is_constant else None
        self.biases = _constant(bias) if bias is not None and not is_constant else None

    def aggregate_bias(self, pi: Tensor) -> Tensor | None:
        """Aggregates the biases (N, out) of images with attention (N, K); a constant bias is (1, out)."""
        return self.constant_bias if self.biases is None else pi @ self.biases


class _SingleImageLayer(_AggregatingLayer, ABC):
    """Base class of a convolution node whose kernel is computed in the graph: (1, C, H, W) -> (1, O, H', W')."""

    @abstractmethod
    def aggregate(self, pi: Tensor) -> Tensor:
        """Aggregates the kernel with attention (1, K); the result has its values in the order of its shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolves the image with its kernel."""
        pi = self.attention(x)
        bias = self.aggregate_bias(pi)
        kernel = self.aggregate(pi).reshape(self.kernel_shape)
        return conv2d(x, kernel, None if bias is None else bias.reshape(-1), self.conv_params)


class ComputedKernel(_SingleImageLayer):
    """A convolution whose kernel is a product of attention and a matrix of K kernels."""

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__(conv)
        self.kernels = _constant(conv.weight.flatten(1))

    def aggregate(self, pi: Tensor) -> Tensor:
        """Aggregates the kernel (1, out * in / groups * kh * kw)."""
        return pi @ self.kernels


class SummedKernel(_SingleImageLayer):
    """A convolution whose kernel is a sum of K kernels (out, in / groups * kh * kw), weighted elementwise."""

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__(conv)
        self.kernels = nn.ParameterList(_constant(kernel.flatten(1)) for kernel in conv.weight)

    def aggregate(self, pi: Tensor) -> Tensor:
        """Aggregates the kernel (out, in / groups * kh * kw)."""
        weights = pi.split(1, dim=1)
        return functools.reduce(torch.add, (w * kernel for w, kernel in zip(weights, self.kernels, strict=True)))


class MatrixProduct(_AggregatingLayer):
    """A 1x1 convolution as a matrix product for each image: (N, C, H, W) -> (N, O, H, W)."""

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__(conv)
        self.kernels = _constant(conv.weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies kernels (N, O, C) by pixels (N, C, H * W)."""
        pi = self.attention(x)
        bias = self.aggregate_bias(pi)
        y = (pi @ self.kernels).reshape(-1, *self.kernel_shape[:2]) @ x.flatten(2)
        if bias is not None:
            y = y + bias[..., None]
        return y.reshape(-1, self.kernel_shape[0], *x.shape[2:])


class WeightedOutputs(_ExportLayer):
    """A sum of K static convolutions weighted by attention: (N, C, H, W) -> (N, O, H', W').

    Supports any convolution and batch size, at K times the multiply-adds.
    """

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__(conv)
        self.kernels = nn.ParameterList(_constant(kernel) for kernel in conv.weight)
        self.biases = nn.ParameterList(_constant(bias) for bias in conv.bias) if conv.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolves x with each of K kernels and sums the outputs with attention weights pi_k.

        y = sum_k pi_k (W_k * x + b_k)
        """
        weights = self.attention(x)[..., None, None, None].unbind(dim=1)
        biases = self.biases if self.biases is not None else [None] * len(self.kernels)
        outputs = [
            weight * conv2d(x, kernel, bias, self.conv_params)
            for weight, kernel, bias in zip(weights, self.kernels, biases, strict=True)
        ]
        return functools.reduce(torch.add, outputs)


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)

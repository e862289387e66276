"""Replacements of dynamic convolutions for the export to ONNX.

All compute the same as `DynamicConv2d`. They differ in the batch sizes that the graph supports and in their speed in a
runtime; `make_export_layer` chooses one.
"""

import copy
import functools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.export.fuse import Net, fold_attention, fold_norms
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from posedy.models.ops import conv2d

Batch = Literal["free", 1]


def prepare_for_export(net: Net, batch: Batch) -> Net:
    """Returns a copy of a module for export, with norms folded and dynamic convolutions replaced."""
    net = fold_norms(net)
    for name, layer in list(net.named_modules()):
        if isinstance(layer, DynamicConv2d):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, make_export_layer(layer, batch))
    return net


def make_export_layer(conv: DynamicConv2d, batch: Batch) -> nn.Module:
    """Creates the replacement of a dynamic convolution for export.

    | batch | kernel         | replacement       |
    |-------|----------------|-------------------|
    | 1     | all            | `ComputedKernel`  |
    | free  | 1x1            | `MatrixProduct`   |
    | free  | depthwise, kxk | `WeightedOutputs` |

    Time of the dynamic MobileNetV2 x0.5 backbone relative to its static counterpart, by the replacements of 1x1 and of
    depthwise convolutions (batch size 1, 256x192, norms folded, one thread, medians of interleaved calls, onnxruntime
    1.32 and openvino 2026.4 on a shared CPU with AVX2, so approximate; each line is from one of two runs):

    | 1x1                       | depthwise                           | onnxruntime | openvino |
    |---------------------------|-------------------------------------|-------------|----------|
    | computed kernel           | computed kernel                     | 3.8, 3.9    | 1.9, 2.0 |
    | matrix product            | computed kernel                     | 5.0         | 3.2      |
    | computed kernel           | weighted outputs                    | 4.4         | 2.7      |
    | computed kernel           | weighted outputs of one merged conv | 4.5         | 9.9      |
    | computed kernel           | nine shifted multiply-adds          | 7.4         |          |
    | computed kernel as W^T pi | the same                            | 26          | 2.7      |

    Therefore both runtimes use the same graph at batch size 1; `python -m tools.lab.benchmarks latency` measures it (on
    an idle machine 2.4 in ONNX Runtime and 1.7 in OpenVINO). In ONNX Runtime half of the time is depthwise convolution,
    because computed kernels prevent its blocked layout. A layer written in that layout took half of its time, but the
    layout depends on the CPU, and so would the file.
    """
    if batch == 1:
        return ComputedKernel(conv)
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
    """Base class of the replacements that aggregate kernels and biases."""

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__(conv)
        self.kernel_shape = tuple(conv.weight.shape[1:])
        self.kernels = _constant(conv.weight.flatten(1))
        self.biases = _constant(conv.bias) if conv.bias is not None else None

    def aggregate(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Aggregates the kernels (N, out * in / groups * kh * kw) and biases (N, out) of images."""
        pi = self.attention(x)
        return pi @ self.kernels, pi @ self.biases if self.biases is not None else None


class ComputedKernel(_AggregatingLayer):
    """A convolution node whose kernel is computed in the graph, for one image: (1, C, H, W) -> (1, O, H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolves the image with its kernel."""
        kernel, bias = self.aggregate(x)
        return conv2d(
            x, kernel.reshape(self.kernel_shape), bias.reshape(-1) if bias is not None else None, self.conv_params
        )


class MatrixProduct(_AggregatingLayer):
    """A 1x1 convolution as a matrix product for each image: (N, C, H, W) -> (N, O, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies kernels (N, O, C) by pixels (N, C, H * W)."""
        kernels, biases = self.aggregate(x)
        y = kernels.reshape(-1, *self.kernel_shape[:2]) @ x.flatten(2)
        if biases is not None:
            y = y + biases[..., None]
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
        """Computes the sum over k of pi_k (W_k * x + b_k)."""
        weights = self.attention(x)[..., None, None, None].unbind(dim=1)
        biases = self.biases if self.biases is not None else [None] * len(self.kernels)
        outputs = [
            weight * conv2d(x, kernel, bias, self.conv_params)
            for weight, kernel, bias in zip(weights, self.kernels, biases, strict=True)
        ]
        return functools.reduce(torch.add, outputs)


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)

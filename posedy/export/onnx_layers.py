"""Dynamic convolutions in the forms that become ONNX graphs.

All compute what `DynamicConv2d` computes. They differ in the batches that a graph of them takes and in what a runtime
makes of it: `dynamic_form` chooses.
"""

import copy
import functools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.export.fuse import Net, fold_norms, fold_temperature
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from posedy.models.ops import conv2d

Batch = Literal["free", 1]


def exportable(net: Net, batch: Batch) -> Net:
    """A copy of a network, or of a part, that becomes a graph: norms folded, dynamic layers in the form for a batch."""
    net = fold_norms(net)
    for name, layer in list(net.named_modules()):
        if isinstance(layer, DynamicConv2d):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, dynamic_form(layer, batch))
    return net


def dynamic_form(conv: DynamicConv2d, batch: Batch) -> nn.Module:
    """The form in which a dynamic convolution is exported.

    | batch | layer          | form              |
    |-------|----------------|-------------------|
    | 1     | all            | `ComputedKernel`  |
    | free  | 1x1            | `MatrixProduct`   |
    | free  | depthwise, kxk | `WeightedOutputs` |

    Time of the dynamic MobileNetV2 x0.5 backbone at batch 1 and 256x192 in times of its static twin's (norms folded,
    one thread, medians of interleaved calls, onnxruntime 1.32 and openvino 2026.4 on a CPU with AVX2 that other work
    shared, so roughly; each line from one of two runs), by the forms of 1x1 and of depthwise convolutions:

    | 1x1                       | depthwise                           | onnxruntime | openvino |
    |---------------------------|-------------------------------------|-------------|----------|
    | computed kernel           | computed kernel                     | 3.8, 3.9    | 1.9, 2.0 |
    | matrix product            | computed kernel                     | 5.0         | 3.2      |
    | computed kernel           | weighted outputs                    | 4.4         | 2.7      |
    | computed kernel           | weighted outputs of one merged conv | 4.5         | 9.9      |
    | computed kernel           | nine shifted multiply-adds          | 7.4         |          |
    | computed kernel as W^T pi | the same                            | 26          | 2.7      |

    So one graph of batch 1 serves both; `python -m tools.lab.benchmarks latency` times it, on a machine without other
    work at 2.4 in ONNX Runtime and 1.7 in OpenVINO. In ONNX Runtime half of the time is depthwise convolution, whose
    computed kernels keep it from its blocked layout. Written in that layout, kernels and all, one layer took half of
    its time; but the layout differs from CPU to CPU, and so would the file.
    """
    if batch == 1:
        return ComputedKernel(conv)
    return MatrixProduct(conv) if conv.geometry.is_pointwise(conv.weight) else WeightedOutputs(conv)


class ExportedAttention(nn.Module):
    """`KernelAttention` in float32, its temperature folded into the last layer: (N, C, H, W) -> (N, K)."""

    def __init__(self, attention: KernelAttention) -> None:
        super().__init__()
        folded = copy.deepcopy(attention).requires_grad_(False)
        fold_temperature(folded)
        self.fc1, self.fc2 = folded.fc1, folded.fc2
        self.is_softmax = folded.temperature is not None

    def forward(self, x: Tensor) -> Tensor:
        """Attention weights (N, K)."""
        z = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3)))))
        return F.softmax(z, dim=-1) if self.is_softmax else F.sigmoid(z)


class _Form(nn.Module):
    """What the forms share: attention and geometry."""

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__()
        self.attention = ExportedAttention(conv.attention)
        self.geometry = conv.geometry


class _Aggregating(_Form):
    """A form that aggregates kernels and biases."""

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__(conv)
        self.kernel_shape = tuple(conv.weight.shape[1:])
        self.kernels = _constant(conv.weight.flatten(1))
        self.biases = _constant(conv.bias) if conv.bias is not None else None

    def aggregate(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The kernels (N, out * in / groups * kh * kw) and the biases (N, out) of images."""
        pi = self.attention(x)
        return pi @ self.kernels, pi @ self.biases if self.biases is not None else None


class ComputedKernel(_Aggregating):
    """A convolution whose kernel is an input of its node: one image, (1, C, H, W) -> (1, O, H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolves the image with its kernel."""
        kernel, bias = self.aggregate(x)
        return conv2d(
            x, kernel.reshape(self.kernel_shape), bias.reshape(-1) if bias is not None else None, self.geometry
        )


class MatrixProduct(_Aggregating):
    """A 1x1 convolution as a matrix product for each image: (N, C, H, W) -> (N, O, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """W (N, O, C) times the pixels (N, C, H W)."""
        kernels, biases = self.aggregate(x)
        y = kernels.reshape(-1, *self.kernel_shape[:2]) @ x.flatten(2)
        if biases is not None:
            y = y + biases[..., None]
        return y.reshape(-1, self.kernel_shape[0], *x.shape[2:])


class WeightedOutputs(_Form):
    """The sum of K constant convolutions, weighted by attention: (N, C, H, W) -> (N, O, H', W').

    Any convolution with any batch, at K times the multiply-adds.
    """

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__(conv)
        self.kernels = nn.ParameterList(_constant(kernel) for kernel in conv.weight)
        self.biases = nn.ParameterList(_constant(bias) for bias in conv.bias) if conv.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Sums pi_k (W_k * x + b_k)."""
        weights = self.attention(x)[..., None, None, None].unbind(dim=1)
        biases = self.biases if self.biases is not None else [None] * len(self.kernels)
        outputs = [
            weight * conv2d(x, kernel, bias, self.geometry)
            for weight, kernel, bias in zip(weights, self.kernels, biases, strict=True)
        ]
        return functools.reduce(torch.add, outputs)


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)

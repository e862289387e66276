"""#Param and multiply-adds (MAdds) of networks, counted from the operations that a forward pass executes.

The convention is the common one, in units of 1. #Param counts all weights, including the scale and shift of batch norms
and the biases. MAdds counts convolutions and fully connected layers without their biases; a dynamic convolution adds
(paper, section 3.2)

    H W C_in + C_in^2 / 4 + C_in K / 4 + K C_in C_out kh kw / groups (+ K C_out where it has a bias)

for its pooling, its attention and the aggregation of its kernels. Batch norm, activations, upsampling, additions,
softmax and the pooling of squeeze-and-excitation and classifiers are not counted.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention

_FLOPS_PER_MADD = 2
_CONVOLUTION = torch.ops.aten.convolution
_MEAN = torch.ops.aten.mean


@dataclass(frozen=True)
class Complexity:
    """The #Param and the MAdds of a network.

    Attributes:
        parameters: #Param, the number of trainable parameters.
        madds: MAdds for one image.
    """

    parameters: int
    madds: int

    def __add__(self, other: "Complexity") -> "Complexity":
        return Complexity(self.parameters + other.parameters, self.madds + other.madds)

    def __sub__(self, other: "Complexity") -> "Complexity":
        return Complexity(self.parameters - other.parameters, self.madds - other.madds)


@dataclass(frozen=True)
class ConvLayer:
    """A convolution executed in a forward pass.

    Attributes:
        name: name of the module in its network, as in `named_modules`.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: (height, width).
        groups: as in `nn.Conv2d`.
        in_size: (height, width) of the input.
        out_size: (height, width) of the output.
        is_dynamic: whether it is a dynamic convolution.
        weights: number of weights of one kernel, without bias.
        madds: MAdds of the convolution alone, without attention and aggregation.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    groups: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    is_dynamic: bool
    weights: int
    madds: int


def measure(module: nn.Module, input_shape: Sequence[int]) -> Complexity:
    """Counts the parameters of a network and the MAdds of one image in evaluation mode.

    The network may be on any device, including the meta device. It is not changed, and no values are computed.

    Args:
        module: network whose input is a batch of images.
        input_shape: (C, H, W) of an image.

    Raises:
        ValueError: if the shape is not three positive numbers.
    """
    with FakeTensorMode():
        counter = _count_flops(_weightless_copy(module), input_shape)
    counts = counter.get_flop_counts().get("Global", {})
    flops = sum(count for operation, count in counts.items() if operation is not _MEAN)
    flops += sum(
        _module_flops(counter, module, name, _MEAN)
        for name, layer in module.named_modules()
        if isinstance(layer, KernelAttention)
    )
    return Complexity(sum(parameter.numel() for parameter in module.parameters()), flops // _FLOPS_PER_MADD)


def measure_layers(module: nn.Module, input_shape: Sequence[int]) -> list[ConvLayer]:
    """Returns the convolutions of a network in execution order; for the arguments see `measure`."""
    sizes: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}

    def record(name: str, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        sizes[name] = _spatial_size(inputs[0]), _spatial_size(output)

    with FakeTensorMode():
        traced = _weightless_copy(module)
        convs = {
            name: layer
            for name, layer in traced.named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | DynamicConv2d)
        }
        for name, layer in convs.items():
            layer.register_forward_hook(partial(record, name))
        counter = _count_flops(traced, input_shape)
    return [
        ConvLayer(
            name,
            in_channels=convs[name].in_channels,
            out_channels=convs[name].out_channels,
            kernel_size=(convs[name].kernel_size[0], convs[name].kernel_size[1]),
            groups=convs[name].groups,
            in_size=in_size,
            out_size=out_size,
            is_dynamic=isinstance(convs[name], DynamicConv2d),
            weights=_one_kernel(convs[name]).numel(),
            madds=_module_flops(counter, module, name, _CONVOLUTION) // _FLOPS_PER_MADD,
        )
        for name, (in_size, out_size) in sizes.items()
    ]


def _weightless_copy(module: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode, with tensors that have shapes but no memory (FakeTensorMode).

    They are float32 CPU tensors: autocast does not support the meta device, and counts do not depend on the precision.
    Tensors of equal shape are shared, since creating them takes a third of the time.
    """
    tensors = [*module.parameters(), *module.buffers()]
    tensor_by_shape = {shape: torch.empty(shape, device="cpu") for shape in {tensor.shape for tensor in tensors}}
    return copy.deepcopy(module, {id(tensor): tensor_by_shape[tensor.shape] for tensor in tensors}).eval()


def _count_flops(traced: nn.Module, input_shape: Sequence[int]) -> FlopCounterMode:
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"expected input_shape (C, H, W) with positive numbers, got {tuple(input_shape)}")
    counter = FlopCounterMode(display=False, custom_mapping={_MEAN: _mean_flops})
    with torch.no_grad(), counter:
        traced(torch.empty(1, *input_shape, device="cpu"))
    return counter


def _mean_flops(in_shape: Sequence[int], *_: Any, **__: Any) -> int:
    """Counts the H W C_in of the attention's pooling (section 3.2)."""
    return _FLOPS_PER_MADD * math.prod(in_shape)


def _module_flops(counter: FlopCounterMode, module: nn.Module, name: str, operation: Any) -> int:
    """Returns the FLOPs of one operation in a submodule; the counter's names start with the class of `module`."""
    path = f"{type(module).__name__}.{name}" if name else type(module).__name__
    return counter.get_flop_counts().get(path, {}).get(operation, 0)


def _one_kernel(conv: nn.Module) -> Tensor:
    weight = conv.weight
    assert isinstance(weight, Tensor)
    return weight[0] if isinstance(conv, DynamicConv2d) else weight


def _spatial_size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]

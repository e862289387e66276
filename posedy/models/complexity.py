"""#Param and multiply-adds (MAdds) of networks, counted in what runs, not in a list of what should.

The convention is the usual one, in units of 1. #Param: all weights, with batch norm's scale and shift and the biases.
MAdds: convolutions and fully connected layers without their biases; a dynamic convolution adds (paper, section 3.2)

    H W C_in + C_in^2 / 4 + C_in K / 4 + K C_in C_out kh kw / groups (+ K C_out where it has a bias)

for its pool, its attention and the aggregation of its kernels. Batch norm, activations, upsampling, additions, the
softmax and the pools of squeeze-and-excitation and classifiers are not counted.
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
    """The size and the cost of a network.

    Attributes:
        parameters: #Param, numbers that training changes.
        madds: MAdds of one image.
    """

    parameters: int
    madds: int

    def __add__(self, other: "Complexity") -> "Complexity":
        return Complexity(self.parameters + other.parameters, self.madds + other.madds)

    def __sub__(self, other: "Complexity") -> "Complexity":
        return Complexity(self.parameters - other.parameters, self.madds - other.madds)


@dataclass(frozen=True)
class ConvLayer:
    """A convolution as it ran.

    Attributes:
        name: of the module in its network, as in `named_modules`.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: (height, width).
        groups: as in `nn.Conv2d`.
        in_size: (height, width) of the input.
        out_size: (height, width) of the output.
        is_dynamic: whether its kernel is aggregated.
        weights: of one kernel, without a bias.
        madds: of the convolution alone, without attention and aggregation.
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
    """The size of a network and the cost of one image, in evaluation mode.

    The network may lie on any device, the meta device too; it is not changed, and nothing is computed.

    Args:
        module: takes a batch of images.
        input_shape: (C, H, W) of an image.

    Raises:
        ValueError: if the shape is not three positive numbers.
    """
    with FakeTensorMode():
        counter = _trace(_weightless_copy(module), input_shape)
    counts = counter.get_flop_counts().get("Global", {})
    flops = sum(count for operation, count in counts.items() if operation is not _MEAN)
    flops += sum(
        _count(counter, module, name, _MEAN)
        for name, layer in module.named_modules()
        if isinstance(layer, KernelAttention)
    )
    return Complexity(sum(parameter.numel() for parameter in module.parameters()), flops // _FLOPS_PER_MADD)


def measure_layers(module: nn.Module, input_shape: Sequence[int]) -> list[ConvLayer]:
    """The convolutions of a network in the order in which they run; see `measure`."""
    sizes: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}

    def record(name: str, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        sizes[name] = _size(inputs[0]), _size(output)

    with FakeTensorMode():
        traced = _weightless_copy(module)
        convs = {
            name: layer
            for name, layer in traced.named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | DynamicConv2d)
        }
        for name, layer in convs.items():
            layer.register_forward_hook(partial(record, name))
        counter = _trace(traced, input_shape)
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
            madds=_count(counter, module, name, _CONVOLUTION) // _FLOPS_PER_MADD,
        )
        for name, (in_size, out_size) in sizes.items()
    ]


def _weightless_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose tensors, made under FakeTensorMode, have shapes but no memory.

    They are tensors of the CPU, since autocast does not know the meta device, and all are float32: counts do not depend
    on the precision. One of each shape serves for all, since making them takes a third of the time.
    """
    tensors = [*module.parameters(), *module.buffers()]
    of_shape = {shape: torch.empty(shape, device="cpu") for shape in {tensor.shape for tensor in tensors}}
    return copy.deepcopy(module, {id(tensor): of_shape[tensor.shape] for tensor in tensors}).eval()


def _trace(traced: nn.Module, input_shape: Sequence[int]) -> FlopCounterMode:
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"input_shape is (C, H, W) of an image, got {tuple(input_shape)}")
    counter = FlopCounterMode(display=False, custom_mapping={_MEAN: _mean_flops})
    with torch.no_grad(), counter:
        traced(torch.empty(1, *input_shape, device="cpu"))
    return counter


def _mean_flops(in_shape: Sequence[int], *_: Any, **__: Any) -> int:
    """The pool's H W C_in of section 3.2."""
    return _FLOPS_PER_MADD * math.prod(in_shape)


def _count(counter: FlopCounterMode, module: nn.Module, name: str, operation: Any) -> int:
    """Operations of one kind in a module, by its name in the network; the counter's names start with the class."""
    path = f"{type(module).__name__}.{name}" if name else type(module).__name__
    return counter.get_flop_counts().get(path, {}).get(operation, 0)


def _one_kernel(conv: nn.Module) -> Tensor:
    weight = conv.weight
    assert isinstance(weight, Tensor)
    return weight[0] if isinstance(conv, DynamicConv2d) else weight


def _size(map_: Tensor) -> tuple[int, int]:
    return map_.shape[-2], map_.shape[-1]

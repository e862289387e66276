"""#Param and multiply-adds (MAdds) of networks, counted from the operations that a forward pass executes.

Counts are plain numbers (not millions) and follow the usual convention. #Param counts all weights, including the scale
and shift of batch norms and the biases. MAdds counts convolutions and fully connected layers without their biases; a
dynamic convolution adds (paper, section 3.2)

    H W C_in + C_in^2 / 4 + C_in K / 4 + K C_in C_out kh kw / groups (+ K C_out where it has a bias)

for its pooling, its attention and the aggregation of its kernels. Batch norm, activations, upsampling, additions,
softmax and the pooling of squeeze-and-excitation and classifiers are not counted.
"""

import copy
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention

_FLOPS_PER_MADD = 2
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, DynamicConv2d)
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

    The network may be on any device, including the meta device. It is not changed, and its weights are not read.

    Args:
        module: network whose input is a batch of images.
        input_shape: (C, H, W) of an image.

    Raises:
        ValueError: if the shape is not three positive numbers.
    """
    madds = _count_operations(_weightless_copy(module), input_shape).madds
    return Complexity(sum(parameter.numel() for parameter in module.parameters()), sum(madds.values()))


def measure_layers(module: nn.Module, input_shape: Sequence[int]) -> list[ConvLayer]:
    """Returns the convolutions of a network in execution order; for the arguments see `measure`."""
    traced = _weightless_copy(module)
    counter = _count_operations(traced, input_shape)
    convs = {name: layer for name, layer in traced.named_modules() if isinstance(layer, _LAYERS)}
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
            madds=counter.madds[name, _CONVOLUTION],
        )
        for name, (in_size, out_size) in counter.sizes.items()
    ]


def _weightless_copy(module: nn.Module) -> nn.Module:
    """Returns a copy in evaluation mode, with tensors of zeros, of which those of equal shape are one.

    They are float32 CPU tensors: autocast does not support the meta device, and counts do not depend on the precision.
    """
    zeros: dict[tuple[torch.Size, torch.dtype], Tensor] = {}
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        key = tensor.shape, torch.float32 if tensor.is_floating_point() else tensor.dtype
        if key not in zeros:
            zeros[key] = torch.zeros(key[0], dtype=key[1], device="cpu")
        memo[id(tensor)] = zeros[key]
    return copy.deepcopy(module, memo).eval()


class _OperationCounter(TorchDispatchMode):
    """Counts the operations of a module's forward pass; convolutions, which take most of its time, are not computed.

    Attributes:
        madds: MAdds by layer and operation; the layer is "" outside of the convolutions and the attentions.
        sizes: the (height, width) of the input and of the output of each convolution, in execution order.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.madds: Counter[tuple[str, Any]] = Counter()
        self.sizes: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
        self._layers: list[tuple[str, nn.Module]] = [("", nn.Identity())]
        for name, layer in module.named_modules():
            if isinstance(layer, (*_LAYERS, KernelAttention)):
                layer.register_forward_pre_hook(lambda layer, _, name=name: self._layers.append((name, layer)))
                layer.register_forward_hook(self._end_layer)

    def _end_layer(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        name, _ = self._layers.pop()
        if isinstance(layer, _LAYERS):
            self.sizes[name] = _spatial_size(inputs[0]), _spatial_size(output)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = operation.overloadpacket
        if kind is _CONVOLUTION:
            shapes = [arg.to("meta") if isinstance(arg, Tensor) else arg for arg in args]
            output = torch.zeros(operation(*shapes, **kwargs).shape, device="cpu")
        else:
            output = operation(*args, **kwargs)
        name, layer = self._layers[-1]
        if kind in flop_registry:
            self.madds[name, kind] += flop_registry[kind](*args, **kwargs, out_val=output) // _FLOPS_PER_MADD
        elif kind is _MEAN and isinstance(layer, KernelAttention):
            self.madds[name, kind] += math.prod(args[0].shape)  # the H W C_in of the pooling
        return output


@torch.no_grad()
def _count_operations(module: nn.Module, input_shape: Sequence[int]) -> _OperationCounter:
    """Runs a module, to which it adds hooks, with one image of the shape (C, H, W)."""
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"expected input_shape (C, H, W) with positive numbers, got {tuple(input_shape)}")
    with _OperationCounter(module) as counter:
        module(torch.zeros(1, *input_shape, device="cpu"))
    return counter


def _one_kernel(conv: nn.Module) -> Tensor:
    weight = conv.weight
    assert isinstance(weight, Tensor)
    return weight[0] if isinstance(conv, DynamicConv2d) else weight


def _spatial_size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]

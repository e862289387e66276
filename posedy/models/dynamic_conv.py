"""Dynamic convolution: the kernel of a layer is aggregated for each image from K kernels by attention.

Source: Chen et al., Dynamic Convolution: Attention over Convolution Kernels, CVPR 2020, sections 3 and 4.
"""

import math
import numbers
from collections.abc import Callable
from typing import Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from posedy.models.autocast import autocast_dtype, disabled_autocast
from posedy.models.ops import FORMULATIONS, ConvParams, choose_formulation, global_avg_pool

DEFAULT_NUM_KERNELS = 4
"""The paper's number K of kernels."""
DEFAULT_TEMPERATURE = 30.0
"""The paper's temperature tau; for classifiers it is the first one, which is annealed to 1."""

AttentionKind = Literal["softmax", "sigmoid", "normalized"]


class KernelAttention(nn.Module):
    """Computes attention weights over K kernels from a convolution's input (paper, section 3.2, Eq. 3).

        z = FC2(ReLU(FC1(GAP(x)))),    pi_k = exp(z_k / tau) / sum_j exp(z_j / tau)

    The sigmoid of CondConv (section 4.3), pi_k = 1 / (1 + exp(-z_k)), has no temperature and its weights do not sum to
    one. "normalized" is the softmax of BN(z), a batch norm of the K logits: their mean and variance over images do not
    depend on the other layers, so that attention can neither stay the same for all images nor settle on one kernel.
    The weights are computed in float32 even under autocast, because half precision cannot resolve the differences
    of near-uniform weights.

    Args:
        in_channels: channels of the layer's input.
        num_kernels: K, the number of kernels.
        reduction: FC1 has in_channels // reduction outputs, at least one.
        temperature: tau, a persistent buffer that is saved with the weights.
        kind: "softmax" (the paper's), "sigmoid" or "normalized".
        device: device of the parameters.
        dtype: data type of the parameters.
    """

    temperature: Tensor | None

    def __init__(
        self,
        in_channels: int,
        num_kernels: int,
        reduction: int = 4,
        temperature: float = DEFAULT_TEMPERATURE,
        kind: AttentionKind = "softmax",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = max(in_channels // reduction, 1)
        self.fc1 = nn.Linear(in_channels, hidden, device=device, dtype=dtype)
        self.fc2 = nn.Linear(hidden, num_kernels, device=device, dtype=dtype)
        norm = nn.BatchNorm1d(num_kernels, device=device, dtype=dtype) if kind == "normalized" else None
        self.norm: nn.BatchNorm1d | None = norm
        tau = torch.tensor(float(temperature), device=device, dtype=dtype) if kind != "sigmoid" else None
        self.register_buffer("temperature", tau)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the attention weights (N, K) of x (N, C, H, W), in float32 (float64 for float64 input)."""
        with disabled_autocast(x.device):
            dtype = torch.promote_types(x.dtype, torch.float32)
            pooled = global_avg_pool(x, dtype)
            hidden = F.relu(F.linear(pooled, self.fc1.weight.to(dtype), self.fc1.bias.to(dtype)))
            z = F.linear(hidden, self.fc2.weight.to(dtype), self.fc2.bias.to(dtype))
            if self.norm is not None:
                z = self._normalize(z.to(self.norm.weight.dtype), self.norm).to(dtype)
            return F.sigmoid(z) if self.temperature is None else F.softmax(z / self.temperature.to(dtype), dim=-1)

    @staticmethod
    def _normalize(z: Tensor, norm: nn.Module) -> Tensor:
        """Applies the batch norm; in training one image, which has no variance over images, uses the running ones."""
        if norm.training and len(z) == 1 and isinstance(norm, nn.BatchNorm1d):
            return F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return norm(z)


class DynamicConv2d(nn.Module):
    """A 2-d convolution whose kernel and bias are aggregated per image by attention (Eq. 1).

        W(x) = sum_k pi_k(x) W_k,    b(x) = sum_k pi_k(x) b_k,    y = W(x) * x + b(x)

    The input is (N, in_channels, H, W) in any memory format. A batch of N images needs memory for N aggregated kernels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: size of the kernels, as in `nn.Conv2d`.
        stride: as in `nn.Conv2d`.
        padding: zeros on all sides, a number or a pair; "same" and "valid" are not supported.
        dilation: as in `nn.Conv2d`.
        groups: as in `nn.Conv2d`; `groups=in_channels` is a depthwise convolution.
        bias: whether each of the K kernels has a bias.
        num_kernels: K, the number of kernels.
        reduction: channel reduction of the attention's first layer.
        temperature: tau of the attention's softmax.
        device: device of the parameters.
        dtype: data type of the parameters.
        attention: "softmax", "sigmoid" or "normalized", see `KernelAttention`.
        pad_end: additional rows and columns of zeros at the bottom and the right, see `ConvParams`.

    Raises:
        ValueError: if channels are not divisible by groups, a number is out of range or the attention is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        num_kernels: int = DEFAULT_NUM_KERNELS,
        reduction: int = 4,
        temperature: float = DEFAULT_TEMPERATURE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        attention: AttentionKind = "softmax",
        pad_end: int = 0,
    ) -> None:
        super().__init__()
        if attention not in get_args(AttentionKind):
            raise ValueError(f"expected attention to be one of {list(get_args(AttentionKind))}, got {attention!r}")
        if isinstance(padding, str):
            raise ValueError(
                f"expected padding in pixels (kernel_size // 2 keeps the size at stride 1), got {padding!r}"
            )
        for name, value in (("num_kernels", num_kernels), ("reduction", reduction), ("groups", groups)):
            if isinstance(value, bool) or not isinstance(value, int | numbers.Integral):
                raise ValueError(f"expected {name} to be an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"expected {name} to be at least 1, got {value}")
        for name, pair in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
            if min(_pair(pair)) < 1:
                raise ValueError(f"expected {name} to be at least 1, got {pair}")
        if min(*_pair(padding), pad_end) < 0:
            raise ValueError(f"expected padding and pad_end to be at least 0, got {padding} and {pad_end}")
        if in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"expected positive multiples of groups={groups}, got in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        check_temperature(temperature)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size: tuple[int, int] = _pair(kernel_size)
        self.stride: tuple[int, int] = _pair(stride)
        self.padding: tuple[int, int] = _pair(padding)
        self.dilation: tuple[int, int] = _pair(dilation)
        self.groups = groups
        self.pad_end = pad_end
        self.num_kernels = num_kernels
        self.attention = KernelAttention(in_channels, num_kernels, reduction, temperature, attention, device, dtype)
        kernel_shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(num_kernels, *kernel_shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_kernels, out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initializes each of the K kernels and biases as `nn.Conv2d` does, with the fan-in of a single kernel."""
        for kernel in self.weight:
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0, 0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Convolves each image with its own kernel: (N, in_channels, H, W) -> (N, out_channels, H', W').

        Raises:
            ValueError: if the input has other dimensions or another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"expected an input (N, {self.in_channels}, H, W), got {tuple(x.shape)}")
        weight, bias = self.aggregate(self.attention(x))
        dtype = autocast_dtype(x.device)
        if dtype is not None:
            x, weight = x.to(dtype), weight.to(dtype)
            bias = bias.to(dtype) if bias is not None else None
        return self.convolve(x, weight, bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolves images (N, in, H, W) with kernels (N, out, in / groups, kh, kw) and biases (N, out)."""
        # not len(x), which would fix the batch size of torch.export
        name = choose_formulation(x.shape[0], weight, self.conv_params, fused=False)
        return FORMULATIONS[name](x, weight, bias, self.conv_params)

    def aggregate(self, attention: Tensor) -> tuple[Tensor, Tensor | None]:
        """Aggregates kernels (N, out, in / groups, kh, kw) and biases (N, out) with attention weights (N, K)."""
        with disabled_autocast(attention.device):
            dtype = self.weight.dtype
            pi = attention.to(torch.promote_types(dtype, torch.float32))
            weight = (pi @ self.weight.flatten(1).to(pi.dtype)).reshape(-1, *self.weight.shape[1:]).to(dtype)
            bias = (pi @ self.bias.to(pi.dtype)).to(dtype) if self.bias is not None else None
        return weight, bias

    @property
    def conv_params(self) -> ConvParams:
        """The parameters of the convolution except its kernels."""
        return ConvParams(self.stride, self.padding, self.dilation, self.groups, self.pad_end)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Applies a function (`Module.to` and others) to the parameters, to the kernels as one 4-dimensional tensor.

        `net.to(memory_format=torch.channels_last)` converts tensors of 4 and 5 dimensions, and torch raises an error
        for the latter. The kernels stay contiguous: their aggregation is a matrix product.
        """

        def convert(tensor: Tensor) -> Tensor:
            if tensor.ndim != 5:
                return fn(tensor)
            return fn(tensor.flatten(0, 1)).unflatten(0, tensor.shape[:2]).contiguous()

        return super()._apply(convert, recurse)

    def extra_repr(self) -> str:
        """Returns the arguments that `print(net)` shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}, "
            f"num_kernels={self.num_kernels}" + (f", pad_end={self.pad_end}" if self.pad_end else "")
        )


def set_temperature(net: nn.Module, temperature: float) -> None:
    """Sets the temperature of every softmax attention in a network; static networks have none and stay unchanged.

    Args:
        net: any module; it is changed in place.
        temperature: tau of the softmax.

    Raises:
        TypeError: if the network is not a module.
        ValueError: if the temperature is not a positive number.
    """
    check_is_module(net)
    check_temperature(temperature)
    for module in net.modules():
        if isinstance(module, KernelAttention) and module.temperature is not None:
            module.temperature.fill_(temperature)


@torch.no_grad()
def make_kernels_equal(net: nn.Module) -> None:
    """Sets the K kernels and biases of every dynamic convolution to the first, so that attention changes no output.

        W_k = W_1,    b_k = b_1    for k = 1 .. K

    The network then starts like a static one. Its kernels become different because attention gives each of them its own
    share of each image's gradient. With exactly uniform attention they stay equal, and attention has no gradient.

    Args:
        net: any module; it is changed in place.
    """
    for module in net.modules():
        if isinstance(module, DynamicConv2d):
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    parameter.copy_(parameter[:1].expand_as(parameter).clone())


def temperatures(net: nn.Module) -> set[float]:
    """Returns the distinct softmax temperatures in a network; empty for static networks and sigmoid attention."""
    attentions = (module for module in net.modules() if isinstance(module, KernelAttention))
    return {float(each.temperature) for each in attentions if each.temperature is not None}


def check_is_module(net: object) -> None:
    """Checks that a network is a module.

    Raises:
        TypeError: if it is something else, such as a name.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(
            f"expected a network, an instance of torch.nn.Module, got {net!r:.100}: posedy.load_checkpoint loads files"
        )


def check_temperature(temperature: float) -> None:
    """Raises ValueError if a temperature is not a positive number."""
    is_number = isinstance(temperature, float | numbers.Real) and not isinstance(temperature, bool)
    if not (is_number and math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"expected a positive temperature (30 in the paper), got {temperature!r}")

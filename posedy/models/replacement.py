"""Replacement of the convolutions of any module by dynamic ones, and back.

A static kernel W is replaced by K kernels with the mean W, and K kernels are replaced by their mean:

    W_k = W + e_k with sum_k e_k = 0,        W = 1/K sum_k W_k

The attention's last layer starts at zero, so that attention is exactly uniform and outputs do not change. The noise e_k
gives the attention a gradient from the first step: with equal kernels every attention has the same output.
"""

import copy
import logging
import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from posedy.models.complexity import measure_layers
from posedy.models.dynamic_conv import DynamicConv2d

_LOGGER = logging.getLogger("posedy")
_IMAGE_SIDE = 224
_SHORTCUT_NAMES = ("downsample", "shortcut", "skip")

Select = Callable[[str, nn.Conv2d], bool]
"""A function (name, convolution) -> whether the convolution becomes dynamic."""


def replace_convs(
    module: nn.Module,
    num_kernels: int,
    temperature: float,
    noise: float,
    seed: int,
    select: Select | None,
) -> nn.Module:
    """Returns a copy of a module with dynamic convolutions; see `posedy.to_dynamic`."""
    reasons = static_reasons(module, select)
    dynamic = [name for name, reason in reasons.items() if reason is None]
    result = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name in dynamic:
            conv = result.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            result = _with_submodule(result, name, _dynamic(conv, num_kernels, temperature, noise, generator))
    kept = ", ".join(f"{name} ({reason})" for name, reason in reasons.items() if reason is not None)
    _LOGGER.info(
        "to_dynamic: %d of %d convolutions are dynamic; static: %s", len(dynamic), len(reasons), kept or "none"
    )
    return result


def restore_convs(module: nn.Module) -> nn.Module:
    """Returns a copy of a module whose dynamic convolutions are static, with the mean kernels; see `posedy.to_static`.

    Raises:
        ValueError: if a dynamic convolution has sigmoid attention, whose weights do not sum to one.
    """
    result = copy.deepcopy(module)
    for name, layer in list(result.named_modules()):
        if isinstance(layer, DynamicConv2d):
            result = _with_submodule(result, name, _static(name, layer))
    return result


def static_reasons(module: nn.Module, select: Select | None = None) -> dict[str, str | None]:
    """Returns the reason why each convolution stays static in `to_dynamic`.

    Args:
        module: any module with `nn.Conv2d` layers; without `select` one from images (N, C, 224, 224).
        select: see `posedy.to_dynamic`.

    Returns:
        The reason for each convolution by name; None for those that become dynamic.

    Raises:
        ValueError: if there is no `select`, and the module cannot be run on an image to find its first and last
            convolutions and those on pooled maps.
    """
    convs = {
        name: layer for name, layer in module.named_modules(remove_duplicate=False) if isinstance(layer, nn.Conv2d)
    }
    # modules that are used twice and modules with tied weights; a parametrized convolution has no parameter "weight"
    weights = {name: id(conv._parameters.get("weight")) for name, conv in convs.items()}
    uses = Counter(weights.values())
    reasons = {name: _obstacle(conv, uses[weights[name]]) for name, conv in convs.items()}
    if select is not None:
        chosen = {name for name, conv in convs.items() if select(name, conv)}
        return {name: reason or (None if name in chosen else "not selected") for name, reason in reasons.items()}
    if not convs:
        return {}
    order = _run_order(module, convs)
    return {name: reason or _default_reason(name, convs, order) for name, reason in reasons.items()}


def _obstacle(conv: nn.Conv2d, uses: int) -> str | None:
    """Returns the reason why a convolution cannot become dynamic; None if it can."""
    if parametrize.is_parametrized(conv) or conv._forward_pre_hooks or conv._forward_hooks:
        return "parametrized or hooked"  # parametrization replaces the class
    if type(conv) is not nn.Conv2d:
        return f"subclass {type(conv).__name__}"
    if conv.padding_mode != "zeros":
        return f"padding_mode={conv.padding_mode!r}"
    if conv.padding == "same" and any(d * (k - 1) % 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)):
        return "asymmetric padding"
    return "shared by several modules" if uses > 1 else None


def _run_order(module: nn.Module, convs: dict[str, nn.Conv2d]) -> dict[str, tuple[int, int]]:
    """Returns the input sizes (height, width) of the convolutions, in their execution order on an image."""
    channels = next(iter(convs.values())).in_channels
    try:
        layers = measure_layers(module, (channels, _IMAGE_SIDE, _IMAGE_SIDE))
    except Exception as error:  # modules may raise any error for an unsupported input
        raise ValueError(
            f"the default selection runs the module on an image ({channels}, {_IMAGE_SIDE}, {_IMAGE_SIDE}), which "
            f"failed: {error}. Give select=(name, conv) -> bool"
        ) from error
    return {layer.name: layer.in_size for layer in layers}


def _default_reason(name: str, convs: dict[str, nn.Conv2d], order: dict[str, tuple[int, int]]) -> str | None:
    """Returns the reason why a convolution stays static by default; None if it becomes dynamic."""
    conv = convs[name]
    is_pointwise = tuple(conv.kernel_size) == (1, 1)
    on_maps = [other for other, size in order.items() if size != (1, 1)]
    if name not in order:
        return "not run on an image"
    if order[name] == (1, 1):
        return "on a pooled map"
    if name == on_maps[0]:
        return "first"
    if is_pointwise and name == on_maps[-1]:
        return "last, 1x1"
    if is_pointwise and any(part in _SHORTCUT_NAMES for part in name.split(".")):
        return "shortcut"
    return None


def _dynamic(
    conv: nn.Conv2d, num_kernels: int, temperature: float, noise: float, generator: torch.Generator
) -> DynamicConv2d:
    """Converts a static convolution to a dynamic one with uniform attention."""
    layer = DynamicConv2d(
        conv.in_channels,
        conv.out_channels,
        _pair(conv.kernel_size),
        _pair(conv.stride),
        _explicit_padding(conv),
        _pair(conv.dilation),
        conv.groups,
        conv.bias is not None,
        num_kernels,
        temperature=temperature,
    )
    layer.to(conv.weight.device, conv.weight.dtype).train(conv.training)
    with torch.no_grad():
        make_uniform(layer)
        layer.weight.copy_(spread(conv.weight, num_kernels, noise, generator))
        if conv.bias is not None and layer.bias is not None:
            layer.bias.copy_(spread(conv.bias, num_kernels, noise, generator))
    layer.requires_grad_(conv.weight.requires_grad)
    return layer


def _static(name: str, layer: DynamicConv2d) -> nn.Module:
    """Converts a dynamic convolution to a static one with the mean of its kernels."""
    if layer.attention.temperature is None:
        raise ValueError(f"{name} has sigmoid attention, whose weights do not sum to one: it has no static counterpart")
    conv: nn.Conv2d = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
    )
    conv.to(layer.weight.device, layer.weight.dtype).train(layer.training)
    with torch.no_grad():
        conv.weight.copy_(layer.weight.mean(dim=0))
        if conv.bias is not None and layer.bias is not None:
            conv.bias.copy_(layer.bias.mean(dim=0))
    conv.requires_grad_(layer.weight.requires_grad)
    if layer.pad_end:
        return nn.Sequential(nn.ZeroPad2d((0, layer.pad_end, 0, layer.pad_end)), conv)
    return conv


def make_uniform(layer: DynamicConv2d) -> None:
    """Sets the last layer of a convolution's attention to zero: attention is uniform until it is trained."""
    with torch.no_grad():
        layer.attention.fc2.weight.zero_()
        layer.attention.fc2.bias.zero_()


def spread(kernel: Tensor, num_kernels: int, noise: float, generator: torch.Generator | None = None) -> Tensor:
    """Returns K random kernels with a given mean.

    Args:
        kernel: weights (out, ...) or biases (out,).
        num_kernels: K.
        noise: standard deviation of the deviations relative to the root mean square of each filter.
        generator: generator of the noise; None is torch's default generator.

    Returns:
        (K, out, ...), on the device of the kernel.
    """
    deviations = torch.randn(num_kernels, *kernel.shape, generator=generator).to(kernel)
    deviations -= deviations.mean(dim=0)
    # centered deviations of K kernels have (K - 1) / K of the variance
    scale = noise * math.sqrt(num_kernels / max(num_kernels - 1, 1))
    filters = kernel.flatten(1) if kernel.ndim > 1 else kernel[:, None]
    size = filters.square().mean(dim=1).sqrt().reshape(-1, *[1] * (kernel.ndim - 1))
    return kernel + scale * size * deviations


def _explicit_padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Returns the padding of a convolution in pixels."""
    if conv.padding == "same":
        (dy, dx), (ky, kx) = _pair(conv.dilation), _pair(conv.kernel_size)
        return dy * (ky - 1) // 2, dx * (kx - 1) // 2
    return (0, 0) if isinstance(conv.padding, str) else _pair(conv.padding)


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[-1]


def _with_submodule(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Replaces a submodule in place and returns the module; the empty name is the module itself."""
    if not name:
        return layer
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
    return module

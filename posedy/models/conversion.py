"""Conversion of networks to their dynamic or static counterparts; `replacement` converts other modules."""

import math
import numbers
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posedy.models.dynamic_conv import (
    DEFAULT_NUM_KERNELS,
    DEFAULT_TEMPERATURE,
    DynamicConv2d,
    check_is_module,
    check_temperature,
)
from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet
from posedy.models.registry import is_dynamic, list_heads, list_options
from posedy.models.replacement import Select, make_uniform, replace_convs, restore_convs, spread

DEFAULT_NOISE = 0.05
"""Default noise relative to the root mean square of each filter, since batch norm cancels its scale. A network trained
on synthetic people keeps its AP with uniform attention; if attention selects one kernel, AP falls from 45.1 to 44.8,
and to 34.7 with a noise of 0.2."""


@dataclass(frozen=True)
class Conversion:
    """Counts of the converted tensors of a network by type of conversion; all others are new attention layers."""

    copied: int
    inflated: int
    repeated: int
    averaged: int

    def __str__(self) -> str:
        """Returns the counts as text for a log."""
        parts = [
            (self.copied, "tensors copied"),
            (self.inflated, "static kernels made dynamic (with uniform attention)"),
            (self.repeated, "static kernels made dynamic (equal kernels with random attention)"),
            (self.averaged, "dynamic kernels made static (their means)"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count)


def convert_weights(tensors: Mapping[str, Tensor], net: nn.Module, noise: float = DEFAULT_NOISE) -> Conversion:
    """Loads the state dict of a network, or of its static, dynamic or partly dynamic counterpart, into `net`.

    A kernel that is static in `tensors` and dynamic in `net` becomes K kernels with this mean and uniform attention; if
    its attention is normalized, K equal kernels, and attention keeps its random weights. A kernel that is dynamic in
    `tensors` and static in `net` becomes its mean. All other tensors are copied. On an error the network is unchanged.

    Batch norms keep their statistics. From dynamic to static these belong to the dynamic network under its own
    attention: the less uniform it was, the less they fit the mean kernels. Then the network needs further training.

    Args:
        tensors: state dict of the other network, with the tensor names of `net`.
        net: the network to fill.
        noise: standard deviation of the kernels' deviations relative to the root mean square of each filter (one output
            channel); sampled from torch's generator.

    Raises:
        ValueError: if the networks differ in K or in more than which layers are dynamic, or if a static layer
            corresponds to one with sigmoid attention (its weights do not sum to one, so copies or means do not
            represent the other network).
    """
    _check_noise(noise)
    state = net.state_dict()
    problems = list(_differences(tensors, state))
    if problems:
        more = f" ({len(problems) - 1} more tensors do not fit)" if len(problems) > 1 else ""
        raise ValueError(f"the weights do not fit the network: {problems[0]}{more}")
    copied = inflated = repeated = averaged = 0
    dynamic = {name: layer for name, layer in net.named_modules() if isinstance(layer, DynamicConv2d)}
    uniform: set[str] = set()
    for name, target in net.state_dict().items():
        given = tensors.get(name)
        if given is None:
            continue
        if given.shape == target.shape:
            state[name] = given
            copied += 1
        elif given.ndim < target.ndim:
            module = name.rpartition(".")[0]
            if dynamic[module].attention.norm is None:
                state[name] = spread(given.to(target), len(target), noise)
                uniform.add(module)
                inflated += 1
            else:  # a batch norm of equal logits has no useful gradient
                state[name] = given.to(target).expand_as(target).clone()
                repeated += 1
        else:
            state[name] = given.to(target).mean(dim=0)
            averaged += 1
    net.load_state_dict(state)
    for name in uniform:
        make_uniform(dynamic[name])
    return Conversion(copied, inflated, repeated, averaged)


def to_dynamic(
    module: nn.Module,
    num_kernels: int = DEFAULT_NUM_KERNELS,
    temperature: float = DEFAULT_TEMPERATURE,
    noise: float = DEFAULT_NOISE,
    seed: int = 0,
    select: Select | None = None,
) -> nn.Module:
    """Returns a copy of a network in which convolutions are replaced by dynamic convolutions, with equal outputs.

        net = posedy.to_dynamic(torchvision.models.resnet18())

    Each kernel W becomes K kernels W_k = W + e_k with sum_k e_k = 0, and attention starts exactly uniform: outputs
    equal those of the given network to 1e-5 of the largest output, and attention has a gradient from the first step.
    The copy is on the device of the given network, in the same training or evaluation mode.

    A `PoseNet` becomes its counterpart `dy_BACKBONE-dy_HEAD`. Convolutions that are dynamic already stay unchanged, and
    must have `num_kernels` kernels. In any other module every `nn.Conv2d` becomes dynamic except

    - the first one,
    - 1x1 convolutions of shortcuts (in a submodule downsample, shortcut or skip),
    - convolutions on pooled 1x1 maps (squeeze-and-excitation),
    - a 1x1 convolution that is the last,
    - subclasses of `nn.Conv2d`, and padding that is not zeros or not symmetric,
    - modules that are used twice, share their weights, are parametrized or have hooks.

    To find the first, the last and those on pooled maps, the network is run once on a 224x224 image; convolutions that
    this does not run stay static. The logger "posedy" lists the static ones with the reason (INFO).

    Args:
        module: the network; it is not changed.
        num_kernels: number K of kernels of each dynamic convolution.
        temperature: tau of the attention's softmax.
        noise: standard deviation of e_k relative to the root mean square of each filter; 0 keeps all kernels equal,
            which leaves the attention without a gradient.
        seed: seed of the noise and of the attention's first layer.
        select: `select(name, conv)` returns whether a convolution becomes dynamic, in place of the first four rules
            above; not for a `PoseNet`, which has the option `dynamic_layers`.

    Raises:
        TypeError: if it is not a module.
        ValueError: if the network has no dynamic counterpart or already has dynamic convolutions with another number
            of kernels, an argument is out of range, or the module cannot be run on an image (N, C, 224, 224) and there
            is no `select`.
    """
    check_is_module(module)
    _check_noise(noise)
    check_temperature(temperature)
    if not isinstance(module, PoseNet):
        return replace_convs(module, num_kernels, temperature, noise, seed, select)
    if select is not None:
        raise ValueError("select is for modules other than a PoseNet: use create_model(..., dynamic_layers=[...])")
    for layer in module.modules():
        if isinstance(layer, DynamicConv2d) and layer.num_kernels != num_kernels:
            raise ValueError(
                f"expected num_kernels={layer.num_kernels}, as in the dynamic convolutions that {module.name} already "
                f"has, got num_kernels={num_kernels}: use the same number, or convert the network with "
                "posedy.to_static first"
            )
    backbone, head = static_name(module.name).rsplit("-", 1)
    name = next(name for name in (f"dy_{head}", head) if name in list_heads())
    return _counterpart(module, f"dy_{backbone}-{name}", noise, seed, temperature, num_kernels=num_kernels)


def to_static(module: nn.Module) -> nn.Module:
    """Returns a copy of a network with static convolutions, each with the mean of the K kernels and biases.

    It is the inverse of `to_dynamic`: weights are restored to 1e-5 of the largest one of each layer. Outputs are equal
    only where attention is uniform: after training, the static network needs further training. The copy is on the
    device of the given network, in the same training or evaluation mode.

    Args:
        module: the network; it is not changed.

    Raises:
        TypeError: if it is not a module.
        ValueError: if a layer has sigmoid attention, whose weights do not sum to one.
    """
    check_is_module(module)
    if not isinstance(module, PoseNet):
        return restore_convs(module)
    return _counterpart(module, static_name(module.name), 0, 0, None)


def _check_noise(noise: float) -> None:
    if (
        isinstance(noise, bool)
        or not isinstance(noise, float | numbers.Real)
        or not (math.isfinite(noise) and noise >= 0)
    ):
        raise ValueError(f"expected noise of at least 0, relative to the kernels ({DEFAULT_NOISE}), got {noise!r}")


def static_name(name: str) -> str:
    """Returns the name of the static counterpart of a network."""
    return "-".join(part.removeprefix("dy_") for part in name.split("-"))


def static_shape(name: str, state: Mapping[str, Tensor]) -> torch.Size:
    """Returns the shape of a tensor of a network in its static counterpart."""
    shape = state[name].shape
    return shape[1:] if _is_dynamic(name, state) else shape


def is_attention(name: str) -> bool:
    """Returns whether a tensor belongs to the attention of a dynamic layer."""
    return "attention" in name.split(".")


def _counterpart(
    net: PoseNet, name: str, noise: float, seed: int, temperature: float | None, **changes: int
) -> PoseNet:
    """Creates the network of another name with converted weights."""
    only_dynamic = set(list_options(net.name)) - set(list_options(name))
    if not is_dynamic(name):
        only_dynamic.add("num_kernels")
    options = {key: value for key, value in (net.options | changes).items() if key not in only_dynamic}
    if temperature is not None:
        options["temperature"] = temperature
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        counterpart = create_model(
            name, **options, input_size=net.input_size, skeleton=net.skeleton, model_class=type(net)
        )
        counterpart.to(next(net.parameters()))
        convert_weights(net.state_dict(), counterpart, noise)
    return counterpart.train(net.training)


def _differences(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yields the reasons why tensors do not fit a network."""
    for name, target in state.items():
        if name not in tensors:
            if not (is_attention(name) and not _is_dynamic(_kernel_of(name), tensors)):
                yield f"{name} is missing"
            continue
        given = tensors[name]
        was_dynamic, is_dynamic = _is_dynamic(name, tensors), _is_dynamic(name, state)
        shape, expected = static_shape(name, tensors), static_shape(name, state)
        if shape != expected:
            yield f"{name} has the shape {tuple(shape)}, expected {tuple(expected)}"
        elif given.shape != target.shape and was_dynamic == is_dynamic:
            yield f"{name} has num_kernels={len(given)}, expected num_kernels={len(target)}"
        elif was_dynamic != is_dynamic and _is_sigmoid(name, tensors if was_dynamic else state):
            yield (
                f"{name} belongs to a static layer and to one with sigmoid attention, whose weights do not sum to one; "
                "only softmax attention has a static counterpart"
            )
    for name in tensors:
        if name not in state and not (is_attention(name) and not _is_dynamic(_kernel_of(name), state)):
            yield f"the network has no {name}"


def _kernel_of(attention: str) -> str:
    """Returns the name of the kernels of an attention tensor."""
    return f"{attention[: attention.rindex('attention.')]}weight"


def _is_dynamic(name: str, names: Container[str]) -> bool:
    """Returns whether a tensor contains the kernels or biases of a dynamic layer, by the names of a network."""
    layer, dot, leaf = name.rpartition(".")
    return leaf in ("weight", "bias") and f"{layer}{dot}attention.fc1.weight" in names


def _is_sigmoid(name: str, names: Container[str]) -> bool:
    layer, dot, _ = name.rpartition(".")
    return f"{layer}{dot}attention.temperature" not in names

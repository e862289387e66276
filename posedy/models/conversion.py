"""Static networks as dynamic ones and back.

A static kernel W becomes K kernels around it, and K kernels become their mean:

    W_k = W + e_k with sum_k e_k = 0,        W = 1/K sum_k W_k

Either way the two networks compute the same wherever the attention is uniform, which fresh attention at the paper's
temperature nearly is. Equal kernels would have the same output whatever the attention, so that the attention had no
gradient: the noise e_k lets the kernels part.
"""

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posedy.models.pose_net import PoseNet
from posedy.models.registry import DEFAULT_NUM_KERNELS, create_model, is_dynamic, list_models, list_options

DEFAULT_NOISE = 0.05
"""Relative to the root mean square of each filter, since batch norm cancels the size of filters. A network trained on
drawn people keeps its AP with fresh attention; with attention that picks one kernel AP falls from 45.1 to 44.8, and to
34.7 with a noise of 0.2."""


@dataclass(frozen=True)
class Conversion:
    """How many tensors of a network came about in which way; what none counts kept its value (fresh attention)."""

    copied: int
    multiplied: int
    averaged: int

    def __str__(self) -> str:
        """In words, for a log."""
        parts = [
            (self.copied, "tensors copied"),
            (self.multiplied, "static kernels made dynamic (their attention is fresh)"),
            (self.averaged, "dynamic kernels made static (the mean of each)"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count)


def convert_weights(tensors: Mapping[str, Tensor], net: nn.Module, noise: float = DEFAULT_NOISE) -> Conversion:
    """Loads the state dict of a network, or of its static, dynamic or partly dynamic twin, into `net`.

    Goes layer by layer: a kernel that is static in `tensors` and dynamic in `net` becomes K kernels around it, and
    fresh attention stays; one that is dynamic in `tensors` and static in `net` becomes the mean. Everything else is
    copied. The network is changed whole or not at all.

    Batch norms keep their statistics. From dynamic to static these are of the dynamic network under its own attention:
    the sharper it was, the less they fit the mean kernels, and some training is due before such a network is used.

    Args:
        tensors: of the other network, with the names of `net`.
        net: the network to fill.
        noise: standard deviation of e_k over the root mean square of each filter (one output channel) of W; drawn from
            torch's generator.

    Raises:
        ValueError: if the networks differ in more than what is dynamic, in K, or attention is a sigmoid where static
            and dynamic meet (its weights do not sum to one, and no copies or means stand for the other network).
    """
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise is a number of at least 0, relative to the kernels ({DEFAULT_NOISE}), got {noise}")
    state = net.state_dict()
    problems = list(_differences(tensors, state))
    if problems:
        more = f" ({len(problems) - 1} more tensors do not fit)" if len(problems) > 1 else ""
        raise ValueError(f"the weights do not fit the network: {problems[0]}{more}")
    copied = multiplied = averaged = 0
    for name, target in net.state_dict().items():
        given = tensors.get(name)
        if given is None:
            continue
        if given.shape == target.shape:
            state[name] = given
            copied += 1
        elif given.ndim < target.ndim:
            state[name] = _spread(given.to(target), len(target), noise)
            multiplied += 1
        else:
            state[name] = given.to(target).mean(dim=0)
            averaged += 1
    net.load_state_dict(state)
    return Conversion(copied, multiplied, averaged)


def to_dynamic(
    net: PoseNet, num_kernels: int = DEFAULT_NUM_KERNELS, noise: float = DEFAULT_NOISE, seed: int = 0
) -> PoseNet:
    """The dynamic twin of a network: backbone and head, as far as the head has a dynamic form.

    What is dynamic already is copied. The copy is on the device and in the mode of `net`.

    Args:
        net: stays as it is.
        num_kernels: K.
        noise: see `convert_weights`; 0 gives the outputs of `net`.
        seed: of the noise and the fresh attention.

    Raises:
        ValueError: see `convert_weights`.
    """
    backbone, head = static_name(net.name).split("-")
    names = [name for name in (f"dy_{backbone}-dy_{head}", f"dy_{backbone}-{head}") if name in list_models()]
    return _twin(net, names[0], noise, seed, num_kernels=num_kernels)


def to_static(net: PoseNet) -> PoseNet:
    """The static twin of a network, of the mean kernels; see `convert_weights` for what that means.

    The copy is on the device and in the mode of `net`.

    Raises:
        ValueError: see `convert_weights`.
    """
    return _twin(net, static_name(net.name), 0, 0)


def static_name(name: str) -> str:
    """The name of a model without `dy_`: what a network and its twins have in common."""
    return "-".join(part.removeprefix("dy_") for part in name.split("-"))


def static_shape(name: str, state: Mapping[str, Tensor]) -> torch.Size:
    """The shape of a tensor of a network in its static twin."""
    shape = state[name].shape
    return shape[1:] if _is_dynamic(name, state) else shape


def is_attention(name: str) -> bool:
    """Whether a tensor belongs to the attention of a dynamic layer."""
    return "attention" in name.split(".")


def _twin(net: PoseNet, name: str, noise: float, seed: int, **changes: int) -> PoseNet:
    unknown = set(list_options(net.name)) - set(list_options(name))  # what only dynamic networks have
    if not is_dynamic(name):
        unknown.add("num_kernels")
    options = {key: value for key, value in (net.options | changes).items() if key not in unknown}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        twin = create_model(name, **options, input_size=net.input_size, skeleton=net.skeleton)
        twin.to(next(net.parameters()))
        convert_weights(net.state_dict(), twin, noise)
    return twin.train(net.training)


def _spread(kernel: Tensor, num_kernels: int, noise: float) -> Tensor:
    """K kernels around one, which is their mean."""
    deviations = torch.randn(num_kernels, *kernel.shape).to(kernel)
    deviations -= deviations.mean(dim=0)
    # centered deviations of K kernels have (K - 1) / K of the variance
    scale = noise * math.sqrt(num_kernels / max(num_kernels - 1, 1))
    filters = kernel.flatten(1) if kernel.ndim > 1 else kernel[:, None]
    size = filters.square().mean(dim=1).sqrt().reshape(-1, *[1] * (kernel.ndim - 1))
    return kernel + scale * size * deviations


def _differences(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    """What keeps tensors from going into a network, in words."""
    for name, target in state.items():
        if name not in tensors:
            if not (is_attention(name) and not _is_dynamic(_kernel_of(name), tensors)):
                yield f"they have no {name}"
            continue
        given = tensors[name]
        was_dynamic, is_dynamic = _is_dynamic(name, tensors), _is_dynamic(name, state)
        shape, expected = static_shape(name, tensors), static_shape(name, state)
        if shape != expected:
            yield f"{name} has the shape {tuple(shape)} in them and {tuple(expected)} in the network"
        elif given.shape != target.shape and was_dynamic == is_dynamic:
            yield f"{name} has num_kernels={len(given)} in them and num_kernels={len(target)} in the network"
        elif was_dynamic != is_dynamic and _is_sigmoid(name, tensors if was_dynamic else state):
            yield (
                f"{name} would go between a static layer and one with sigmoid attention, whose weights do not sum to "
                "one; only softmax attention has a static twin"
            )
    for name in tensors:
        if name not in state and not (is_attention(name) and not _is_dynamic(_kernel_of(name), state)):
            yield f"the network has no {name}"


def _kernel_of(attention: str) -> str:
    """The name of the kernels that a tensor of attention is for."""
    return f"{attention[: attention.rindex('attention.')]}weight"


def _is_dynamic(name: str, names: Container[str]) -> bool:
    """Whether a tensor is the kernels or biases of a dynamic layer among the names of a network."""
    layer, dot, leaf = name.rpartition(".")
    return leaf in ("weight", "bias") and f"{layer}{dot}attention.fc1.weight" in names


def _is_sigmoid(name: str, names: Container[str]) -> bool:
    layer, dot, _ = name.rpartition(".")
    return f"{layer}{dot}attention.temperature" not in names

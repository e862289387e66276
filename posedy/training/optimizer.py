"""The optimizer: Adam, with weight decay of kernels and learning rates that may differ between parts of a network."""

from collections.abc import Mapping

import torch
from torch import nn

from posedy.config import TrainConfig
from posedy.models.dynamic_conv import KernelAttention


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over groups of parameters: kernels with weight decay and all others without, for each learning rate factor.

    The factor of a group is its entry "lr_factor". Parameters of factor 0 are frozen: they are in no group and require
    no gradient.

    Without weight decay, the paper's choice, it is Adam. With it, the step is Adam's and then

        w <- w - lr * weight_decay * w        (Loshchilov and Hutter, ICLR 2019)

    for the kernels of convolutions (each of the K of a dynamic one) and linear layers only. Scales and shifts of norms
    and biases decide about a level, not about complexity; the attention's small layers would be driven to equal
    weights for all kernels.
    """
    factors = learning_rate_factors(net, config.lr_factors)
    decayed, spared = split_parameters(net)
    groups = []
    for factor in sorted({factors[parameter] for parameter in net.parameters()}, reverse=True):
        for parameters, decay in ((decayed, config.weight_decay), (spared, 0.0)):
            chosen = [parameter for parameter in parameters if factors[parameter] == factor]
            if factor == 0:
                for parameter in chosen:
                    parameter.requires_grad_(False)
            else:
                groups.append({"params": chosen, "weight_decay": decay, "lr_factor": factor})
    if not groups:
        raise ValueError("train.lr_factors freezes the whole network: at least one factor has to be positive")
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def learning_rate_factors(net: nn.Module, factors: Mapping[str, float]) -> dict[nn.Parameter, float]:
    """The learning rate factor of each parameter: that of the longest module name that holds it, or 1.

    Args:
        net: the network.
        factors: {name of a module: factor}, such as {"backbone": 0.3, "backbone.stem": 0}.

    Raises:
        ValueError: if a name is of no module of the network.
    """
    found = dict.fromkeys(net.parameters(), 1.0)
    modules = dict(net.named_modules())
    for name in sorted(factors, key=len):
        if not name or name not in modules:
            children = ", ".join(child for child, _ in modules[_nearest_parent(name, modules)].named_children())
            raise ValueError(f"train.lr_factors: the network has no module {name!r}; nearest are {children}")
        found |= dict.fromkeys(modules[name].parameters(), factors[name])
    return found


def _nearest_parent(name: str, modules: Mapping[str, nn.Module]) -> str:
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def split_parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that decay and those that do not: norms, biases and all of the attention."""
    attention = {
        parameter
        for module in net.modules()
        if isinstance(module, KernelAttention)
        for parameter in module.parameters()
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        is_kernel = name.rpartition(".")[2] == "weight" and parameter.ndim > 1 and parameter not in attention
        (decayed if is_kernel else spared).append(parameter)
    return decayed, spared

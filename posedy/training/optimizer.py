"""The optimiser: Adam, with decay of the weights that it does good."""

import torch
from torch import nn

from posedy.config import TrainConfig
from posedy.models.dynamic_conv import KernelAttention


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over two groups of parameters, kernels with weight decay and all others without.

    Without weight decay, the paper's choice, it is Adam. With it, the step is Adam's and then

        w <- w - lr * weight_decay * w        (Loshchilov and Hutter, ICLR 2019)

    for the kernels of convolutions (each of the K of a dynamic one) and linear layers only. Scales and shifts of norms
    and biases decide about a level, not about complexity; the attention's small layers would be driven to equal
    weights for all kernels.
    """
    decayed, spared = split_parameters(net)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


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

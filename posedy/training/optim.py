"""The optimizer (AdamW with learning rates per part), the schedules and the moving average of weights."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from posedy.config import TemperatureConfig, TrainConfig
from posedy.models.dynamic_conv import KernelAttention
from posedy.models.pose_net import PoseNet


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


_PAPER_EPOCHS = 210
_PAPER_DROPS = (170, 200)
_DROP_FACTOR = 0.1


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int, minutes: float = 0.0) -> float:
    """The rate of a step, counted from 0 over all epochs, after so many minutes of training."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    clock = min(minutes / config.minutes, 1.0) if config.minutes is not None else 0.0
    if config.schedule == "cosine":
        progress = max(step / (config.epochs * steps_per_epoch), clock)
        return config.lr * warmup * (1 + math.cos(math.pi * progress)) / 2
    epoch = max(step // steps_per_epoch, int(clock * config.epochs))
    return config.lr * warmup * _DROP_FACTOR ** sum(epoch >= drop for drop in lr_drops(config))


def lr_drops(config: TrainConfig) -> list[int]:
    """The epochs at which the step schedule drops: the configured ones, or the paper's in proportion to the epochs."""
    if config.lr_drops is not None:
        return config.lr_drops
    return [round(drop / _PAPER_EPOCHS * config.epochs) for drop in _PAPER_DROPS]


def moves_rates(before: TrainConfig, now: TrainConfig) -> bool:
    """Whether more epochs (`now`) change the learning rates of a training of fewer (`before`)."""
    if now.schedule == "cosine" or now.minutes is not None:
        return now.epochs != before.epochs
    return now.lr_drops is None and lr_drops(now) != lr_drops(before)


def describe_rates(config: TrainConfig, epochs_done: int = 0) -> str:
    """The learning rates of the epochs to come, counted from 1: "epochs 1-170: 0.001, 171-210: 0.0001"."""
    of_epochs = config.model_copy(update={"warmup_steps": 0, "minutes": None})
    coming = range(epochs_done, config.epochs)
    if config.schedule == "cosine":
        start = learning_rate(of_epochs, epochs_done, 1)
        parts = [f"{_epoch_range(coming)}: {start:.3g} to 0 (cosine)"]
    else:
        groups = itertools.groupby(coming, lambda epoch: learning_rate(of_epochs, epoch, 1))
        parts = [f"{_epoch_range(list(epochs))}: {rate:.3g}" for rate, epochs in groups]
    text = f"epochs {', '.join(parts)}"
    if config.warmup_steps and epochs_done == 0:
        text += f"; after {config.warmup_steps} warm-up steps"
    if config.minutes is not None:
        text += f"; earlier if train.minutes={config.minutes:g} ends first"
    return text


def _epoch_range(epochs: Sequence[int]) -> str:
    first, last = epochs[0] + 1, epochs[-1] + 1
    return str(first) if first == last else f"{first}-{last}"


def temperature(config: TemperatureConfig, epoch: int) -> float:
    """The temperature of an epoch, counted from 0: linear from start to end over the first epochs, then end."""
    if config.epochs == 0:
        return config.end
    return config.start + (config.end - config.start) * min(1.0, epoch / config.epochs)


_SOON = 10


class WeightAverage:
    """A network whose weights are the exponential moving average of another's.

        average <- d * average + (1 - d) * weights,    d = min(decay, (1 + n) / (10 + n)) after n steps

    so that the first steps, from random weights, are soon forgotten. The running statistics of batch norm are averaged
    with the same d: they are those of the weights, and lag behind as much. Temperatures and counters are copied: an
    average of temperatures is none that any step was trained with.

    Args:
        net: the network to follow.
        decay: d in the long run.
    """

    def __init__(self, net: PoseNet, decay: float) -> None:
        self.net = copy.deepcopy(net).eval()
        self.net.requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Takes in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (_SOON + self.steps))
        averaged, copied = _tensors(self.net)
        new_averaged, new_copied = _tensors(net)
        torch._foreach_lerp_(averaged, new_averaged, 1 - decay)
        for tensor, new in zip(copied, new_copied, strict=True):
            tensor.copy_(new)


def _tensors(net: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that are averaged, and those that are copied."""
    statistics = {id(tensor) for tensor in _running_statistics(net)}
    buffers = list(net.buffers())
    averaged = [parameter.detach() for parameter in net.parameters()]
    averaged += [buffer for buffer in buffers if id(buffer) in statistics]
    return averaged, [buffer for buffer in buffers if id(buffer) not in statistics]


def _running_statistics(net: nn.Module) -> Iterator[Tensor]:
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield from (tensor for tensor in (module.running_mean, module.running_var) if tensor is not None)

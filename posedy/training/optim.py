"""Optimizer with learning rates per module, schedules and moving average of the weights."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from posedy.config import LoopConfig, TemperatureConfig
from posedy.models.dynamic_conv import KernelAttention, temperatures
from posedy.models.network_file import Network

_MOMENTUM = 0.9


def make_optimizer(net: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """Creates AdamW, or SGD with momentum, with two parameter groups, with and without weight decay, for each factor.

    The factor of a group is its entry "lr_factor". Parameters of factor 0 are frozen: they are in no group and require
    no gradient.

    Without weight decay, the paper's choice for pose networks, AdamW equals Adam. With it, Adam's step is followed by

        w <- w - lr * weight_decay * w        (Loshchilov and Hutter, ICLR 2019)

    for the kernels of convolutions (each of the K of a dynamic one) and linear layers only. Norm parameters and biases
    hardly affect the complexity; decay of the attention's small layers would lead to equal weights for all
    kernels.

    Raises:
        ValueError: if `lr_factors` names an unknown module or freezes all parameters.
    """
    factors = learning_rate_factors(net, config.lr_factors)
    for parameter in attention_parameters(net):
        factors[parameter] *= config.attention_lr_factor
    decayed, undecayed = split_parameters(net)
    groups = []
    for factor in sorted({factors[parameter] for parameter in net.parameters()}, reverse=True):
        for parameters, decay in ((decayed, config.weight_decay), (undecayed, 0.0)):
            selected = [parameter for parameter in parameters if factors[parameter] == factor]
            if factor == 0:
                for parameter in selected:
                    parameter.requires_grad_(False)
            else:
                groups.append({"params": selected, "weight_decay": decay, "lr_factor": factor})
    if not groups:
        raise ValueError("train.lr_factors freezes the whole network; at least one factor must be positive")
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=_MOMENTUM)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def learning_rate_factors(net: nn.Module, factors: Mapping[str, float]) -> dict[nn.Parameter, float]:
    """Returns the learning rate factor of each parameter: that of the longest matching module name, or 1.

    Args:
        net: the network.
        factors: {module name: factor}, such as {"backbone": 0.3, "backbone.stem": 0}.

    Raises:
        ValueError: if the network has no module of a name.
    """
    result = dict.fromkeys(net.parameters(), 1.0)
    modules = dict(net.named_modules())
    for name in sorted(factors, key=len):
        if not name or name not in modules:
            children = ", ".join(child for child, _ in modules[_nearest_parent(name, modules)].named_children())
            raise ValueError(f"train.lr_factors: the network has no module {name!r}; nearest are {children}")
        result |= dict.fromkeys(modules[name].parameters(), factors[name])
    return result


def _nearest_parent(name: str, modules: Mapping[str, nn.Module]) -> str:
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def split_parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the parameters with weight decay and those without: norms, biases and all of the attention."""
    attention = attention_parameters(net)
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        is_kernel = name.rpartition(".")[2] == "weight" and parameter.ndim > 1 and parameter not in attention
        (decayed if is_kernel else undecayed).append(parameter)
    return decayed, undecayed


def attention_parameters(net: nn.Module) -> set[nn.Parameter]:
    """Returns the parameters of the attention of all dynamic convolutions."""
    attentions = (module for module in net.modules() if isinstance(module, KernelAttention))
    return {parameter for attention in attentions for parameter in attention.parameters()}


_DECAY_FACTOR = 0.1


def learning_rate(config: LoopConfig, step: int, steps_per_epoch: int, minutes: float = 0.0) -> float:
    """Returns the learning rate of a training step, with warm-up and the step or the cosine schedule.

    Args:
        config: the schedule.
        step: counted from 0 over all epochs.
        steps_per_epoch: steps of an epoch.
        minutes: training time so far; with `config.minutes` the schedule follows whichever is further, steps or time.
    """
    time_progress = min(minutes / config.minutes, 1.0) if config.minutes is not None else 0.0
    reached = max(step + 1, time_progress * config.epochs * steps_per_epoch)
    warmup = min(1.0, reached / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        progress = max(step / (config.epochs * steps_per_epoch), time_progress)
        return config.lr * warmup * (1 + math.cos(math.pi * progress)) / 2
    epoch = max(step // steps_per_epoch, int(time_progress * config.epochs))
    return config.lr * warmup * _DECAY_FACTOR ** sum(epoch >= milestone for milestone in lr_milestones(config))


def lr_milestones(config: LoopConfig) -> list[int]:
    """Returns the epochs after which the step schedule decays: `lr_drops`, or the paper's scaled to `epochs`."""
    if config.lr_drops is not None:
        return config.lr_drops
    return [round(share * config.epochs) for share in config.paper_drops]


def changes_past_learning_rates(before: LoopConfig, now: LoopConfig) -> bool:
    """Returns whether a larger `epochs` (`now`) changes the learning rates of the epochs of `before`."""
    if now.schedule == "cosine" or now.minutes is not None:
        return now.epochs != before.epochs
    return now.lr_drops is None and lr_milestones(now) != lr_milestones(before)


def describe_learning_rates(config: LoopConfig, epochs_done: int = 0) -> str:
    """Describes the learning rates of the remaining epochs, counted from 1: "epochs 1-170: 0.001, 171-210: 0.0001"."""
    per_epoch = config.model_copy(update={"warmup_steps": 0, "minutes": None})
    remaining = range(epochs_done, config.epochs)
    if config.schedule == "cosine":
        start = learning_rate(per_epoch, epochs_done, 1)
        parts = [f"{_format_epochs(remaining)}: {start:.3g} to 0 (cosine)"]
    else:
        groups = itertools.groupby(remaining, lambda epoch: learning_rate(per_epoch, epoch, 1))
        parts = [f"{_format_epochs(list(epochs))}: {lr:.3g}" for lr, epochs in groups]
    text = f"epochs {', '.join(parts)}"
    if config.warmup_steps and epochs_done == 0:
        text += f"; warm-up over {config.warmup_steps} steps"
    if config.minutes is not None:
        text += f"; compressed if train.minutes={config.minutes:g} ends first"
    return text


def _format_epochs(epochs: Sequence[int]) -> str:
    first, last = epochs[0] + 1, epochs[-1] + 1
    return str(first) if first == last else f"{first}-{last}"


def compare_temperatures(net: nn.Module, schedule: TemperatureConfig) -> list[str]:
    """Returns a warning for each temperature of pretrained weights at which training would not start.

    Another temperature undoes the attention that the weights have learned.
    """
    start = schedule.start
    return [
        f"warning: the pretrained weights have temperature {pretrained:g}, training starts at {start:g}; to keep it, "
        f"set train.temperature.start={pretrained:g} train.temperature.end={pretrained:g}"
        for pretrained in sorted(temperatures(net) - {start})
    ]


def temperature(config: TemperatureConfig, epoch: int) -> float:
    """Returns the temperature of an epoch, counted from 0: linear from `start` to `end` over `epochs`, then `end`."""
    if epoch >= config.epochs:
        return config.end  # the sum below loses an end that is much smaller than the start
    return config.start + (config.end - config.start) * epoch / config.epochs


_EMA_WARMUP = 10


class ModelEMA:
    """A copy of a network whose weights are the exponential moving average of the network's weights.

        average <- d * average + (1 - d) * weights,    d = min(decay, (1 + n) / (10 + n)) after n steps

    The smaller d of the first steps removes the initial random weights quickly. Batch norm's running statistics are
    averaged with the same d, so that they lag behind as much as the weights. Temperatures and counters are copied: no
    step was trained at an averaged temperature.

    Args:
        net: the network to average.
        decay: the largest d.
    """

    def __init__(self, net: Network, decay: float) -> None:
        self.net = copy.deepcopy(net).eval()
        self.net.requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Updates the average with the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (_EMA_WARMUP + self.steps))
        averaged, copied = _split_tensors(self.net)
        new_averaged, new_copied = _split_tensors(net)
        torch._foreach_lerp_(averaged, new_averaged, 1 - decay)
        for tensor, new in zip(copied, new_copied, strict=True):
            tensor.copy_(new)


def _split_tensors(net: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the tensors to average and the tensors to copy."""
    statistics = {id(tensor) for tensor in _running_statistics(net)}
    buffers = list(net.buffers())
    averaged = [parameter.detach() for parameter in net.parameters()]
    averaged += [buffer for buffer in buffers if id(buffer) in statistics]
    return averaged, [buffer for buffer in buffers if id(buffer) not in statistics]


def _running_statistics(net: nn.Module) -> Iterator[Tensor]:
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield from (tensor for tensor in (module.running_mean, module.running_var) if tensor is not None)

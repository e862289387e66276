"""A moving average of the weights over the steps of training."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from posedy.models.pose_net import PoseNet

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

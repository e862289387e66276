"""Learning rate and temperature as functions of the position in training: nothing to save, nothing to restore."""

import itertools
import math
from collections.abc import Sequence

from posedy.config import TemperatureConfig, TrainConfig

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

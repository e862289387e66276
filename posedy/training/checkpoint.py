"""Checkpoints of a run: written whole or not at all, of tensors and plain types only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from posedy.config import DELETED_KEYS, Config, TrainConfig
from posedy.files import atomic_write
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import network_state, read_checkpoint
from posedy.models.registry import is_dynamic
from posedy.training.optim import WeightAverage, describe_rates, lr_drops, moves_rates

LAST = "last.pt"
BEST = "best.pt"

# What may differ when a run goes on: where data lie (their content is compared), and what only costs time or space; a
# CUDA graph replays the very kernels of a step. More epochs may be trained where the learning rates stay as they were.
# Everything else changes the mathematics, of the weights or of the AP that chooses the best ones.
_FREE_KEYS = (
    *("train.workers", "train.save_every", "train.save_minutes", "train.cuda_graph"),
    *("eval.every", "eval.batch_size"),
)
_FREE_SECTION, _SKELETON = "data.", "data.skeleton."
# What a position in the middle of an epoch depends on.
_ORDER_KEYS = ("train.batch_size", "train.seed")
_EPOCHS, _DROPS = "train.epochs", "train.lr_drops"
_SCHEDULE_KEYS = (_EPOCHS, _DROPS, "train.lr", "train.schedule", "train.minutes", "train.warmup_steps")
_DATA, _PROCESSES = "the persons of the data sets", "the number of processes"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint that takes the place of the file at `path` only once it is complete.

    Raises:
        OSError: if it cannot be written, such as on a full disk.
    """
    with atomic_write(path) as temporary:
        try:
            torch.save(dict(state), temporary)
        except RuntimeError as error:  # which is how torch tells of a full disk
            why = str(error).splitlines()[0]
            raise OSError(
                f"{path} cannot be written, is the disk full? The file before is unharmed. ({why})"
            ) from error


@dataclass
class RunState:
    """Where a training stands, beside its configuration.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch that was begun.
        loss_sum: of these steps.
        seconds: that they took.
        seconds_before: that the epochs done took.
        numbers: the last row of metrics.csv.
        metrics: of the last evaluation.
        protocol: of the last evaluation.
        evaluated_epoch: after how many epochs that was.
        best_ap: so far.
        scaler: the state of fp16's loss scaler.
        network: the network to use, as `network_state` gives it: the average, if there is one.
        trained: the tensors that training goes on with, where `network` is an average of them.
        average_steps: that the average has taken in.
        optimizer: its state.
        random: the state of torch's generator.
        changes: what differs from the configuration of the run so far, one line each.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    seconds_before: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    protocol: str = ""
    evaluated_epoch: int = 0
    best_ap: float | None = None
    scaler: dict[str, Any] | None = None
    network: dict[str, Any] = field(default_factory=dict)
    trained: dict[str, Any] | None = None
    average_steps: int = 0
    optimizer: dict[str, Any] = field(default_factory=dict)
    random: torch.Tensor | None = None
    changes: Sequence[str] = ()

    def place(self) -> str:
        """The position in words."""
        return f"{self.epoch} epochs" + (f" and {self.step} steps" if self.step else "")

    def restore(self, net: PoseNet, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> None:
        """Fills a freshly built network, its optimizer and its average, and lets go of the copies."""
        net.load_state_dict(self.trained if self.trained is not None else self.network["tensors"])
        # of the configuration, which may have been changed, not of the run so far
        configured = [{key: group[key] for key in ("weight_decay", "lr_factor")} for group in optimizer.param_groups]
        optimizer.load_state_dict(self.optimizer)
        for group, values in zip(optimizer.param_groups, configured, strict=True):
            group.update(values)
        if average is not None:
            average.net.load_state_dict(self.network["tensors"])
            average.steps = self.average_steps
        if self.random is not None:
            torch.set_rng_state(self.random)
        self.network, self.trained, self.optimizer, self.random = {}, None, {}, None

    def save(
        self,
        path: Path,
        net: PoseNet,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
        config: Config,
        data: str,
        processes: int,
    ) -> None:
        """Writes all that is needed to go on."""
        names = [entry.name for entry in fields(self) if entry.name != "changes"]
        plain = {name: getattr(self, name) for name in names}
        save_checkpoint(
            path,
            plain
            | {
                "network": network_state(net if average is None else average.net),
                "trained": None if average is None else net.state_dict(),
                "average_steps": 0 if average is None else average.steps,
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "config": config.model_dump(mode="json"),
                "data": data,
                "processes": processes,
            },
        )


def read_run(run: Path, config: Config, data: str, processes: int, accept_changes: bool = False) -> RunState:
    """Reads the last checkpoint of a run that goes on.

    Args:
        run: the run's folder.
        config: of the training that goes on.
        data: fingerprint of its data sets.
        processes: their number.
        accept_changes: whether another mathematics is accepted, where it is possible.

    Raises:
        OSError: if there is none.
        ValueError: if it is of another kind or of an experiment with another mathematics; the differences are shown.
    """
    path = run / LAST
    state = read_checkpoint(path)
    names = [entry.name for entry in fields(RunState) if entry.name != "changes"]
    missing = [key for key in (*names, "config", "data", "processes") if key not in state]
    if missing:
        raise ValueError(
            f"{path} is not a checkpoint that a run can go on from (it has no {', '.join(missing)}); to start from its "
            f"weights: model.weights={path} and another --out"
        )
    of_run = {
        key: value
        for key, value in _flat(state["config"]).items()
        if key not in DELETED_KEYS or value != DELETED_KEYS[key]
    }
    # a run of before a key existed had its default
    before = _flat(Config().model_dump(mode="json")) | of_run | {_DATA: state["data"], _PROCESSES: state["processes"]}
    now = _flat(config.model_dump(mode="json")) | {_DATA: data, _PROCESSES: processes}
    if not is_dynamic(config.model.name):
        before.pop("model.num_kernels", None)  # older runs record any number, which static networks do not use
        now.pop("model.num_kernels")
    earlier = config.train.model_copy(
        update={key.removeprefix("train."): before[key] for key in _SCHEDULE_KEYS if key in before}
    )
    same_rates = _same_rates(earlier, config.train)
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if key not in same_rates and _changes(key, before.get(key), now.get(key))
    ]
    lines = [f"  {_difference(key, before.get(key), now.get(key))}" for key in changed]
    is_longer = _EPOCHS in changed and config.train.epochs > earlier.epochs
    if is_longer:
        rates = f"{describe_rates(earlier)} in the run, {describe_rates(config.train, state['epoch'])} now"
        lines[changed.index(_EPOCHS)] += f", which changes the learning rate: {rates}"
    if changed and not accept_changes:
        heading = f"{run} was trained with another configuration:"
        advice = "go on with its values, use another --out, or say --accept-changes to go on with these"
        if is_longer and config.train.schedule == "step" and config.train.minutes is None:
            drops = ",".join(map(str, lr_drops(earlier)))
            advice += f"; train.lr_drops=[{drops}] keeps the learning rates of the run"
        raise ValueError("\n".join([heading, *lines, advice]))
    impossible = [key for key in changed if key.startswith("model.")]
    if state["step"]:
        impossible += [key for key in changed if key in (*_ORDER_KEYS, _DATA, _PROCESSES)]
    if impossible:
        why = "the network would not fit, or the checkpoint stands in the middle of an epoch of another order"
        heading = f"{run} cannot go on with these changes ({why}):"
        lines = [f"  {_difference(key, before.get(key), now.get(key))}" for key in impossible]
        raise ValueError("\n".join([heading, *lines, f"to start anew from its weights: model.weights={path}"]))
    found = RunState(**{name: state[name] for name in names}, changes=lines)
    if any(key == _DATA or key.startswith(("eval.", _SKELETON)) for key in changed):
        found.best_ap = None  # it was measured by another protocol, or on another set
    return found


def _same_rates(earlier: TrainConfig, now: TrainConfig) -> set[str]:
    """The keys of the schedule that may differ because the learning rates of the earlier epochs stay as they were."""
    keys = set()
    if now.epochs >= earlier.epochs and not moves_rates(earlier, now):
        keys.add(_EPOCHS)
    if lr_drops(now) == lr_drops(earlier):
        keys.add(_DROPS)
    return keys


def _changes(key: str, before: Any, now: Any) -> bool:
    """Whether two values of a key change the results of training."""
    if key in _FREE_KEYS or (key.startswith(_FREE_SECTION) and not key.startswith(_SKELETON)):
        return False
    return before != now


def _difference(key: str, before: Any, now: Any) -> str:
    if key == _DATA:
        return f"{key}: {before} in the run, {now} now"
    return f"{key}: {before!r} in the run, {now!r} now"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

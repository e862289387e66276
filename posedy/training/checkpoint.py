"""Checkpoints of a training run: written atomically, with tensors and plain types only."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from posedy.config import DELETED_KEYS, ClassifierConfig, Config, LoopConfig, flatten_keys, upgrade_keys
from posedy.models.network_file import Network, network_state, read_checkpoint, write_checkpoint
from posedy.models.registry import is_dynamic
from posedy.poses import format_count
from posedy.training.optim import ModelEMA, changes_past_learning_rates, describe_learning_rates, lr_milestones

LAST = "last.pt"
BEST = "best.pt"

# Keys that may change when a run resumes: file locations (the data themselves are compared by fingerprint) and settings
# that only cost time or memory; a CUDA graph replays the same kernels. train.epochs may grow as long as the learning
# rates of completed epochs stay the same. Any other key changes the weights, or the AP that selects the best weights.
_FREE_KEYS = (
    *("train.workers", "train.save_every", "train.save_minutes", "train.cuda_graph"),
    *("eval.every", "eval.batch_size", "imports"),
)
_FREE_SECTION, _SKELETON, _PADDING = "data.", "data.skeleton.", "data.padding"
# What determines the tensors of the network and those of the optimizer's state.
_MODEL, _OPTIMIZER = "model.", "train.optimizer"
# Keys that determine the batches of an epoch, and so the meaning of a step within it.
_SAMPLING_KEYS = ("train.batch_size", "train.seed")
_EPOCHS, _LR_DROPS = "train.epochs", "train.lr_drops"
_SCHEDULE_KEYS = (_EPOCHS, _LR_DROPS, "train.lr", "train.schedule", "train.minutes", "train.warmup_steps")
_DATA, _WORLD_SIZE = "datasets", "number of processes"


@dataclass
class RunState:
    """Progress of a training run: everything a checkpoint stores besides the configuration.

    The field names, all but `changes`, are the keys of the checkpoint file; older files have no `groups`.

    Attributes:
        epoch: completed epochs.
        step: completed steps of the current epoch.
        loss_sum: sum of the losses of these steps.
        seconds: training time of these steps.
        seconds_before: training time of the completed epochs.
        numbers: the latest row of metrics.csv.
        metrics: the latest evaluation metrics.
        protocol: the evaluation protocol of `metrics`.
        evaluated_epoch: completed epochs at the latest evaluation.
        best_metric: the best value so far of the metric that selects the best weights.
        scaler: state of the fp16 gradient scaler.
        network: the network for inference, in the format of `network_state`: the moving average if there is one.
        trained: state dict of the trained network, if `network` is its moving average.
        average_steps: number of updates of the moving average.
        optimizer: state dict of the optimizer.
        random: state of torch's random generator.
        groups: the names of the parameters of each group of the optimizer; None in older checkpoints.
        changes: settings that differ from the checkpoint's configuration, one line each.
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
    best_metric: float | None = None
    scaler: dict[str, Any] | None = None
    network: dict[str, Any] = field(default_factory=dict)
    trained: dict[str, Any] | None = None
    average_steps: int = 0
    optimizer: dict[str, Any] = field(default_factory=dict)
    random: torch.Tensor | None = None
    groups: list[list[str]] | None = None
    changes: Sequence[str] = ()

    def describe_progress(self) -> str:
        """Returns the progress as text, such as "7 epochs and 1 step"."""
        return format_count(self.epoch, "epoch") + (f" and {format_count(self.step, 'step')}" if self.step else "")

    def restore(self, net: Network, optimizer: torch.optim.Optimizer, ema: ModelEMA | None) -> None:
        """Loads the state into a newly built network, its optimizer and its moving average, and frees the copies.

        Raises:
            ValueError: if the learning rate factors group the parameters differently than in the run.
        """
        if not self._fits(net, optimizer):
            raise ValueError(
                "cannot resume: the learning rate factors divide the parameters into other groups than in the run; "
                "keep its train.lr_factors and train.attention_lr_factor, or start a new run from its weights "
                f"(model.weights=RUN/{LAST} and another --out)"
            )
        net.load_state_dict(self.trained if self.trained is not None else self.network["tensors"])
        # keep the values of the current configuration, which may differ from the checkpoint's
        configured = [{key: group[key] for key in ("weight_decay", "lr_factor")} for group in optimizer.param_groups]
        optimizer.load_state_dict(self.optimizer)
        for group, values in zip(optimizer.param_groups, configured, strict=True):
            group.update(values)
        if ema is not None:
            ema.net.load_state_dict(self.network["tensors"])
            ema.steps = self.average_steps
        if self.random is not None:
            torch.set_rng_state(self.random)
        self.network, self.trained, self.optimizer, self.random = {}, None, {}, None

    def _fits(self, net: Network, optimizer: torch.optim.Optimizer) -> bool:
        """Returns whether the state of the optimizer belongs to the parameters of its groups, in their order."""
        if self.groups is not None:
            return self.groups == _group_names(net, optimizer)
        # older checkpoints have no names
        before = [len(group["params"]) for group in self.optimizer["param_groups"]]
        if before != [len(group["params"]) for group in optimizer.param_groups]:
            return False
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        return all(
            value.shape in ((), parameters[index].shape)
            for index, state in self.optimizer["state"].items()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )

    def save(
        self,
        path: Path,
        net: Network,
        optimizer: torch.optim.Optimizer,
        ema: ModelEMA | None,
        config: Config | ClassifierConfig,
        data_fingerprint: str,
        world_size: int,
    ) -> None:
        """Writes a checkpoint with everything needed to resume."""
        names = [entry.name for entry in fields(self) if entry.name != "changes"]
        plain = {name: getattr(self, name) for name in names}
        write_checkpoint(
            plain
            | {
                "network": network_state(net if ema is None else ema.net),
                "trained": None if ema is None else net.state_dict(),
                "average_steps": 0 if ema is None else ema.steps,
                "optimizer": optimizer.state_dict(),
                "groups": _group_names(net, optimizer),
                "random": torch.get_rng_state(),
                "config": config.model_dump(mode="json"),
                "data": data_fingerprint,
                "processes": world_size,
            },
            path,
        )


def read_run_state(
    run: Path, config: Config | ClassifierConfig, data_fingerprint: str, world_size: int, accept_changes: bool = False
) -> RunState:
    """Reads the last checkpoint of a run to resume and compares it with the current configuration.

    Args:
        run: the run folder.
        config: the current configuration.
        data_fingerprint: fingerprint of the current datasets.
        world_size: the current number of processes.
        accept_changes: resume although the configuration changes training results, where that is possible.

    Raises:
        OSError: if there is no checkpoint.
        ValueError: if the file cannot resume a run, or the configuration changes training results; the message lists
            the differences.
    """
    path = run / LAST
    checkpoint = read_checkpoint(path)
    if "best_ap" in checkpoint:  # the earlier name
        checkpoint["best_metric"] = checkpoint.pop("best_ap")
    checkpoint.setdefault("groups", None)
    names = [entry.name for entry in fields(RunState) if entry.name != "changes"]
    missing = [key for key in (*names, "config", "data", "processes") if key not in checkpoint]
    if missing:
        raise ValueError(
            f"{path} cannot resume a run, keys are missing: {', '.join(missing)}; to start a new run from its weights, "
            f"use model.weights={path} and another --out"
        )
    upgrade_keys(checkpoint["config"])
    recorded = {
        key: value
        for key, value in flatten_keys(checkpoint["config"]).items()
        if key not in DELETED_KEYS or value != DELETED_KEYS[key]
    }
    # a checkpoint older than a key was trained with the key's default
    before = flatten_keys(type(config)().model_dump(mode="json")) | recorded
    before |= {_DATA: checkpoint["data"], _WORLD_SIZE: checkpoint["processes"]}
    now = flatten_keys(config.model_dump(mode="json")) | {_DATA: data_fingerprint, _WORLD_SIZE: world_size}
    if not is_dynamic(config.model.name):
        before.pop("model.num_kernels", None)  # older runs record any number, which static networks do not use
        now.pop("model.num_kernels")
    train_before = config.train.model_copy(
        update={key.removeprefix("train."): before[key] for key in _SCHEDULE_KEYS if key in before}
    )
    unchanged_schedule = _schedule_keys_without_effect(train_before, config.train)
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if key not in unchanged_schedule and _changes_results(key, before.get(key), now.get(key))
    ]
    lines = [f"  {_format_difference(key, before.get(key), now.get(key))}" for key in changed]
    is_longer = _EPOCHS in changed and config.train.epochs > train_before.epochs
    if is_longer:
        rates_before = describe_learning_rates(train_before)
        rates_now = describe_learning_rates(config.train, checkpoint["epoch"])
        lines[changed.index(_EPOCHS)] += (
            f", which changes the learning rate: {rates_before} in the run, {rates_now} now"
        )
    if changed and not accept_changes:
        heading = f"{run} was trained with a different configuration:"
        advice = (
            "use the run's values, choose another --out, or pass --accept-changes to resume although the configuration "
            "changes training results"
        )
        if is_longer and config.train.schedule == "step" and config.train.minutes is None:
            milestones = ",".join(map(str, lr_milestones(train_before)))
            advice += f"; train.lr_drops=[{milestones}] keeps the run's learning rates"
        raise ValueError("\n".join([heading, *lines, advice]))
    impossible = [key for key in changed if key.startswith(_MODEL) or key == _OPTIMIZER]
    if checkpoint["step"]:
        impossible += [key for key in changed if key in (*_SAMPLING_KEYS, _DATA, _WORLD_SIZE)]
    if impossible:
        reason = (
            "the weights do not fit the network, the state does not fit the optimizer, or the checkpoint is in the "
            "middle of an epoch with other batches"
        )
        heading = f"{run} cannot resume with these changes ({reason}):"
        lines = [f"  {_format_difference(key, before.get(key), now.get(key))}" for key in impossible]
        advice = f"to start a new run from its weights, use model.weights={path} and another --out"
        raise ValueError("\n".join([heading, *lines, advice]))
    state = RunState(**{name: checkpoint[name] for name in names}, changes=lines)
    if any(key == _DATA or key.startswith(("eval.", _SKELETON, _PADDING)) for key in changed):
        state.best_metric = None  # not comparable: another evaluation protocol or another validation set
    return state


def _group_names(net: Network, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    names = {parameter: name for name, parameter in net.named_parameters()}
    return [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]


def _schedule_keys_without_effect(before: LoopConfig, now: LoopConfig) -> set[str]:
    """Returns the schedule keys that may differ because the learning rates of completed epochs stay the same."""
    keys = set()
    if now.epochs >= before.epochs and not changes_past_learning_rates(before, now):
        keys.add(_EPOCHS)
    if lr_milestones(now) == lr_milestones(before):
        keys.add(_LR_DROPS)
    return keys


def _changes_results(key: str, before: Any, now: Any) -> bool:
    """Returns whether two values of a key lead to different training results."""
    if key in _FREE_KEYS or (key.startswith(_FREE_SECTION) and not key.startswith((_SKELETON, _PADDING))):
        return False
    return before != now


def _format_difference(key: str, before: Any, now: Any) -> str:
    if key == _DATA:
        return f"{key}: {before} in the run, {now} now"
    return f"{key}: {before!r} in the run, {now!r} now"

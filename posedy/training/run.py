"""Training from a configuration to a run folder, and the dry run."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from posedy.config import ClassifierConfig, Config
from posedy.evaluation.coco_eval import metrics_to_json
from posedy.files import check_writable, write_json_atomically
from posedy.system import peak_memory_mb
from posedy.training.checkpoint import LAST, RunState
from posedy.training.distributed import DistributedContext
from posedy.training.loggers import format_duration
from posedy.training.optim import learning_rate
from posedy.training.pose_task import PoseTask
from posedy.training.run_lock import lock_run_folder
from posedy.training.task import Task
from posedy.training.trainer import Trainer


def train(
    config: Config | ClassifierConfig,
    out: Path | None,
    *,
    dry_run: bool = False,
    stop_after_epochs: int | None = None,
    accept_changes: bool = False,
    json: Path | None = None,
    make_task: Callable[[Any, DistributedContext], Task] = PoseTask,
) -> dict[str, float]:
    """Trains a network, or makes a dry run; of several processes, rank 0 writes the files.

    Args:
        config: the experiment.
        out: the run folder; optional for a dry run.
        dry_run: run a few steps and one evaluation batch, and print the estimated duration of the whole training run.
        stop_after_epochs: stop after this many epochs of this call.
        accept_changes: resume although the configuration changes training results.
        json: a file for the metrics, or for the measurements of the dry run.
        make_task: creates what is trained: `PoseTask`, or `ClassifierTask` for the configuration of a classifier.

    Returns:
        The metrics of the last evaluation; empty for a dry run.

    Raises:
        OSError, ValueError: if the configuration, the data or an existing run are invalid, or another process trains in
            the run folder.
    """
    record: dict[str, Any]
    metrics: dict[str, float] = {}
    if dry_run:
        with tempfile.TemporaryDirectory() as empty:
            trainer = Trainer(config, out or Path(empty), accept_changes=accept_changes, make_task=make_task)
            report = dry_run_report(trainer)
        trainer.log(str(report))
        record = asdict(report) | {"epoch_seconds": report.epoch_seconds, "seconds": report.seconds}
    else:
        if out is None:
            raise ValueError("training requires a run folder: --out runs/NAME")
        if out.exists() and not out.is_dir():
            raise ValueError(f"expected a run folder, got the file {out}: choose another --out")
        with open_trainer(config, out, accept_changes=accept_changes, make_task=make_task) as trainer:
            metrics = trainer.fit(stop_after_epochs)
        record = metrics_to_json(metrics)
    if json is not None and trainer.context.is_main:
        write_json_atomically(json, record, indent=2)
    return metrics


@contextlib.contextmanager
def open_trainer(
    config: Config | ClassifierConfig,
    run: Path,
    progress: bool = True,
    accept_changes: bool = False,
    make_task: Callable[[Any, DistributedContext], Task] = PoseTask,
) -> Iterator[Trainer]:
    """Creates a trainer, whose run folder is locked against other training runs within the block.

    Args:
        config: the experiment.
        run: the run folder.
        progress: as in `Trainer`.
        accept_changes: as in `Trainer`.
        make_task: as in `Trainer`.

    Raises:
        OSError, ValueError: as `Trainer` does, or if another process trains in the folder.
    """
    check_writable(run / LAST)  # before the process group is formed, which takes time
    context = DistributedContext(config.train)
    with contextlib.ExitStack() as stack:
        with context.fail_together():
            if context.is_main:
                stack.enter_context(lock_run_folder(run))
        yield Trainer(
            config, run, progress=progress, accept_changes=accept_changes, context=context, make_task=make_task
        )


@dataclass(frozen=True)
class DryRunReport:
    """Durations, peak memory and loss that a dry run measured.

    Attributes:
        unit: what a sample is, in the plural.
        batch_size: samples per step.
        step_seconds: duration of the last step; the first ones also allocate memory.
        epoch_steps: steps per epoch.
        steps: remaining steps.
        epochs: remaining epochs, the current one included.
        evaluation_samples: samples of the evaluation batch.
        evaluation_seconds: duration of the evaluation batch.
        val_samples: samples of a whole evaluation.
        evaluations: remaining evaluations.
        memory_mb: peak memory.
        loss: loss of the last step.
    """

    unit: str
    batch_size: int
    step_seconds: float
    epoch_steps: int
    steps: int
    epochs: int
    evaluation_samples: int
    evaluation_seconds: float
    val_samples: int
    evaluations: int
    memory_mb: float
    loss: float

    @property
    def epoch_seconds(self) -> float:
        """Estimated duration of an epoch."""
        return self.step_seconds * self.epoch_steps

    @property
    def seconds(self) -> float:
        """Estimated duration of the remaining training run."""
        evaluation = self.evaluation_seconds / self.evaluation_samples * self.val_samples
        return self.step_seconds * self.steps + evaluation * self.evaluations

    def __str__(self) -> str:
        """Formats the report as lines to print."""
        evaluation = self.evaluation_seconds / self.evaluation_samples * self.val_samples
        return "\n".join(
            [
                f"a step of {self.batch_size} {self.unit}: {self.step_seconds:.3f} s without waiting for data, "
                f"loss {self.loss:.5f}",
                f"an epoch of {self.epoch_steps} steps: about {format_duration(self.epoch_seconds)}",
                f"an evaluation of {self.val_samples} {self.unit}: about {format_duration(evaluation)}",
                f"remaining: {self.steps} steps in {self.epochs} epochs, and {self.evaluations} evaluations: about "
                f"{format_duration(self.seconds)}",
                f"memory: {self.memory_mb:.0f} MB",
                "dry run: nothing was written",
            ]
        )


def dry_run_report(trainer: Trainer) -> DryRunReport:
    """Measures two steps (five with a CUDA graph) and one evaluation batch.

    The steps change the trainer's network: do not use it afterward. Waiting for data is not counted, since workers
    start only once, and then load batches ahead; the log of an epoch has its share.

    Raises:
        OSError, ValueError: if an image cannot be read.
    """
    config, state, steps = trainer.config, trainer.state, len(trainer.loader)
    trainer.training_step.set_train_mode()
    seconds, loss = 0.0, 0.0
    batches = trainer.loader.epoch(0)
    for step in range(min(trainer.training_step.slow_steps + 1, steps)):
        batch = next(batches)
        start = time.perf_counter()
        lr = learning_rate(config.train, step, steps)
        loss = float(trainer.context.sum(trainer.training_step(batch, trainer.loader.sampler.num_samples(step), lr)))
        seconds = time.perf_counter() - start
    batches.close()
    start = time.perf_counter()
    with trainer.training_step.without_autocast():
        evaluated = trainer.task.evaluate_batch(trainer.evaluated_net)
    evaluation_seconds = time.perf_counter() - start
    remaining = remaining_work(config, state, steps, seconds)
    return DryRunReport(
        unit=trainer.task.unit,
        batch_size=config.train.batch_size,
        step_seconds=seconds,
        epoch_steps=steps,
        steps=remaining.steps,
        epochs=remaining.epochs,
        evaluation_samples=evaluated,
        evaluation_seconds=evaluation_seconds,
        val_samples=-(-trainer.task.val_size // trainer.context.world_size),
        evaluations=remaining.evaluations,
        memory_mb=peak_memory_mb(trainer.context.device),
        loss=loss,
    )


class RemainingWork(NamedTuple):
    """What is left of a training run.

    Attributes:
        steps: number of steps.
        epochs: number of epochs, the current one included.
        evaluations: number of evaluations.
    """

    steps: int
    epochs: int
    evaluations: int


def remaining_work(
    config: Config | ClassifierConfig, state: RunState, epoch_steps: int, step_seconds: float
) -> RemainingWork:
    """Counts what is left of a training run, also with a time limit.

    Args:
        config: the experiment.
        state: the progress of the run.
        epoch_steps: steps per epoch.
        step_seconds: duration of a step.
    """
    steps = max((config.train.epochs - state.epoch) * epoch_steps - state.step, 0)
    if config.train.minutes is not None:
        seconds = max(60 * config.train.minutes - state.seconds_before - state.seconds, 0)
        steps = min(steps, math.ceil(seconds / step_seconds))
    last_epoch = state.epoch + math.ceil((state.step + steps) / epoch_steps)
    # an interrupted run may lack the evaluation of its last completed epoch
    was_evaluated = state.step > 0 or state.evaluated_epoch == state.epoch
    epochs = range(state.epoch + was_evaluated, last_epoch + 1)
    evaluations = sum(epoch % config.eval.every == 0 or epoch == last_epoch for epoch in epochs)
    return RemainingWork(steps, last_epoch - state.epoch, evaluations)

"""A training run from a configuration to its folder, and the dry run."""

import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posedy.config import Config
from posedy.data.datasets import TopDownEvalDataset
from posedy.evaluation.coco_eval import metrics_to_json
from posedy.evaluation.evaluator import predict_crops
from posedy.files import write_json_atomically
from posedy.prediction import TorchModel
from posedy.system import peak_memory_mb
from posedy.training.loggers import clock
from posedy.training.optim import learning_rate
from posedy.training.trainer import Trainer


def train(
    config: Config,
    out: Path | None,
    *,
    dry_run: bool = False,
    stop_after_epochs: int | None = None,
    accept_changes: bool = False,
    json: Path | None = None,
) -> None:
    """Trains, or rehearses it; in many processes one writes.

    Args:
        config: the experiment.
        out: the run's folder; a rehearsal needs none.
        dry_run: build everything, make a few steps and one batch of the evaluation, say how long all will take.
        stop_after_epochs: end after so many epochs of this call.
        accept_changes: go on with a configuration of another mathematics.
        json: a file for COCO's ten numbers, or for what the rehearsal measured.

    Raises:
        OSError, ValueError: if the configuration, the data or an earlier run do not fit.
    """
    numbers: dict[str, Any]
    if dry_run:
        with tempfile.TemporaryDirectory() as empty:
            trainer = Trainer(config, out or Path(empty), accept_changes=accept_changes)
            rehearsal = dry_run_report(trainer)
        trainer.say(str(rehearsal))
        numbers = asdict(rehearsal) | {"epoch_seconds": rehearsal.epoch_seconds, "seconds": rehearsal.seconds}
    else:
        if out is None:
            raise ValueError("a training needs a folder: --out runs/NAME")
        out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, out, accept_changes=accept_changes)
        numbers = metrics_to_json(trainer.fit(stop_after_epochs))
    if json is not None and trainer.processes.is_main:
        write_json_atomically(json, numbers, indent=2)


@dataclass(frozen=True)
class DryRunReport:
    """What a dry run measured.

    Attributes:
        batch_size: persons of a step.
        step_seconds: of the last step; the first ones also set memory up.
        epoch_steps: of a whole epoch.
        epochs: to be done.
        evaluation_persons: of the batch of the evaluation.
        evaluation_seconds: that it took.
        val_persons: of the whole evaluation.
        evaluations: to be done.
        memory_mb: at most in use.
        loss: of the last step.
    """

    batch_size: int
    step_seconds: float
    epoch_steps: int
    epochs: int
    evaluation_persons: int
    evaluation_seconds: float
    val_persons: int
    evaluations: int
    memory_mb: float
    loss: float

    @property
    def epoch_seconds(self) -> float:
        """What an epoch will take."""
        return self.step_seconds * self.epoch_steps

    @property
    def seconds(self) -> float:
        """What all will take."""
        evaluation = self.evaluation_seconds / self.evaluation_persons * self.val_persons
        return self.epoch_seconds * self.epochs + evaluation * self.evaluations

    def __str__(self) -> str:
        """Lines to print."""
        evaluation = self.evaluation_seconds / self.evaluation_persons * self.val_persons
        return "\n".join(
            [
                f"a step of {self.batch_size} persons: {self.step_seconds:.3f} s, loss {self.loss:.5f}",
                f"an epoch of {self.epoch_steps} steps: about {clock(self.epoch_seconds)}",
                f"an evaluation of {self.val_persons} persons: about {clock(evaluation)}",
                f"all {self.epochs} epochs with {self.evaluations} evaluations: about {clock(self.seconds)}",
                f"memory: {self.memory_mb:.0f} MB",
                "dry run: nothing was written",
            ]
        )


def dry_run_report(trainer: Trainer) -> DryRunReport:
    """Makes two steps (five with a CUDA graph) and one batch of the evaluation of a training that has been built.

    The network of the trainer is changed by the steps: it is not to be used afterward. Waiting for the first batch is
    not counted, since workers are started once.

    Raises:
        OSError, ValueError: if a photo cannot be read.
    """
    config, state, steps = trainer.config, trainer.state, len(trainer.loader)
    trainer.training_step.begin_epoch()
    seconds, loss = 0.0, 0.0
    batches = trainer.loader.epoch(0)
    for step in range(min(trainer.training_step.slow_steps + 1, steps)):
        batch = next(batches)
        began = time.perf_counter()
        rate = learning_rate(config.train, step, steps)
        loss = float(trainer.processes.sum(trainer.training_step(batch, trainer.loader.order.persons(step), rate)))
        seconds = time.perf_counter() - began
    batches.close()
    val, net = trainer.data.val, trainer.evaluated_net
    first = slice(0, config.eval.batch_size)
    crops = TopDownEvalDataset(
        val, val.image_index[first], val.boxes[first], trainer.codec.input_size, config.eval.padding
    )
    began = time.perf_counter()
    with trainer.training_step.without_autocast():
        predict_crops(TorchModel(net.eval(), trainer.processes.device), crops, config.eval)
    evaluation_seconds = time.perf_counter() - began
    epochs = config.train.epochs - state.epoch
    if config.train.minutes is not None:
        epochs = min(epochs, math.ceil(60 * config.train.minutes / (seconds * steps)))
    return DryRunReport(
        batch_size=config.train.batch_size,
        step_seconds=seconds,
        epoch_steps=steps,
        epochs=epochs,
        evaluation_persons=len(crops),
        evaluation_seconds=evaluation_seconds,
        val_persons=-(-len(val) // trainer.processes.count),
        evaluations=-(-epochs // config.eval.every),
        memory_mb=peak_memory_mb(trainer.processes.device),
        loss=loss,
    )

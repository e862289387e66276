"""A rehearsal of a training: all is built, a few steps and a batch of the evaluation are made, nothing is kept."""

import math
import time
from dataclasses import dataclass

from posedy.data.dataset import BoxCrops
from posedy.evaluation.tester import predict_crops
from posedy.memory import peak_memory_mb
from posedy.training.loop import Trainer
from posedy.training.meter import clock
from posedy.training.schedule import learning_rate


@dataclass(frozen=True)
class Rehearsal:
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


def rehearse(trainer: Trainer) -> Rehearsal:
    """Makes two steps (five with a CUDA graph) and one batch of the evaluation of a training that has been built.

    The network of the trainer is changed by the steps: it is not to be used afterwards. Waiting for the first batch is
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
    crops = BoxCrops(val, val.image_index[first], val.boxes[first], trainer.codec.input_size, config.eval.padding)
    began = time.perf_counter()
    with trainer.training_step.without_autocast():
        predict_crops(net.eval(), crops, trainer.codec, config.eval, device=trainer.processes.device)
    evaluation_seconds = time.perf_counter() - began
    epochs = config.train.epochs - state.epoch
    if config.train.minutes is not None:
        epochs = min(epochs, math.ceil(60 * config.train.minutes / (seconds * steps)))
    return Rehearsal(
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

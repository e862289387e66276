"""`posedy train`, from a configuration to a run's folder."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posedy.config import Config
from posedy.evaluation.coco_metrics import metrics_to_json
from posedy.files import write_json_atomically
from posedy.training.dry_run import rehearse
from posedy.training.loop import Trainer


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
            rehearsal = rehearse(trainer)
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

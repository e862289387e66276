"""Fixtures of the training tests: a quick experiment on the synthetic dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from posedy.config import Config, load_config
from posedy.models.network_file import read_checkpoint
from posedy.training.checkpoint import LAST
from posedy.training.trainer import Trainer


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Resets accelerate's global state, which keeps the precision of the first Accelerator of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def subprocess_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes training subprocesses cache image checks in a temporary folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def plots() -> None:
    """Enables curves.png and the images of batches in a test."""


@pytest.fixture(autouse=True)
def no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables curves.png and replaces the images of batches by one pixel unless a test requests `plots`.

    The plots of a quick training run take longer than its training.
    """
    if "plots" not in request.fixturenames:
        disable_plots(monkeypatch)


def disable_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posedy.training.loggers.plot_curves", lambda *_: None)
    monkeypatch.setattr("posedy.training.pose_task.draw_batch", lambda *_: np.zeros((1, 1, 3), dtype=np.uint8))


@pytest.fixture
def kill_in_epoch_2(monkeypatch: pytest.MonkeyPatch) -> Callable[[Trainer], None]:
    """Runs a training that saves after every step, and ends it after the first step of the second epoch."""

    def kill(trainer: Trainer) -> None:
        step = trainer._train_step

        def failing_step(*arguments: Any) -> None:
            if trainer.state.epoch == 1 and trainer.state.step == 1:
                raise MemoryError
            step(*arguments)

        monkeypatch.setattr(trainer, "_train_step", failing_step)
        with pytest.raises(MemoryError):
            trainer.fit()
        saved = read_checkpoint(trainer.run / LAST)
        assert (saved["epoch"], saved["step"]) == (1, 1)

    return kill


@pytest.fixture(scope="session")
def experiment(synthetic: Path) -> Callable[..., Config]:
    """Returns a function that makes configs of a quick experiment: `experiment("train.epochs=2", ...)`."""

    def make(*overrides: str) -> Config:
        quick = [
            f"data.root={synthetic}",
            "model.name=dy_mobilenetv2_035-fpn",
            "model.options={depth: 0.34}",  # 7 blocks instead of 17
            "model.input_size=[32, 64]",
            "train.epochs=2",
            "train.batch_size=8",
            "train.workers=0",
            "eval.flip=false",
            "eval.every=100",
        ]
        return load_config(None, [*quick, *overrides])

    return make

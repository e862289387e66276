"""Fixtures of the training tests: a quick experiment on the synthetic data set."""

from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from posedy.config import Config, load_config


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Resets accelerate's global state, which keeps the precision of the first Accelerator of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def subprocess_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes training subprocesses cache image checks in a temporary folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def curves() -> None:
    """Enables curves.png in a test."""


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables curves.png, which takes as long as a quick training run, unless a test requests `curves`."""
    if "curves" not in request.fixturenames:
        monkeypatch.setattr("posedy.training.loggers.plot_curves", lambda rows, path: None)


@pytest.fixture(scope="session")
def experiment(synthetic: Path) -> Callable[..., Config]:
    """Returns a function that makes configs of a quick experiment: `experiment("train.epochs=2", ...)`."""

    def make(*overrides: str) -> Config:
        quick = [
            f"data.root={synthetic}",
            "model.name=dy_mobilenetv2_035-bneck",
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

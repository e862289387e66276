"""A drawn data set and a small experiment on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from posedy.config import Config, load_config


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """accelerate keeps one precision for the life of a process; each test begins without one."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def own_cache_folder_of_subprocesses(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in processes of their own keep image checks in a temporary folder too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def curves() -> None:
    """A test that asks for this fixture has its runs draw curves.png."""


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other runs do not: it takes as long as their training, and test_curves.py tests it."""
    if "curves" not in request.fixturenames:
        monkeypatch.setattr("posedy.training.loggers.draw_curves", lambda rows, path: None)


@pytest.fixture(scope="session")
def experiment(drawn: Path) -> Callable[..., Config]:
    """Makes configurations of a quick experiment on drawn people: `experiment("train.epochs=2", ...)`."""

    def make(*overrides: str) -> Config:
        quick = [
            f"data.root={drawn}",
            "model.name=dy_mobilenetv2_035-bneck",
            "model.input_size=[32, 64]",
            "train.epochs=2",
            "train.batch_size=8",
            "train.workers=0",
            "eval.flip=false",
            "eval.every=100",
        ]
        return load_config(None, [*quick, *overrides])

    return make

"""The steps of `make quickstart` are commands that exist, on files that exist or that an earlier step makes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from posedy.cli import make_parser

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def quickstart() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart", REPOSITORY / "tools/quickstart.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_step_parses(quickstart: ModuleType) -> None:
    commands = [make_parser().parse_args(step).command for step in quickstart.STEPS]
    assert commands == ["synth", "train", "test", "test", "demo"]


def test_files_fit_together(quickstart: ModuleType) -> None:
    _, train, test, _, demo = (make_parser().parse_args(step) for step in quickstart.STEPS)
    assert (REPOSITORY / train.config).is_file()
    assert test.config == train.config
    assert test.checkpoint == Path(demo.checkpoint) == train.out / "best.pt"


def test_a_failing_step_stops_it(quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def failing(step: list[str]) -> int:
        ran.append(step[0])
        return 1 if step[0] == "train" else 0

    monkeypatch.setattr(quickstart, "main", failing)
    assert quickstart.run() == 1
    assert ran == ["synth", "train"]

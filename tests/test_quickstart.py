"""The steps of `make quickstart` are commands that exist, on files that exist or that an earlier step makes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from posedy.cli import make_parser
from posedy.weights.shipped import DEFAULT

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
    assert commands == ["synth", "demo", "train", "test", "test", "demo"]


def test_files_fit_together(quickstart: ModuleType) -> None:
    _, shipped, train, test, _, demo = (make_parser().parse_args(step) for step in quickstart.STEPS)
    assert (REPOSITORY / train.config).is_file()
    assert test.config == train.config
    assert test.checkpoint == Path(demo.checkpoint) == train.out / "best.pt"
    assert shipped.checkpoint == DEFAULT
    assert shipped.photos == demo.photos


def test_a_photo_is_shown_first(quickstart: ModuleType) -> None:
    first, *others = quickstart.steps("a photo.jpg")
    demo = make_parser().parse_args(first)
    assert (demo.command, demo.photos, demo.whole, demo.checkpoint) == ("demo", ["a photo.jpg"], True, DEFAULT)
    assert others == quickstart.STEPS == quickstart.steps(None)


def test_a_failing_step_stops_it(quickstart: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def failing(step: list[str]) -> int:
        ran.append(step[0])
        return 1 if step[0] == "train" else 0

    monkeypatch.setattr(quickstart, "main", failing)
    assert quickstart.run([]) == 1
    assert ran == ["synth", "demo", "train"]

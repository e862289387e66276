"""The steps of `make quickstart` are commands that exist, on files that exist or that an earlier step makes."""

from pathlib import Path

import pytest

from posedy.cli.main import make_parser
from tools.lab import quickstart

REPOSITORY = Path(__file__).parents[1]


def test_every_step_parses() -> None:
    commands = [make_parser().parse_args(step).command for step in quickstart.STEPS[1:]]
    assert commands == ["predict", "train", "test", "test", "predict"]
    assert quickstart.STEPS[0][0] == "tools.lab.synthetic"


def test_files_fit_together() -> None:
    shipped, train, test, _, demo = (make_parser().parse_args(step) for step in quickstart.STEPS[1:])
    assert (REPOSITORY / train.config).is_file()
    assert test.config == train.config
    assert test.checkpoint == Path(demo.checkpoint) == train.out / "best.pt"
    assert shipped.checkpoint is None
    assert shipped.photos == demo.photos


def test_a_photo_is_shown_first() -> None:
    first, *others = quickstart.steps("a photo.jpg")
    demo = make_parser().parse_args(first)
    assert (demo.command, demo.photos, demo.whole, demo.checkpoint) == ("predict", ["a photo.jpg"], True, None)
    assert others == quickstart.STEPS == quickstart.steps(None)


def test_a_failing_step_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def failing(step: list[str]) -> int:
        ran.append(step[0])
        return 1 if step[0] == "train" else 0

    monkeypatch.setattr(quickstart, "main", failing)
    monkeypatch.setattr(quickstart, "draw", lambda arguments: ran.append("draw"))
    assert quickstart.run([]) == 1
    assert ran == ["draw", "predict", "train"]

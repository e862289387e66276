"""The steps of `make quickstart` are valid commands, and each reads files that exist or that an earlier step writes."""

from pathlib import Path

import pytest

from posedy.cli.main import make_parser
from tools.lab import quickstart

REPOSITORY = Path(__file__).parents[1]


def test_every_step_parses() -> None:
    commands = [make_parser().parse_args(step).command for step in quickstart.STEPS[1:]]
    assert commands == ["predict", "train", "test", "test", "predict"]
    assert quickstart.STEPS[0][0] == "tools.lab.synthetic"


def test_steps_use_consistent_files() -> None:
    pretrained, train, test, _, demo = (make_parser().parse_args(step) for step in quickstart.STEPS[1:])
    assert (REPOSITORY / train.config).is_file()
    assert test.config == train.config
    assert test.checkpoint == Path(demo.checkpoint) == train.out / "best.pt"
    assert pretrained.checkpoint is None
    assert pretrained.inputs == demo.inputs


def test_image_is_predicted_first() -> None:
    first, *others = quickstart.steps("an image.jpg")
    demo = make_parser().parse_args(first)
    assert (demo.command, demo.inputs, demo.detector, demo.checkpoint) == (
        "predict",
        ["an image.jpg"],
        "full-image",
        None,
    )
    assert others == quickstart.STEPS == quickstart.steps(None)


def test_failing_step_stops_the_quickstart(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def fail_training(step: list[str]) -> int:
        ran.append(step[0])
        return 1 if step[0] == "train" else 0

    monkeypatch.setattr(quickstart, "main", fail_training)
    monkeypatch.setattr(quickstart, "generate", lambda arguments: ran.append("generate"))
    assert quickstart.run([]) == 1
    assert ran == ["generate", "predict", "train"]

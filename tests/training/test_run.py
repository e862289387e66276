"""`posedy.training.run`: the run folder, and the estimate of the dry run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import posedy
from posedy.config import Config, load_config
from posedy.training.checkpoint import RunState
from posedy.training.run import remaining_work, train

Experiment = Callable[..., Config]


def test_missing_data_leave_no_run_folder(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment(f"data.root={tmp_path / 'missing'}")
    with pytest.raises(OSError, match="missing"):
        posedy.train(config, out=tmp_path / "runs/mine")
    assert not (tmp_path / "runs").exists()


def test_an_existing_folder_is_kept_after_an_error(experiment: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="missing"):
        posedy.train(experiment(f"data.root={tmp_path / 'missing'}"), out=out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_a_run_folder_that_cannot_be_created_is_reported_before_the_data_are_read(
    experiment: Experiment, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/mine"):
        posedy.train(experiment(f"data.root={tmp_path / 'missing'}"), out=tmp_path / "file/mine")


@pytest.mark.parametrize(
    ("minutes", "state", "expected"),
    [
        (None, RunState(), (70, 7, 4)),  # evaluations after the epochs 2, 4, 6 and 7
        (None, RunState(epoch=3, step=1, evaluated_epoch=2), (39, 4, 3)),
        (None, RunState(epoch=4, evaluated_epoch=4), (30, 3, 2)),
        (None, RunState(epoch=4, evaluated_epoch=2), (30, 3, 3)),  # interrupted before its evaluation
        (None, RunState(epoch=6, step=9, evaluated_epoch=6), (1, 1, 1)),
        (None, RunState(epoch=7, evaluated_epoch=7), (0, 0, 0)),
        (None, RunState(epoch=7, evaluated_epoch=6), (0, 0, 1)),
        (None, RunState(epoch=9, evaluated_epoch=9), (0, 0, 0)),
        (60, RunState(epoch=4, step=1, evaluated_epoch=4), (29, 3, 2)),
        (1, RunState(), (30, 3, 2)),  # steps of 2 s
        (1, RunState(epoch=1, step=5, seconds=10.0, seconds_before=20.0), (15, 2, 2)),
        (1, RunState(epoch=4, evaluated_epoch=4, seconds_before=60.5), (0, 0, 0)),
    ],
)
def test_remaining_work_counts_what_is_left(
    minutes: float | None, state: RunState, expected: tuple[int, int, int]
) -> None:
    limit = [] if minutes is None else [f"train.minutes={minutes}"]
    config = load_config(None, ["train.epochs=7", "eval.every=2", *limit])
    assert remaining_work(config, state, epoch_steps=10, step_seconds=2.0) == expected


def test_dry_run_of_a_resumed_run_counts_what_is_left(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment("train.epochs=3")
    train(config, tmp_path, stop_after_epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    capsys.readouterr()
    train(config, tmp_path, dry_run=True, json=tmp_path / "dry.json")
    assert "2 epochs" in capsys.readouterr().out
    record = json.loads((tmp_path / "dry.json").read_text())
    (tmp_path / "dry.json").unlink()
    assert (record["steps"], record["epochs"], record["evaluations"]) == (2 * record["epoch_steps"], 2, 1)
    evaluation = record["evaluation_seconds"] / record["evaluation_samples"] * record["val_samples"]
    assert record["seconds"] == pytest.approx(record["steps"] * record["step_seconds"] + evaluation)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

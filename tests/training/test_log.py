"""metrics.csv and the TensorBoard curves."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from posedy.files import read_csv
from posedy.training.loggers import RunLog


def numbers(epoch: int, **more: float) -> dict[str, float]:
    return {"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "lr": 0.001, "temperature": 30, **more}


def test_a_row_for_each_epoch_and_the_same_curves(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log.write(numbers(1))
    log.write(numbers(2, AP=0.25))
    log.close()
    rows = read_csv(tmp_path / "metrics.csv")
    assert [(row["epoch"], row["loss"], row["AP"]) for row in rows] == [("1", "1", ""), ("2", "0.5", "0.25")]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.value for event in board.Scalars("train/loss")] == [1.0, 0.5]
    assert [(event.step, event.value) for event in board.Scalars("val/AP")] == [(2, 0.25)]


@pytest.mark.slow
def test_rows_after_the_checkpoint_are_dropped_when_a_run_goes_on(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for epoch in (1, 2, 3):
        log.write(numbers(epoch))
    log.close()
    again = RunLog(tmp_path, 2)
    again.write(numbers(3, AP=0.5))
    again.close()
    assert [(row["epoch"], row["AP"]) for row in read_csv(tmp_path / "metrics.csv")] == [
        ("1", ""),
        ("2", ""),
        ("3", "0.5"),
    ]


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert read_csv(tmp_path / "metrics.csv") == []


@pytest.mark.parametrize("content", [b"epoch,loss\n1,\xff\n", b"epoch,loss\n1," + b"2" * 200_000])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"metrics\.csv is not a table"):
        read_csv(tmp_path / "metrics.csv")


def test_a_row_takes_the_place_of_its_epochs_earlier_one_and_steps_are_exact(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log.write(numbers(1) | {"step": 1234567})
    log.write(numbers(1, AP=0.5) | {"step": 1234567})
    log.close()
    assert [(row["epoch"], row["step"], row["AP"]) for row in read_csv(tmp_path / "metrics.csv")] == [
        ("1", "1234567", "0.5")
    ]

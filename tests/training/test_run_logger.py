"""Run logger: metrics.csv and TensorBoard."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from posedy.files import read_csv
from posedy.training.loggers import RunLogger
from posedy.training.pose_task import PoseTask


def row_values(epoch: int, **more: float) -> dict[str, float]:
    return {"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "lr": 0.001, "temperature": 30, **more}


def test_epochs_are_written_to_csv_and_tensorboard(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, 0, PoseTask)
    logger.write_epoch(row_values(1))
    logger.write_epoch(row_values(2, AP=0.25))
    logger.close()
    rows = read_csv(tmp_path / "metrics.csv")
    assert [(row["epoch"], row["loss"], row["AP"]) for row in rows] == [("1", "1", ""), ("2", "0.5", "0.25")]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.value for event in board.Scalars("train/loss")] == [1.0, 0.5]
    assert [(event.step, event.value) for event in board.Scalars("val/AP")] == [(2, 0.25)]


@pytest.mark.slow
def test_resuming_drops_rows_after_the_checkpoint(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, 0, PoseTask)
    for epoch in (1, 2, 3):
        logger.write_epoch(row_values(epoch))
    logger.close()
    again = RunLogger(tmp_path, 2, PoseTask)
    again.write_epoch(row_values(3, AP=0.5))
    again.close()
    assert [(row["epoch"], row["AP"]) for row in read_csv(tmp_path / "metrics.csv")] == [
        ("1", ""),
        ("2", ""),
        ("3", "0.5"),
    ]


def test_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert read_csv(tmp_path / "metrics.csv") == []


@pytest.mark.parametrize("content", [b"epoch,loss\n1,\xff\n", b"epoch,loss\n1," + b"2" * 200_000])
def test_invalid_table_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"metrics\.csv"):
        read_csv(tmp_path / "metrics.csv")


def test_epoch_row_replaces_an_earlier_one_and_keeps_exact_steps(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, 0, PoseTask)
    logger.write_epoch(row_values(1) | {"step": 1234567})
    logger.write_epoch(row_values(1, AP=0.5) | {"step": 1234567})
    logger.close()
    assert [(row["epoch"], row["step"], row["AP"]) for row in read_csv(tmp_path / "metrics.csv")] == [
        ("1", "1234567", "0.5")
    ]

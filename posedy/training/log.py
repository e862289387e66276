"""What a run writes while it goes: metrics.csv, TensorBoard curves, pictures of a batch; at its end curves.png."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from posedy.evaluation.coco_metrics import METRIC_NAMES
from posedy.files import write_bytes_atomically
from posedy.training.curves import draw_curves

_COLUMNS = (
    *("epoch", "step", "lr", "temperature", "loss", "persons_per_second", "data_share", "memory_mb", "seconds"),
    *METRIC_NAMES,
)


class RunLog:
    """One row for each epoch in metrics.csv, the same numbers as TensorBoard curves, and pictures.

    Args:
        run: the run's folder.
        epochs_done: rows of later epochs, left by a run that was cut off, are dropped.
    """

    def __init__(self, run: Path, epochs_done: int) -> None:
        self._run = run
        self._path = run / "metrics.csv"
        self._rows = [row for row in read_metrics(run) if int(row["epoch"]) <= epochs_done]
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=epochs_done + 1 if epochs_done else None)

    def write(self, numbers: Mapping[str, float]) -> None:
        """Writes an epoch's row in place of an earlier one; AP columns stay empty where it was not measured."""
        self._rows = [row for row in self._rows if int(row["epoch"]) < numbers["epoch"]]
        self._rows.append({name: _shown(numbers[name]) if name in numbers else "" for name in _COLUMNS})
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_bytes_atomically(self._path, text.getvalue().encode())
        for name, value in numbers.items():
            if name != "epoch":
                group = "val" if name in METRIC_NAMES else "train"
                self._board.add_scalar(f"{group}/{name}", value, int(numbers["epoch"]))
        self._board.flush()

    def show(self, picture: NDArray[np.uint8], epoch: int) -> None:
        """Keeps a picture (H, W, 3) RGB as pictures/epoch-NNNN.jpg and in TensorBoard."""
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        write_bytes_atomically(self._run / "pictures" / f"epoch-{epoch:04d}.jpg", jpeg.tobytes())
        self._board.add_image("batch", picture, epoch, dataformats="HWC")
        self._board.flush()

    def close(self) -> None:
        """Ends the TensorBoard file and draws curves.png."""
        self._board.close()
        draw_curves(read_metrics(self._run), self._run / "curves.png")


def _shown(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.7g}"


def read_metrics(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv, by column name; none if there is no such file yet.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a table of comma-separated values.
    """
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table of comma-separated values ({error}): mend or delete it") from error

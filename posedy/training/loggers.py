"""The log of a training run: metrics.csv, TensorBoard, pictures of a batch, curves.png, and the speed of an epoch."""

import csv
import io
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from posedy.data.loaders import Batch
from posedy.evaluation.coco_eval import METRIC_NAMES
from posedy.files import read_csv, write_bytes_atomically

METRICS = "metrics.csv"
"""The table of a run, in its folder."""
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
        self._path = run / METRICS
        self._rows = [row for row in read_csv(run / METRICS) if int(row["epoch"]) <= epochs_done]
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
        draw_curves(read_csv(self._run / METRICS), self._run / "curves.png")


def _shown(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.7g}"


class Meter:
    """A stop watch around the batches of an epoch."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.waited = 0.0
        self.persons = 0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Hands batches on and counts the time until each is there."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.began

    @property
    def persons_per_second(self) -> float:
        """Over all processes."""
        return self.persons / self.seconds

    @property
    def data_share(self) -> float:
        """The part of the time that went into waiting for data, from 0 to 1."""
        return self.waited / self.seconds


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


_AP_COLORS = {"AP": "tab:blue", "AP50": "tab:cyan", "AP75": "tab:purple"}
# epochs up to which each is a dot of its own
_DOTS = 60


def draw_curves(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draws loss, AP, learning rate and speed over the epochs.

    Speed is persons per second and, if the rows have a column `data_share` (from 0 to 1), the share of the time that
    was spent waiting for data. What is empty or not finite is left out, and its neighbors are joined.

    Args:
        rows: of metrics.csv, as `read_csv` gives them; none give empty panels.
        path: of the PNG, which is written whole or not at all.

    Raises:
        ValueError: if a column is not a number.
        OSError: if the file cannot be written.
    """
    figure = Figure(figsize=(11, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    loss, ap, rate, speed = figure.subplots(2, 2, sharex=True).flat
    epochs = _column(rows, "epoch")
    # both fall by factors
    _draw_logarithmic(loss, epochs, _column(rows, "loss"), "loss", "tab:red")
    _draw_logarithmic(rate, epochs, _column(rows, "lr"), "learning rate", "tab:green")
    _draw_ap(ap, epochs, rows)
    _draw_speed(speed, epochs, rows)
    for axes in (loss, ap, rate, speed):
        axes.grid(alpha=0.3)
        if not axes.lines:
            axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color="gray")
            axes.set_yticks([])
    known = epochs[np.isfinite(epochs)]
    first, last = (known.min(), known.max()) if len(known) else (1, 1)
    margin = max(0.02 * (last - first), 0.5)
    for axes in (rate, speed):
        axes.set_xlabel("epoch")
        axes.set_xlim(first - margin, last + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes_atomically(path, buffer.getvalue())


def _column(rows: Sequence[Mapping[str, str]], name: str) -> NDArray[np.float64]:
    """The numbers of a column, NaN where it is empty or missing."""
    values = np.full(len(rows), math.nan)
    for index, row in enumerate(rows):
        text = row.get(name)
        if not text:
            continue
        try:
            values[index] = float(text)
        except ValueError:
            raise ValueError(
                f"metrics.csv: {name} is a number in each row, got {text!r} in row {index + 1}; mend or delete the row"
            ) from None
    return values


def _draw(axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], label: str, color: str) -> None:
    """Draws a curve through what is finite; nothing if nothing is."""
    shown = np.isfinite(epochs) & np.isfinite(values)
    if shown.any():
        style = ".-" if shown.sum() <= _DOTS else "-"
        axes.plot(epochs[shown], values[shown], style, color=color, label=label)


def _draw_logarithmic(
    axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], label: str, color: str
) -> None:
    axes.set_title(label)
    _draw(axes, epochs, np.where(values > 0, values, math.nan), label, color)
    if axes.lines:
        axes.set_yscale("log")


def _from_zero(axes: Axes, room: float) -> None:
    """Lets the axis go from 0 to above its curves by a part of their height."""
    highest = max(float(np.max(line.get_ydata())) for line in axes.lines)
    axes.set_ylim(0, highest * (1 + room) if highest > 0 else 1)


def _draw_ap(axes: Axes, epochs: NDArray[np.float64], rows: Sequence[Mapping[str, str]]) -> None:
    """AP, AP50 and AP75, with a star at the best AP: the first of equal ones, which is the one that best.pt keeps."""
    axes.set_title("AP on the val set")
    columns = {name: _column(rows, name) for name in _AP_COLORS}
    for name, values in columns.items():
        _draw(axes, epochs, values, name, _AP_COLORS[name])
    if axes.lines:
        # room above for the legend
        _from_zero(axes, room=0.2)
        axes.legend(loc="upper left", ncols=len(axes.lines), fontsize=8)
    shown = np.isfinite(epochs) & np.isfinite(columns["AP"])
    if shown.any():
        best = int(np.where(shown, columns["AP"], -math.inf).argmax())
        axes.plot(epochs[best], columns["AP"][best], "*", color="tab:orange", markersize=14, zorder=3)
        axes.set_title(f"AP on the val set, best {columns['AP'][best]:.3f} after epoch {epochs[best]:g}")


def _draw_speed(axes: Axes, epochs: NDArray[np.float64], rows: Sequence[Mapping[str, str]]) -> None:
    """Persons per second on the left axis, the share of waiting on one of its own at the right."""
    axes.set_title("speed")
    _draw(axes, epochs, _column(rows, "persons_per_second"), "persons/s", "tab:brown")
    if axes.lines:
        _from_zero(axes, room=0.05)
        axes.set_ylabel("persons/s", color="tab:brown")
    share = 100 * _column(rows, "data_share")
    if np.isfinite(share).any():
        waiting = axes.twinx()
        _draw(waiting, epochs, share, "waiting for data", "tab:gray")
        waiting.set_ylim(0, 100)
        waiting.set_ylabel("% of the time waiting for data", color="tab:gray")

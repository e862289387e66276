"""Logging of a training run: metrics.csv, TensorBoard, batch visualizations, curves.png and throughput."""

import csv
import io
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from posedy.data.loaders import Batch
from posedy.files import read_csv, write_bytes_atomically
from posedy.images import encode_jpeg, rgb_to_bgr
from posedy.training.task import Task

METRICS_FILE = "metrics.csv"
"""Name of the table in the run folder."""
ATTENTION_FILE = "attention.csv"
"""Name of the table with the entropy of each layer's attention."""


class RunLogger:
    """Writes one row per epoch to metrics.csv, the same values to TensorBoard, and batch visualizations.

    Args:
        run: the run folder.
        epochs_done: completed epochs; rows of later epochs, left by an aborted run, are dropped.
        task: names the samples and the metrics.
    """

    def __init__(self, run: Path, epochs_done: int, task: Task | type[Task]) -> None:
        self._run, self._task = run, task
        self._path = run / METRICS_FILE
        self._rows = _read_rows(self._path, epochs_done)
        self._attention_rows = _read_rows(run / ATTENTION_FILE, epochs_done)
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=epochs_done + 1 if epochs_done else None)

    def write_epoch(self, values: Mapping[str, float]) -> None:
        """Writes the row of an epoch and replaces an earlier one; metrics that were not measured stay empty."""
        self._rows = [row for row in self._rows if int(row["epoch"]) < values["epoch"]]
        self._rows.append({name: _format_number(value) for name, value in values.items()})
        # options such as a consistency loss have columns of their own
        speed = f"{self._task.unit}_per_second"
        numbers = ("epoch", "step", "lr", "temperature", "loss", speed, "data_share", "memory_mb", "seconds")
        columns = dict.fromkeys([*numbers, *self._task.metrics, *(name for row in self._rows for name in row)])
        _write_rows(self._path, columns, self._rows)
        for name, value in values.items():
            if name != "epoch":
                group = "val" if name in self._task.metrics else "train"
                self._writer.add_scalar(f"{group}/{name}", value, int(values["epoch"]))
        self._writer.flush()

    def write_attention(self, epoch: int, entropies: Mapping[str, float]) -> None:
        """Writes the mean entropy of the attention of each layer after an epoch to attention.csv."""
        self._attention_rows = [row for row in self._attention_rows if int(row["epoch"]) < epoch]
        values = {name: _format_number(value) for name, value in entropies.items()}
        self._attention_rows.append({"epoch": str(epoch), **values})
        _write_rows(self._run / ATTENTION_FILE, ["epoch", *entropies], self._attention_rows)

    def write_image(self, image: NDArray[np.uint8], epoch: int) -> None:
        """Writes a batch visualization (H, W, 3) RGB to pictures/epoch-NNNN.jpg and to TensorBoard."""
        jpeg = encode_jpeg(rgb_to_bgr(image))
        write_bytes_atomically(self._run / "pictures" / f"epoch-{epoch:04d}.jpg", jpeg)
        self._writer.add_image("batch", image, epoch, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Closes the TensorBoard file and plots curves.png."""
        self._writer.close()
        plot_curves(read_csv(self._path), self._run / "curves.png", self._task.unit, self._task.curves)


def _read_rows(path: Path, epochs_done: int) -> list[dict[str, str]]:
    return [row for row in read_csv(path) if int(row["epoch"]) <= epochs_done]


def _write_rows(path: Path, columns: Iterable[str], rows: Sequence[Mapping[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes_atomically(path, text.getvalue().encode())


def _format_number(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.7g}"


class ThroughputMeter:
    """Measures samples per second and the share of time spent waiting for data in an epoch.

    Attributes:
        samples: processed samples of all processes, counted by the caller.
        data_seconds: time spent waiting for batches.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.data_seconds = 0.0
        self._start = time.perf_counter()

    def iterate(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields the batches and measures the time until each arrives."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self.data_seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    @property
    def seconds(self) -> float:
        """Seconds since the meter was created."""
        return time.perf_counter() - self._start

    @property
    def samples_per_second(self) -> float:
        """Processed samples per second, over all processes."""
        return self.samples / self.seconds

    @property
    def data_share(self) -> float:
        """Share of the time spent waiting for data, from 0 to 1."""
        return self.data_seconds / self.seconds


def format_duration(seconds: float) -> str:
    """Formats seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


_METRIC_COLORS = ("tab:blue", "tab:cyan", "tab:purple")
# largest number of epochs at which each epoch gets a marker
_MAX_MARKERS = 60


def plot_curves(
    rows: Sequence[Mapping[str, str]],
    path: Path,
    unit: str = "persons",
    metrics: Sequence[str] = ("AP", "AP50", "AP75"),
) -> None:
    """Plots loss, metrics, learning rate and speed over epochs to a PNG file.

    Speed is samples per second and, if the rows have a column `data_share` (from 0 to 1), the share of the time spent
    waiting for data. Empty and non-finite values are skipped and their neighbors connected.

    Args:
        rows: rows of metrics.csv, as returned by `read_csv`; without rows the panels are empty.
        path: path of the PNG file, which is written atomically.
        unit: what a sample is, in the plural.
        metrics: at most three names of metrics; the best epoch of the first one is marked.

    Raises:
        ValueError: if a value is not a number.
        OSError: if the file cannot be written.
    """
    figure = Figure(figsize=(11, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy, lr, speed = figure.subplots(2, 2, sharex=True).flat
    epochs = _read_column(rows, "epoch")
    _plot_logarithmic(loss, epochs, _read_column(rows, "loss"), "loss", "tab:red")
    _plot_logarithmic(lr, epochs, _read_column(rows, "lr"), "learning rate", "tab:green")
    _plot_metrics(accuracy, epochs, rows, metrics)
    _plot_speed(speed, epochs, rows, unit)
    for axes in (loss, accuracy, lr, speed):
        axes.grid(alpha=0.3)
        if not axes.lines:
            axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color="gray")
            axes.set_yticks([])
    finite = epochs[np.isfinite(epochs)]
    first, last = (finite.min(), finite.max()) if len(finite) else (1, 1)
    margin = max(0.02 * (last - first), 0.5)
    for axes in (lr, speed):
        axes.set_xlabel("epoch")
        axes.set_xlim(first - margin, last + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes_atomically(path, buffer.getvalue())


def _read_column(rows: Sequence[Mapping[str, str]], name: str) -> NDArray[np.float64]:
    """Returns the values of a column, NaN where a value is empty or missing."""
    values = np.full(len(rows), math.nan)
    for index, row in enumerate(rows):
        text = row.get(name)
        if not text:
            continue
        try:
            values[index] = float(text)
        except ValueError:
            raise ValueError(
                f"metrics.csv, column {name}: expected a number, got {text!r} in row {index + 1}; fix or delete the row"
            ) from None
    return values


def _plot(axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], label: str, color: str) -> None:
    """Plots the finite values, if there are any."""
    finite = np.isfinite(epochs) & np.isfinite(values)
    if finite.any():
        style = ".-" if finite.sum() <= _MAX_MARKERS else "-"
        axes.plot(epochs[finite], values[finite], style, color=color, label=label)


def _plot_logarithmic(
    axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], label: str, color: str
) -> None:
    axes.set_title(label)
    _plot(axes, epochs, np.where(values > 0, values, math.nan), label, color)
    if axes.lines:
        axes.set_yscale("log")


def _set_ylim_from_zero(axes: Axes, margin: float) -> None:
    """Sets the y limits from 0 to the highest value plus a margin, a fraction of that value."""
    highest = max(float(np.max(line.get_ydata())) for line in axes.lines)
    axes.set_ylim(0, highest * (1 + margin) if highest > 0 else 1)


def _plot_metrics(
    axes: Axes, epochs: NDArray[np.float64], rows: Sequence[Mapping[str, str]], metrics: Sequence[str]
) -> None:
    """Plots metrics, with a star at the first epoch of the best value of the first one, that of best.pt."""
    axes.set_title(f"{metrics[0]} on the validation set")
    columns = {name: _read_column(rows, name) for name in metrics}
    for (name, values), color in zip(columns.items(), _METRIC_COLORS, strict=False):
        _plot(axes, epochs, values, name, color)
    if axes.lines:
        # the margin leaves space for the legend
        _set_ylim_from_zero(axes, margin=0.2)
        axes.legend(loc="upper left", ncols=len(axes.lines), fontsize=8)
    values = columns[metrics[0]]
    finite = np.isfinite(epochs) & np.isfinite(values)
    if finite.any():
        best = int(np.where(finite, values, -math.inf).argmax())
        axes.plot(epochs[best], values[best], "*", color="tab:orange", markersize=14, zorder=3)
        axes.set_title(f"{metrics[0]} on the validation set, best {values[best]:.3f} after epoch {epochs[best]:g}")


def _plot_speed(axes: Axes, epochs: NDArray[np.float64], rows: Sequence[Mapping[str, str]], unit: str) -> None:
    """Plots samples per second on the left axis and the share of waiting for data on the right axis."""
    axes.set_title("speed")
    _plot(axes, epochs, _read_column(rows, f"{unit}_per_second"), f"{unit}/s", "tab:brown")
    if axes.lines:
        _set_ylim_from_zero(axes, margin=0.05)
        axes.set_ylabel(f"{unit}/s", color="tab:brown")
    percent = 100 * _read_column(rows, "data_share")
    if np.isfinite(percent).any():
        right_axes = axes.twinx()
        _plot(right_axes, epochs, percent, "waiting for data", "tab:gray")
        right_axes.set_ylim(0, 100)
        right_axes.set_ylabel("% of the time waiting for data", color="tab:gray")

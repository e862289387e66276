"""The curves of a run as one picture."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from posedy.files import write_bytes_atomically

_AP_COLOURS = {"AP": "tab:blue", "AP50": "tab:cyan", "AP75": "tab:purple"}
# epochs up to which each is a dot of its own
_DOTS = 60


def draw_curves(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draws loss, AP, learning rate and speed over the epochs.

    Speed is persons per second and, if the rows have a column `data_share` (from 0 to 1), the share of the time that
    was spent waiting for data. What is empty or not finite is left out, and its neighbours are joined.

    Args:
        rows: of metrics.csv, as `read_metrics` gives them; none give empty panels.
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
            axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color="grey")
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


def _draw(axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], label: str, colour: str) -> None:
    """Draws a curve through what is finite; nothing if nothing is."""
    shown = np.isfinite(epochs) & np.isfinite(values)
    if shown.any():
        style = ".-" if shown.sum() <= _DOTS else "-"
        axes.plot(epochs[shown], values[shown], style, color=colour, label=label)


def _draw_logarithmic(
    axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], label: str, colour: str
) -> None:
    axes.set_title(label)
    _draw(axes, epochs, np.where(values > 0, values, math.nan), label, colour)
    if axes.lines:
        axes.set_yscale("log")


def _from_zero(axes: Axes, room: float) -> None:
    """Lets the axis go from 0 to above its curves by a part of their height."""
    highest = max(float(np.max(line.get_ydata())) for line in axes.lines)
    axes.set_ylim(0, highest * (1 + room) if highest > 0 else 1)


def _draw_ap(axes: Axes, epochs: NDArray[np.float64], rows: Sequence[Mapping[str, str]]) -> None:
    """AP, AP50 and AP75, with a star at the best AP: the first of equal ones, which is the one that best.pt keeps."""
    axes.set_title("AP on the val set")
    columns = {name: _column(rows, name) for name in _AP_COLOURS}
    for name, values in columns.items():
        _draw(axes, epochs, values, name, _AP_COLOURS[name])
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
        _draw(waiting, epochs, share, "waiting for data", "tab:grey")
        waiting.set_ylim(0, 100)
        waiting.set_ylabel("% of the time waiting for data", color="tab:grey")

"""Plots a metric of several training runs over epochs, as the paper's Figure 5, with the entropy of their attention.

python -m tools.lab.curves static=runs/static dynamic=runs/dynamic --metric top1 --out curves.png

A run that continues another one follows it after a comma: dynamic=runs/start,runs/dynamic.
"""

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from posedy.files import read_csv, write_bytes_atomically
from posedy.training.entropy import ENTROPY
from posedy.training.loggers import METRICS_FILE
from tools.lab.entry import run_and_exit


def plot_runs(runs: Mapping[str, Sequence[Path]], metric: str) -> bytes:
    """Plots the loss, a metric and the entropy of attention of runs by epoch; returns a PNG file.

    Args:
        runs: name -> run folder, followed by those of the runs that continue it.
        metric: a column of metrics.csv.

    Raises:
        ValueError: if a run has no value of the metric.
    """
    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    for axes, column in zip(panels, ("loss", metric, ENTROPY), strict=True):
        axes.set_title({ENTROPY: "entropy of attention (1: uniform)"}.get(column, column))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        for color, (name, folders) in enumerate(runs.items()):
            epochs, values = read_column(folders, column)
            if column == metric and not values:
                raise ValueError(f"{folders[-1] / METRICS_FILE} has no {metric}")
            axes.plot(epochs, values, ".-", color=f"C{color}", label=name)
    panels[0].set_yscale("log")
    for set_formatter in (panels[0].yaxis.set_major_formatter, panels[0].yaxis.set_minor_formatter):
        set_formatter(ScalarFormatter())  # not powers of ten
    panels[1].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def read_column(folders: Sequence[Path], column: str) -> tuple[list[float], list[float]]:
    """Returns the epochs that have a value, counted over all folders, and the values.

    Raises:
        ValueError: if a folder has no metrics.csv with an epoch.
    """
    epochs, values = [], []
    done = 0.0
    for folder in folders:
        rows = read_csv(folder / METRICS_FILE)
        if not rows:
            raise ValueError(f"{folder / METRICS_FILE} has no epoch: expected the folder of a training run")
        measured = [row for row in rows if row.get(column)]
        epochs += [done + float(row["epoch"]) for row in measured]
        values += [float(row[column]) for row in measured]
        done += float(rows[-1]["epoch"])
    return epochs, values


def main(argv: list[str] | None = None) -> None:
    """Plots training runs."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.curves", description=main.__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER[,FOLDER]", help="a name and a run folder, or several")
    parser.add_argument("--metric", default="AP", help="a column of metrics.csv (default: AP)")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file")
    arguments = parser.parse_args(argv)
    runs = {}
    for item in arguments.runs:
        name, equals, folder = item.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=FOLDER, got {item!r}")
        if name in runs:
            raise ValueError(
                f"expected distinct names, got {name!r} twice; write NAME=FOLDER,FOLDER for a continued run"
            )
        runs[name] = [Path(part) for part in folder.split(",")]
    write_bytes_atomically(arguments.out, plot_runs(runs, arguments.metric))


if __name__ == "__main__":
    run_and_exit(main, "curves")

"""Plots a metric of several training runs over epochs, as the paper's Figure 5, with the entropy of their attention.

python -m tools.lab.curves static=runs/static dynamic=runs/dynamic --metric top1 --out curves.png
"""

import argparse
import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from posedy.files import read_csv, write_bytes_atomically
from posedy.training.entropy import ENTROPY
from posedy.training.loggers import METRICS_FILE
from tools.lab.entry import run_and_exit


def plot_runs(runs: Mapping[str, Path], metric: str) -> bytes:
    """Plots the loss, a metric and the entropy of attention of runs by epoch; returns a PNG file.

    Args:
        runs: name -> run folder.
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
        axes.grid(alpha=0.3)
        for color, (name, run) in enumerate(runs.items()):
            rows = [row for row in read_csv(run / METRICS_FILE) if row.get(column)]
            if column == metric and not rows:
                raise ValueError(f"{run / METRICS_FILE} has no {metric}")
            epochs, values = ([float(row[key]) for row in rows] for key in ("epoch", column))
            axes.plot(epochs, values, ".-", color=f"C{color}", label=name)
    panels[0].set_yscale("log")
    panels[1].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def main(argv: list[str] | None = None) -> None:
    """Plots training runs."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.curves", description=main.__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER", help="a name and a run folder")
    parser.add_argument("--metric", default="AP", help="a column of metrics.csv (default: AP)")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file")
    arguments = parser.parse_args(argv)
    runs = {}
    for item in arguments.runs:
        name, equals, folder = item.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=FOLDER, got {item!r}")
        runs[name] = Path(folder)
    write_bytes_atomically(arguments.out, plot_runs(runs, arguments.metric))


if __name__ == "__main__":
    run_and_exit(main, "curves")

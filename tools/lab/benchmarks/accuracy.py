"""Plot of accuracy against latency of networks, from the results of two commands.

posedy eval runs/val/gt/results.json --annotations person_keypoints_val2017.json --ci --json balanced.json
python -m tools.lab.benchmarks networks --json networks.json
python -m tools.lab.benchmarks accuracy networks.json mobilenetv2_100-fpn=balanced.json --out accuracy.png

`python -m tools.lab.benchmarks peers --plot FILE.png` uses the accuracies of the model cards instead.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from posedy.models.registry import list_presets, weights_path

_CARD_LINES = {
    **{preset: (preset, "726 images, ground truth") for preset in list_presets()},
    "MoveNet Lightning": ("balanced", "726 images, ground truth, MoveNet Lightning with its own decoding"),
    "MoveNet Thunder": ("accurate", "726 images, ground truth, MoveNet Thunder with its own decoding"),
}
"""Networks with the preset of the model card and the first cell of the line that have their accuracy."""
_TICKS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300)
_LABEL_GAP = 0.042  # between the labels of vertical lines, as a fraction of the axis


def card_accuracies() -> dict[str, dict[str, Any]]:
    """Returns the AP of presets and of MoveNet by one protocol, from the model cards, as `posedy eval --ci` does.

    Raises:
        ValueError: if a model card lacks an AP with its interval.
    """
    accuracies = {}
    for name, (preset, line) in _CARD_LINES.items():
        card = weights_path(preset).with_suffix(".md")
        found = re.search(rf"^\| {line} \| ([\d.]+) \(([\d.]+) to ([\d.]+)\)", card.read_text("utf-8"), re.MULTILINE)
        if found is None:
            raise ValueError(f"{card}: expected a line {line!r} with AP and interval")
        ap, low, high = (float(number) for number in found.groups())
        accuracies[name] = {"AP": ap, "intervals": {"AP": {"low": low, "high": high}}}
    return accuracies


def plot_accuracy(
    times: Mapping[str, Any],
    accuracies: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str] | None = None,
    runtime: str = "openvino",
    threads: int = 2,
    marks: Sequence[str] = (),
) -> bytes:
    """Plots AP with its interval against the time of one crop; returns a PNG file.

    Args:
        times: the JSON result of `benchmark_networks` or `benchmark_peers`.
        accuracies: for each network the JSON result of `posedy eval --ci`.
        labels: the labels of networks; by default their names.
        runtime: the runtime of the times.
        threads: the number of threads of the times.
        marks: networks without an AP by the same protocol, shown as vertical lines; the time axis is logarithmic then.

    Raises:
        ValueError: if a network has no time at batch size 1, or no interval.
    """
    milliseconds = {
        row["model"]: row["milliseconds"]["median"]
        for row in times["rows"]
        if (row["runtime"], row["batch"], row["threads"]) == (runtime, 1, threads)
    }
    for name in (*accuracies, *marks):
        if name not in milliseconds:
            raise ValueError(
                f"no time of {name} in {runtime} with {threads} threads and batch size 1; there are times of "
                f"{', '.join(milliseconds) or 'none'}"
            )
    figure = Figure(figsize=(7.5, 4.6) if marks else (6, 3.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, metrics in accuracies.items():
        interval = metrics.get("intervals", {}).get("AP")
        if interval is None:
            raise ValueError(f"the metrics of {name} have no interval: use posedy eval --ci --json FILE")
        low, high = metrics["AP"] - interval["low"], interval["high"] - metrics["AP"]
        axes.errorbar(milliseconds[name], metrics["AP"], [[low], [high]], fmt="o", capsize=3)
        axes.annotate(
            (labels or {}).get(name, name),
            (milliseconds[name], metrics["AP"]),
            xytext=(7, 5),
            textcoords="offset points",
            fontsize=9,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},  # over vertical lines
        )
    if marks:
        _mark_times(axes, {(labels or {}).get(name, name): milliseconds[name] for name in marks}, milliseconds.values())
    else:
        axes.set_xlim(0, 1.35 * max(milliseconds[name] for name in accuracies))
    caption = "\ndashed: time only, no AP by this protocol" if marks else ""
    axes.set_xlabel(f"ms per person ({runtime}, {threads} threads){caption}")
    axes.set_ylabel("AP, 95 % interval")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _mark_times(axes: Axes, marks: Mapping[str, float], times: Any) -> None:
    """Draws vertical lines on a logarithmic axis that shows all times, with labels above that do not overlap."""
    left, right = min(times) / 1.3, max(times) * 1.3
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_xticks([tick for tick in _TICKS if left <= tick <= right])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    ordered = sorted(marks, key=marks.__getitem__)
    fractions = [float(np.log(marks[name] / left) / np.log(right / left)) for name in ordered]
    for name, position, fraction in zip(ordered, _spread(fractions, _LABEL_GAP), fractions, strict=True):
        axes.axvline(marks[name], color="gray", linestyle="--", linewidth=1)
        axes.annotate(
            f"{name}, {marks[name]:.1f} ms",
            (fraction, 1),
            xytext=(position, 1.04),
            xycoords="axes fraction",
            textcoords="axes fraction",
            rotation=50,
            rotation_mode="anchor",
            fontsize=8,
            color="dimgray",
            arrowprops={"arrowstyle": "-", "color": "gray", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )


def _spread(positions: Sequence[float], gap: float) -> list[float]:
    """Moves ascending positions apart to distances of at least `gap`, those of a cluster around its mean."""
    clusters: list[list[float]] = []
    for position in positions:
        clusters.append([position])
        while len(clusters) > 1 and _starts(clusters[-1], gap)[0] < _starts(clusters[-2], gap)[-1] + gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    return [start for cluster in clusters for start in _starts(cluster, gap)]


def _starts(cluster: Sequence[float], gap: float) -> list[float]:
    middle = sum(cluster) / len(cluster)
    return [middle + (index - (len(cluster) - 1) / 2) * gap for index in range(len(cluster))]

"""The plots of a report, as SVG with text that stays text."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from posedy.evaluation.curves import Calibration, PrecisionRecall
from posedy.evaluation.errors import ERROR_CLASSES, ErrorAnalysis

ERROR_COLOURS = {"good": "#4c956c", "jitter": "#f2c14e", "inversion": "#8e6c8a", "swap": "#3d7ea6", "miss": "#c8553d"}


def plot_precision_recall(curves: PrecisionRecall) -> str:
    """A curve for each threshold of OKS."""
    figure, axes = _figure(5.2, 3.8)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(curves.thresholds)))
    for threshold, precision, shade in zip(curves.thresholds, curves.precision, shades, strict=True):
        axes.plot(curves.recalls, precision, color=shade, label=f"{threshold:.2f}  AP {precision.mean():.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(title="OKS", fontsize=7, title_fontsize=8, loc="upper right")
    return _svg(figure)


def plot_errors(errors: ErrorAnalysis) -> str:
    """The share of each class of errors, keypoint by keypoint."""
    names = errors.persons.skeleton.keypoints
    counts = errors.counts
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(5.2, 0.9 + 0.22 * len(names))
    left = np.zeros(len(names))
    for index, name in enumerate(ERROR_CLASSES):
        axes.barh(range(len(names)), shares[:, index], left=left, color=ERROR_COLOURS[name], label=name, height=0.8)
        left += shares[:, index]
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.legend(ncols=5, fontsize=7, loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False, columnspacing=1)
    axes.grid(visible=False)
    return _svg(figure)


def plot_calibration(named: Mapping[str, Calibration]) -> str:
    """Mean outcome over mean score; what is calibrated lies on the diagonal."""
    figure, axes = _figure(5.2, 3.8)
    axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    for (name, calibration), colour in zip(named.items(), ("#3d7ea6", "#c8553d"), strict=False):
        label = f"{name}, mean distance {calibration.error:.2f}"
        axes.plot(calibration.score, calibration.outcome, "o-", color=colour, markersize=4, label=label)
    axes.set(xlabel="score", ylabel="OKS, similarity", ylim=(0, 1))
    axes.legend(fontsize=7)
    return _svg(figure)


def plot_training(rows: Sequence[Mapping[str, str]]) -> str:
    """Loss and AP over the epochs."""
    figure, axes = _figure(5.2, 3.8)
    epochs = [float(row["epoch"]) for row in rows]
    axes.plot(epochs, [_number(row.get("loss")) for row in rows], color="#c8553d")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss", color="#c8553d")
    measured = [(epoch, _number(row.get("AP"))) for epoch, row in zip(epochs, rows, strict=True) if row.get("AP")]
    if measured:
        beside = axes.twinx()
        beside.plot(*zip(*measured, strict=True), "o-", color="#3d7ea6", markersize=4)
        beside.set_ylabel("AP", color="#3d7ea6")
        beside.set_ylim(bottom=0)
    return _svg(figure)


def _number(text: str | None) -> float:
    return float(text) if text else np.nan


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an element of HTML, as wide as there is room."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "posedy"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]

"""The plots of a report, as SVG with text that stays text.

Legends are HTML: they lie over no curve, and keep the size of the page's text where a plot shrinks to a narrow page.
"""

import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from posedy.evaluation.analysis import Calibration, PrecisionRecall
from posedy.evaluation.errors import ERROR_CLASSES, ErrorAnalysis

ERROR_COLORS = {"good": "#4c956c", "jitter": "#f2c14e", "inversion": "#8e6c8a", "swap": "#3d7ea6", "miss": "#c8553d"}


def swatch(color: str) -> str:
    """A small square of a color, as HTML."""
    return f'<span class="swatch" style="background:{color}"></span>'


def plot_precision_recall(curves: PrecisionRecall) -> str:
    """A curve for each threshold of OKS."""
    figure, axes = _figure(4.4, 3.2)
    shades = [to_hex(shade) for shade in mpl.colormaps["viridis"](np.linspace(0, 0.9, len(curves.thresholds)))]
    legend = []
    for threshold, precision, shade in zip(curves.thresholds, curves.precision, shades, strict=True):
        axes.plot(curves.recalls, precision, color=shade)
        legend.append((shade, f"{threshold:.2f}: AP {precision.mean():.3f}"))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    return _svg(figure, "precision") + _legend(legend)


def plot_errors(errors: ErrorAnalysis) -> str:
    """The share of each class of errors, keypoint by keypoint."""
    names = errors.persons.skeleton.keypoints
    counts = errors.counts
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(4.4, 0.5 + 0.2 * len(names))
    left = np.zeros(len(names))
    for index, name in enumerate(ERROR_CLASSES):
        axes.barh(range(len(names)), shares[:, index], left=left, color=ERROR_COLORS[name], height=0.8)
        left += shares[:, index]
    # a name may hold dollars, which would make it a formula
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.grid(visible=False)
    return _svg(figure, "errors") + _legend((ERROR_COLORS[name], name) for name in ERROR_CLASSES)


def plot_calibration(named: Mapping[str, Calibration]) -> str:
    """Mean outcome over mean score; what is calibrated lies on the diagonal."""
    figure, axes = _figure(4.4, 3.2)
    axes.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
    legend = []
    for (name, calibration), color in zip(named.items(), ("#3d7ea6", "#c8553d"), strict=False):
        axes.plot(calibration.score, calibration.outcome, "o-", color=color, markersize=4)
        legend.append((color, f"{name}, mean distance {calibration.error:.2f}"))
    axes.set(xlabel="score", ylabel="OKS, similarity", ylim=(0, 1))
    return _svg(figure, "calibration") + _legend(legend)


def plot_training(rows: Sequence[Mapping[str, str]]) -> str:
    """Loss and AP over the epochs."""
    figure, axes = _figure(4.4, 3.2)
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
    return _svg(figure, "training")


def _number(text: str | None) -> float:
    return float(text) if text else np.nan


def _legend(items: Iterable[tuple[str, str]]) -> str:
    """Words beside their colors."""
    entries = "".join(f"<span>{swatch(color)}{html.escape(words)}</span>" for color, words in items)
    return f'<div class="legend">{entries}</div>'


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element of HTML, as wide as there is room; its ids begin with the name: a page's are unique."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "posedy"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg[svg.index("<svg") :])

"""Plots of a report, as SVG with text elements.

Legends are HTML below the plot, so they cover no curve and keep the page's font size when a plot shrinks.
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

from posedy.evaluation.analysis import Calibration, PrecisionRecallCurves
from posedy.evaluation.errors import ERROR_CLASSES, ErrorAnalysis

ERROR_COLORS = {"good": "#4c956c", "jitter": "#f2c14e", "inversion": "#8e6c8a", "swap": "#3d7ea6", "miss": "#c8553d"}


def make_swatch(color: str) -> str:
    """Returns a small colored square as HTML."""
    return f'<span class="swatch" style="background:{color}"></span>'


def plot_precision_recall(curves: PrecisionRecallCurves) -> str:
    """Plots the precision-recall curve of each OKS threshold; returns SVG and HTML."""
    figure, axes = _create_figure(4.4, 3.2)
    colors = [to_hex(color) for color in mpl.colormaps["viridis"](np.linspace(0, 0.9, len(curves.thresholds)))]
    legend = []
    for threshold, precision, color in zip(curves.thresholds, curves.precision, colors, strict=True):
        axes.plot(curves.recalls, precision, color=color)
        legend.append((color, f"{threshold:.2f}: AP {precision.mean():.3f}"))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    return _to_svg(figure, "precision") + _render_legend(legend)


def plot_errors(errors: ErrorAnalysis) -> str:
    """Plots the fractions of the error classes of each keypoint as stacked bars; returns SVG and HTML."""
    names = errors.persons.skeleton.keypoints
    counts = errors.counts
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _create_figure(4.4, 0.5 + 0.2 * len(names))
    left = np.zeros(len(names))
    for index, name in enumerate(ERROR_CLASSES):
        axes.barh(range(len(names)), fractions[:, index], left=left, color=ERROR_COLORS[name], height=0.8)
        left += fractions[:, index]
    # dollar signs in a keypoint name are not math mode
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.grid(visible=False)
    return _to_svg(figure, "errors") + _render_legend((ERROR_COLORS[name], name) for name in ERROR_CLASSES)


def plot_calibration(calibrations: Mapping[str, Calibration]) -> str:
    """Plots mean accuracy over mean score, with the diagonal of perfect calibration; returns SVG and HTML."""
    figure, axes = _create_figure(4.4, 3.2)
    axes.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
    legend = []
    for (name, calibration), color in zip(calibrations.items(), ("#3d7ea6", "#c8553d"), strict=False):
        axes.plot(calibration.score, calibration.accuracy, "o-", color=color, markersize=4)
        legend.append((color, f"{name}, ECE {calibration.error:.2f}"))
    axes.set(xlabel="score", ylabel="OKS, similarity", ylim=(0, 1))
    return _to_svg(figure, "calibration") + _render_legend(legend)


def plot_training(rows: Sequence[Mapping[str, str]]) -> str:
    """Plots training loss and validation AP over epochs; returns an SVG element."""
    figure, axes = _create_figure(4.4, 3.2)
    epochs = [float(row["epoch"]) for row in rows]
    axes.plot(epochs, [_parse_number(row.get("loss")) for row in rows], color="#c8553d")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss", color="#c8553d")
    evaluated = [
        (epoch, _parse_number(row.get("AP"))) for epoch, row in zip(epochs, rows, strict=True) if row.get("AP")
    ]
    if evaluated:
        ap_axes = axes.twinx()
        ap_axes.plot(*zip(*evaluated, strict=True), "o-", color="#3d7ea6", markersize=4)
        ap_axes.set_ylabel("AP", color="#3d7ea6")
        ap_axes.set_ylim(bottom=0)
    return _to_svg(figure, "training")


def _parse_number(text: str | None) -> float:
    return float(text) if text else np.nan


def _render_legend(items: Iterable[tuple[str, str]]) -> str:
    """Renders pairs of color and label as HTML."""
    entries = "".join(f"<span>{make_swatch(color)}{html.escape(label)}</span>" for color, label in items)
    return f'<div class="legend">{entries}</div>'


def _create_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _to_svg(figure: Figure, name: str) -> str:
    """Converts a figure to an SVG element; the name prefixes its ids, which must be unique in a page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "posedy"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg[svg.index("<svg") :])

"""Plot of a network's attention, layer by layer."""

import io
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure

from tools.lab.attention.attention_probe import AttentionStatistics


def plot_attention(layers: Sequence[AttentionStatistics], title: str) -> bytes:
    """Plots entropy, spread over images and mean attention of each kernel by layer; returns a PNG file.

    Args:
        layers: statistics of one network in network order, with the same number of kernels.
        title: suffix of the title.
    """
    names = [layer.layer.removeprefix("backbone.").removesuffix(".0") for layer in layers]
    positions = np.arange(len(layers))
    figure = Figure(figsize=(max(8, 2.5 + 0.21 * len(layers)), 9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Attention over kernels: {title}", fontsize=12)
    entropy, spread, kernels = figure.subplots(3, sharex=True, height_ratios=[3, 2, 1.6])

    low, high = ([getattr(layer, name) for layer in layers] for name in ("entropy_p10", "entropy_p90"))
    entropy.fill_between(positions, low, high, color="tab:blue", alpha=0.3, label="10th to 90th percentile of images")
    entropy.plot(positions, [layer.entropy for layer in layers], "o-", color="tab:blue", markersize=3, label="mean")
    entropy.set_ylabel("normalized entropy\n(1 uniform, 0 one kernel)")
    # keep the range large enough that uniform attention looks uniform
    bottom = min(*low, 0.98)
    entropy.set_ylim(bottom - 0.05 * (1 - bottom), 1 + 0.05 * (1 - bottom))
    entropy.legend(loc="lower left", fontsize=8)
    spread.plot(positions, [layer.spread for layer in layers], "o-", color="tab:red", markersize=3)
    spread.set_ylabel("spread over images\n(std. of weights)")
    spread.set_ylim(bottom=0)
    for axes in (entropy, spread):
        axes.grid(axis="y", alpha=0.3)
    _shade_groups(layers, (entropy, spread))

    attention = np.array([layer.mean_attention for layer in layers]).T
    center = attention.mean()
    reach = max(np.abs(attention - center).max(), 0.01)
    image = kernels.imshow(attention, aspect="auto", cmap="PuOr_r", norm=CenteredNorm(center, reach))
    kernels.set_ylabel("kernel")
    kernels.set_yticks(range(len(attention)), [str(k + 1) for k in range(len(attention))])
    kernels.set_xticks(positions, names, rotation=90, fontsize=7)
    bar = figure.colorbar(image, ax=kernels, label="mean weight", pad=0.01)
    bar.ax.set_ylim(max(center - reach, 0), center + reach)

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _shade_groups(layers: Sequence[AttentionStatistics], panels: Sequence[Axes]) -> None:
    """Shades every other group of layers gray, and writes its name at the top."""
    panels[0].annotate("stride", (-0.005, 1.01), xycoords="axes fraction", ha="right", fontsize=9)
    begin = 0
    for index, (group, members) in enumerate(groupby(layer.group for layer in layers)):
        end = begin + len(list(members))
        for axes in panels:
            if index % 2:
                axes.axvspan(begin - 0.5, end - 0.5, color="black", alpha=0.06, linewidth=0)
        panels[0].annotate(
            group,
            ((begin + end - 1) / 2, 1.01),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=9,
        )
        begin = end

"""Plot of accuracy against latency of networks, from the results of two commands.

posedy eval runs/val/gt/results.json --annotations person_keypoints_val2017.json --ci --json balanced.json
python -m tools.lab.benchmarks networks --json networks.json
python -m tools.lab.benchmarks accuracy networks.json mobilenetv2_100-fpn=balanced.json --out docs/accuracy.png
"""

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_accuracy(
    times: Mapping[str, Any],
    accuracies: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str] | None = None,
    runtime: str = "openvino",
    threads: int = 2,
) -> bytes:
    """Plots AP with its interval against the time of one crop; returns a PNG file.

    Args:
        times: the JSON result of `benchmark_networks`.
        accuracies: for each network the JSON result of `posedy eval --ci`.
        labels: the labels of networks; by default their names.
        runtime: the runtime of the times.
        threads: the number of threads of the times.

    Raises:
        ValueError: if a network has no time at batch size 1, or no interval.
    """
    milliseconds = {
        row["model"]: row["milliseconds"]["median"]
        for row in times["rows"]
        if (row["runtime"], row["batch"], row["threads"]) == (runtime, 1, threads)
    }
    figure = Figure(figsize=(6, 3.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, metrics in accuracies.items():
        if name not in milliseconds:
            raise ValueError(
                f"no time of {name} in {runtime} with {threads} threads and batch size 1; there are times of "
                f"{', '.join(milliseconds) or 'none'}"
            )
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
        )
    axes.set_xlim(0, 1.35 * max(milliseconds[name] for name in accuracies))
    axes.set_xlabel(f"ms per person ({runtime}, {threads} threads)")
    axes.set_ylabel("AP, 95 % interval")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

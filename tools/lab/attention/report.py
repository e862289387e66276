"""Text report of an inspection: Tables 3 and 4 of the paper in AP or top-1, and their interpretation."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tools.lab.attention.attention_probe import Aggregation, AttentionStatistics

Metrics = dict[str, float]

_NEARLY_UNIFORM = 0.98
# Table 3 by descending accuracy on ImageNet: 69.4, 36.0, 27.3, 14.8, 0.1
_PAPER_RANKING: tuple[Aggregation, ...] = (
    "attention",
    "average",
    "shuffled across images",
    "shuffled over kernels",
    "max",
)


def metric_names(metrics: Metrics) -> tuple[str, str]:
    """Returns the two metrics of the tables: those of a pose network, or those of a classifier."""
    return ("AP", "AP50") if "AP" in metrics else ("top1", "top5")


def format_aggregations(aggregations: Mapping[Aggregation, Metrics], protocol: str) -> str:
    """Formats Table 3: the metrics of each kernel aggregation, with the protocol."""
    width = max(map(len, aggregations)) + 2
    header = ["Kernel aggregation in all dynamic layers (the paper's Table 3)", protocol]
    columns = " " * width + _row(metric_names(aggregations["attention"]))
    return "\n".join(
        [*header, columns, *(f"{name:<{width}}{_format_metrics(metrics)}" for name, metrics in aggregations.items())]
    )


def format_groups(groups: Sequence[str], rows: Sequence[tuple[tuple[bool, ...], Metrics]], protocol: str) -> str:
    """Formats Table 4: the metrics with attention on in some groups and averaged in the others, with the protocol."""
    header = [
        "Attention on or off (-: average) by the stride of the layers' input (the paper's Table 4)",
        protocol,
    ]
    lines = [_row("on" if is_on else "-" for is_on in on) + _format_metrics(metrics) for on, metrics in rows]
    return "\n".join([*header, _row([*groups, *metric_names(rows[0][1])]), *lines])


def verdict(aggregations: Mapping[Aggregation, Metrics], layers: Sequence[AttentionStatistics]) -> str:
    """Compares the ranking of aggregations with the paper's Table 3, and interprets it.

    According to section 5.2, the kernels of a dynamic network differ (other aggregations have a lower metric) and its
    attention depends on the image (the attention of another image has a lower one).
    """
    metric, _ = metric_names(aggregations["attention"])
    # rounded as in the table, so that the text agrees with it
    values = {name: round(metrics[metric], 3) for name, metrics in aggregations.items()}
    ranking = sorted(_PAPER_RANKING, key=lambda name: -values[name])
    text = f"{ranking[0]} {values[ranking[0]]:.3f}"
    for better, name in pairwise(ranking):
        text += f" {'=' if values[better] == values[name] else '>'} {name} {values[name]:.3f}"
    sentences = [f"{metric} of this network: {text}.", f"Ranking in the paper: {' > '.join(_PAPER_RANKING)}."]
    own, other, average = values["attention"], values["shuffled across images"], values["average"]
    not_worse = [name for name in _PAPER_RANKING[1:] if values[name] >= own]
    if not_worse:
        sentences.append(
            f"The paper's ranking is not reproduced: {' and '.join(not_worse)} reached at least the {metric} of "
            "attention."
        )
    else:
        sentences.append(
            f"As in the paper, attention has the highest {metric}: the kernels differ (averaging them loses "
            f"{own - average:.3f}) and attention depends on the image (using another image's loses {own - other:.3f})."
        )
    if other > average:
        sentences.append(
            "Unlike in the paper, the attention of another image is better than the average: much of the attention is "
            "the same for all images."
        )
    entropy = mean_entropy(layers)
    if entropy > _NEARLY_UNIFORM:
        sentences.append(
            f"Attention is nearly uniform (mean normalized entropy {entropy:.4f}; 1 is uniform), which explains small "
            "differences."
        )
    return "\n".join(sentences)


def mean_entropy(layers: Sequence[AttentionStatistics]) -> float:
    """Returns the normalized entropy of attention, averaged over images and layers."""
    return sum(layer.entropy for layer in layers) / len(layers)


def _row(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>7}" for cell in cells)


def _format_metrics(metrics: Metrics) -> str:
    return _row(f"{metrics[name]:.3f}" for name in metric_names(metrics))

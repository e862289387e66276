"""Text report of an inspection: Tables 3 and 4 of the paper in AP, and their interpretation."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from posedy.evaluation.evaluator import EvalProtocol
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


def format_aggregations(aggregations: Mapping[Aggregation, Metrics], protocol: EvalProtocol) -> str:
    """Formats Table 3: AP and AP50 of each kernel aggregation, with the protocol."""
    width = max(map(len, aggregations)) + 2
    header = ["Kernel aggregation in all dynamic layers (the paper's Table 3)", str(protocol)]
    columns = " " * width + _row(("AP", "AP50"))
    return "\n".join(
        [*header, columns, *(f"{name:<{width}}{_format_ap(metrics)}" for name, metrics in aggregations.items())]
    )


def format_groups(
    groups: Sequence[str], rows: Iterable[tuple[tuple[bool, ...], Metrics]], protocol: EvalProtocol
) -> str:
    """Formats Table 4: AP and AP50 with attention on in some groups and averaged in the others, with the protocol."""
    header = [
        "Attention on or off (-: average) by the stride of the layers' input (the paper's Table 4)",
        str(protocol),
    ]
    lines = [_row("on" if is_on else "-" for is_on in on) + _format_ap(metrics) for on, metrics in rows]
    return "\n".join([*header, _row([*groups, "AP", "AP50"]), *lines])


def verdict(aggregations: Mapping[Aggregation, Metrics], layers: Sequence[AttentionStatistics]) -> str:
    """Compares the ranking of aggregations with the paper's Table 3, and interprets it.

    According to section 5.2, the kernels of a dynamic network differ (other aggregations have a lower AP) and its
    attention depends on the image (the attention of another image has a lower AP).
    """
    # rounded as in the table, so that the text agrees with it
    ap = {name: round(metrics["AP"], 3) for name, metrics in aggregations.items()}
    ranking = sorted(_PAPER_RANKING, key=lambda name: -ap[name])
    text = f"{ranking[0]} {ap[ranking[0]]:.3f}"
    for better, name in pairwise(ranking):
        text += f" {'=' if ap[better] == ap[name] else '>'} {name} {ap[name]:.3f}"
    sentences = [f"AP of this network: {text}.", f"Ranking in the paper: {' > '.join(_PAPER_RANKING)}."]
    own, other, average = ap["attention"], ap["shuffled across images"], ap["average"]
    not_worse = [name for name in _PAPER_RANKING[1:] if ap[name] >= own]
    if not_worse:
        sentences.append(
            f"The paper's ranking is not reproduced: {' and '.join(not_worse)} reached at least the AP of attention."
        )
    else:
        sentences.append(
            "As in the paper, attention has the highest AP: the kernels differ (averaging them loses "
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


def _format_ap(metrics: Metrics) -> str:
    return _row((f"{metrics['AP']:.3f}", f"{metrics['AP50']:.3f}"))

"""The findings of an inspection in words: Tables 3 and 4 of the paper in AP, and what they mean."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from posedy.evaluation.evaluator import EvalProtocol
from tools.lab.attention.attention_probe import Aggregation, AttentionStatistics

Metrics = dict[str, float]

_NEARLY_UNIFORM = 0.98
# Table 3, by falling accuracy on ImageNet: 69.4, 36.0, 27.3, 14.8, 0.1
_ORDER_OF_THE_PAPER: tuple[Aggregation, ...] = (
    "attention",
    "average",
    "shuffled across images",
    "shuffled over kernels",
    "max",
)


def format_aggregations(aggregations: Mapping[Aggregation, Metrics], protocol: EvalProtocol) -> str:
    """Table 3: AP and AP50 of each kernel aggregation, under the protocol."""
    width = max(map(len, aggregations)) + 2
    header = ["Kernel aggregation in all dynamic layers (the paper's Table 3)", str(protocol)]
    columns = " " * width + _row(("AP", "AP50"))
    return "\n".join([*header, columns, *(f"{name:<{width}}{_numbers(found)}" for name, found in aggregations.items())])


def format_groups(
    groups: Sequence[str], rows: Iterable[tuple[tuple[bool, ...], Metrics]], protocol: EvalProtocol
) -> str:
    """Table 4: AP and AP50 with attention on in some groups of layers, averaged in the others, under the protocol."""
    header = [
        "Attention on, or off (-: average), in layers grouped by the stride of their input (the paper's Table 4)",
        str(protocol),
    ]
    lines = [_row("on" if is_on else "-" for is_on in on) + _numbers(found) for on, found in rows]
    return "\n".join([*header, _row([*groups, "AP", "AP50"]), *lines])


def verdict(aggregations: Mapping[Aggregation, Metrics], layers: Sequence[AttentionStatistics]) -> str:
    """Whether the pattern of the paper's Table 3 is there, and what that says of the attention.

    Section 5.2 expects of a dynamic network that its kernels differ (other aggregations lose) and that attention
    depends on the image (another image's loses).
    """
    # what the table shows counts, not digits behind it
    found = {name: round(metrics["AP"], 3) for name, metrics in aggregations.items()}
    ranking = sorted(_ORDER_OF_THE_PAPER, key=lambda name: -found[name])
    text = f"{ranking[0]} {found[ranking[0]]:.3f}"
    for better, name in pairwise(ranking):
        text += f" {'=' if found[better] == found[name] else '>'} {name} {found[name]:.3f}"
    sentences = [f"AP here: {text}.", f"In the paper: {' > '.join(_ORDER_OF_THE_PAPER)}."]
    own, other, average = found["attention"], found["shuffled across images"], found["average"]
    not_behind = [name for name in _ORDER_OF_THE_PAPER[1:] if found[name] >= own]
    if not_behind:
        does = "does" if len(not_behind) == 1 else "do"
        sentences.append(
            f"The paper's pattern is not there: {' and '.join(not_behind)} {does} as well as attention, or better."
        )
    else:
        sentences.append(
            f"As in the paper, attention is ahead of all that replaces it: the kernels differ (averaging them costs "
            f"{own - average:.3f}) and attention depends on the image (that of another image costs {own - other:.3f})."
        )
    if other > average:
        sentences.append(
            "Unlike in the paper, the attention of another image is better than the average: much of what attention "
            "does is the same for all images."
        )
    entropy = mean_entropy(layers)
    if entropy > _NEARLY_UNIFORM:
        sentences.append(
            f"Attention is nearly uniform (mean normalized entropy {entropy:.4f}; 1 is flat): attention that is "
            "sharpened so little explains small gaps."
        )
    return "\n".join(sentences)


def mean_entropy(layers: Sequence[AttentionStatistics]) -> float:
    """The normalized entropy of attention, averaged over images and layers."""
    return sum(layer.entropy for layer in layers) / len(layers)


def _row(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>7}" for cell in cells)


def _numbers(metrics: Metrics) -> str:
    return _row((f"{metrics['AP']:.3f}", f"{metrics['AP50']:.3f}"))

"""What `posedy eval --details` adds to the ten numbers: keypoints, errors, parts of the persons."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from posedy.evaluation.breakdown import PCK_FRACTIONS, KeypointNumbers, Part, break_down, keypoint_numbers
from posedy.evaluation.coco_metrics import Backend
from posedy.evaluation.curves import PrecisionRecall, precision_recall
from posedy.evaluation.errors import ERROR_CLASSES, ErrorAnalysis, analyse_errors
from posedy.evaluation.truth import KeypointTruth


@dataclass(frozen=True, eq=False)
class Details:
    """What an AP is made of.

    Attributes:
        errors: classes of keypoint errors and what they cost.
        keypoints: numbers of each keypoint.
        parts: numbers of parts of the persons, by title and name.
        curves: precision against recall.
    """

    errors: ErrorAnalysis
    keypoints: KeypointNumbers
    parts: dict[str, dict[str, Part]]
    curves: PrecisionRecall


def measure_details(
    truth: KeypointTruth,
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None = None,
    backend: Backend = "pycocotools",
) -> Details:
    """Measures all of them; arguments and errors are those of `evaluate_keypoints`."""
    errors = analyse_errors(truth, results, sigmas, backend)
    return Details(
        errors,
        keypoint_numbers(errors.persons),
        break_down(truth, results, errors.persons, sigmas, backend),
        precision_recall(truth, results, sigmas),
    )


def details_to_json(details: Details) -> dict[str, Any]:
    """In plain types, with None (null) in place of NaN."""
    counts, keypoints = details.errors.counts, details.keypoints
    names = details.errors.persons.skeleton.keypoints
    return {
        "keypoints": {
            name: {
                "labelled": int(keypoints.labelled[index]),
                "similarity": _number(keypoints.similarity[index]),
                **{f"PCK@{fraction:g}": _number(keypoints.pck[fraction][index]) for fraction in PCK_FRACTIONS},
                **dict(zip(ERROR_CLASSES, counts[index].tolist(), strict=True)),
            }
            for index, name in enumerate(names)
        },
        "errors": {
            "counts": dict(zip(ERROR_CLASSES, counts.sum(axis=0).tolist(), strict=True)),
            "AP_costs": {name: _number(cost) for name, cost in details.errors.costs.items()},
        },
        "parts": {
            title: {name: {key: _number(value) for key, value in asdict(part).items()} for name, part in group.items()}
            for title, group in details.parts.items()
        },
        "recalls": [round(float(recall), 2) for recall in details.curves.recalls],
        "precision": {
            f"{threshold:.2f}": [_number(value) for value in row]
            for threshold, row in zip(details.curves.thresholds, details.curves.precision, strict=True)
        },
    }


def format_details(details: Details) -> str:
    """Three tables for a terminal."""
    record = details_to_json(details)
    head = ["labelled", "similarity", *(f"PCK@{fraction:g}" for fraction in PCK_FRACTIONS), *ERROR_CLASSES]
    lines = [" " * 16 + "".join(f"{word:>11}" for word in head)]
    for name, numbers in record["keypoints"].items():
        lines.append(f"{name:>16}" + "".join(f"{_shown(numbers[word]):>11}" for word in head))
    lines += [
        "",
        "AP that errors cost: " + ", ".join(f"{name} {cost:+.3f}" for name, cost in details.errors.costs.items()),
    ]
    for title, group in details.parts.items():
        lines.append(f"\n{title:>26}    persons     AP     AR    OKS")
        for name, part in group.items():
            numbers = "".join(f"{_shown(_number(value)):>7}" for value in (part.ap, part.ar, part.oks))
            lines.append(f"{name:>26} {part.persons:>10}{numbers}")
    return "\n".join(lines)


def _number(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else float(value)


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"

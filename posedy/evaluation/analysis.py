"""What metrics are made of: by keypoint, size, number of labeled keypoints and neighbors; precision-recall curves."""

import io
import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.evaluation.coco_eval import Backend, evaluate_keypoints, match_results
from posedy.evaluation.errors import ERROR_CLASSES, ErrorAnalysis, analyze_errors
from posedy.evaluation.matching import LOOSE, MatchedPersons, mean_of_labeled
from posedy.geometry import box_iou, xywh_to_xyxy

PCK_FRACTIONS = (0.05, 0.1, 0.2)
"""Of the longer side of a person's box."""
_MEDIUM, _LARGE = 32**2, 96**2  # COCO's areas in square pixels


@dataclass(frozen=True)
class Part:
    """The numbers of some of the persons.

    Attributes:
        persons: how many.
        ap: of these persons and the poses that are more similar to them than to others; NaN for no person. Poses that
            are similar to nobody count in no part, else AP would fall with the part's size: parts lie above the whole.
        ar: the mean over COCO's thresholds of the share of these persons that is found.
        oks: mean OKS with the matched pose, 0 for a person without one.
    """

    persons: int
    ap: float
    ar: float
    oks: float


@dataclass(frozen=True, eq=False)
class KeypointNumbers:
    """The numbers of each of K keypoints over the persons for whom it is labeled; NaN if nobody is.

    Attributes:
        labeled: (K,) how many.
        similarity: (K,) mean similarity with the truth (a keypoint's part in OKS); 0 where the person was not found.
        pck: fraction of the box -> (K,) the share nearer to the truth than that (PCK, Yang and Ramanan, 2013).
    """

    labeled: NDArray[np.int64]
    similarity: NDArray[np.float64]
    pck: dict[float, NDArray[np.float64]]


def keypoint_numbers(persons: MatchedPersons) -> KeypointNumbers:
    """How well each keypoint was found; persons without a pose count as missed."""
    labeled = persons.labeled
    counts = labeled.sum(axis=0)

    def mean(values: NDArray) -> NDArray[np.float64]:
        sums = (values * labeled).sum(axis=0)
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

    distances = np.linalg.norm(persons.predicted - persons.truth, axis=-1)
    longer_sides = persons.boxes[:, 2:].max(axis=1)[:, None]
    near = {fraction: mean(distances <= fraction * longer_sides) for fraction in PCK_FRACTIONS}  # NaN is not near
    return KeypointNumbers(counts, mean(persons.similarity), near)


def break_down(
    truth: GroundTruth,
    results: list[dict[str, Any]],
    persons: MatchedPersons,
    sigmas: Sequence[float] | None = None,
    backend: Backend = "pycocotools",
) -> dict[str, dict[str, Part]]:
    """AP, AR and OKS for parts of the persons: {"size": {"medium": ...}, "labeled keypoints": ..., "neighbors": ...}.

    Args:
        truth: the annotation file.
        results: COCO keypoint results on it.
        persons: `match_persons` of both.
        sigmas: (K,) of OKS; by default the category's.
        backend: what computes AP and AR.
    """
    counts = persons.labeled.sum(axis=1)
    few, many = persons.skeleton.num_keypoints // 3, 2 * persons.skeleton.num_keypoints // 3
    overlap, nearest = _overlaps(truth), _nearest(persons, results)
    groups = {
        "size": {
            "small (under 32x32)": persons.areas < _MEDIUM,
            "medium": (persons.areas >= _MEDIUM) & (persons.areas < _LARGE),
            "large (from 96x96)": persons.areas >= _LARGE,
        },
        "labeled keypoints": {
            _span(1, few): counts <= few,
            _span(few + 1, many): (counts > few) & (counts <= many),
            _span(many + 1, persons.skeleton.num_keypoints): counts > many,
        },
        "neighbors (IoU of boxes)": {
            "none": overlap == 0,
            "under 0.1": (overlap > 0) & (overlap < 0.1),
            "0.1 to 0.3": (overlap >= 0.1) & (overlap < 0.3),
            "over 0.3": overlap >= 0.3,
        },
    }
    groups["labeled keypoints"].pop("", None)  # of one or two keypoints there are no thirds
    return {
        title: {
            name: _part(truth, results, persons, nearest, chosen, sigmas, backend) for name, chosen in group.items()
        }
        for title, group in groups.items()
    }


def _span(first: int, last: int) -> str:
    """Whole numbers in words, "" for none."""
    if first >= last:
        return str(last) if first == last else ""
    return f"{first} to {last}"


def _part(
    truth: GroundTruth,
    results: list[dict[str, Any]],
    persons: MatchedPersons,
    nearest: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    sigmas: Sequence[float] | None,
    backend: Backend,
) -> Part:
    if not chosen.any():
        return Part(0, np.nan, np.nan, np.nan)
    others = {person["id"] for person, taken in zip(truth.labeled, chosen, strict=True) if not taken}
    annotations = tuple(person | ({"iscrowd": 1} if person["id"] in others else {}) for person in truth.annotations)
    of_these = [result for result, person in zip(results, nearest, strict=True) if person >= 0 and chosen[person]]
    metrics = evaluate_keypoints(replace(truth, annotations=annotations), of_these, sigmas=sigmas, backend=backend)
    return Part(int(chosen.sum()), metrics["AP"], metrics["AR"], float(persons.oks[chosen].mean()))


def _nearest(persons: MatchedPersons, results: list[dict[str, Any]]) -> NDArray[np.int64]:
    """The index (R,) of the person that each result is most similar to, -1 where no OKS reaches `LOOSE`."""
    members = defaultdict(list)
    for person, image_id in enumerate(persons.image_ids.tolist()):
        members[image_id].append(person)
    nearest = np.full(len(results), -1)
    for index, result in enumerate(results):
        of_image = members.get(result["image_id"])
        if of_image is None:
            continue
        points = np.reshape(result["keypoints"], (-1, 3))[:, :2]
        similarity = persons.similarity_to(points, persons.truth[of_image], persons.areas[of_image])
        oks = mean_of_labeled(similarity, persons.labeled[of_image])
        if oks.max() >= LOOSE:
            nearest[index] = of_image[int(oks.argmax())]
    return nearest


def _overlaps(truth: GroundTruth) -> NDArray[np.float64]:
    """The largest IoU (P,) of each labeled person's box with another annotated person's, labeled or not."""
    of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for person in truth.annotations:
        of_image[person["image_id"]].append(person)
    largest: dict[int, float] = {}
    for people in of_image.values():
        boxes = xywh_to_xyxy(np.array([person["bbox"] for person in people], dtype=np.float64))
        iou = box_iou(boxes, boxes)
        np.fill_diagonal(iou, 0)
        largest |= {person["id"]: overlap for person, overlap in zip(people, iou.max(axis=1), strict=True)}
    return np.array([largest[person["id"]] for person in truth.labeled], dtype=np.float64)


_BINS = 10


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision (T, R) at T thresholds of OKS (T,) and R recalls (R,), as COCOeval interpolates it."""

    thresholds: NDArray[np.float64]
    recalls: NDArray[np.float64]
    precision: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Mean score, mean outcome and number of cases (B,) in bins of equally many cases, by rising score.

    A score is calibrated where it equals the outcome.
    """

    score: NDArray[np.float64]
    outcome: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The mean distance of score and outcome, NaN without cases (Naeini et al., AAAI 2015)."""
        if not self.count.sum():
            return np.nan
        return float(np.average(np.abs(self.score - self.outcome), weights=self.count))

    @property
    def of_probabilities(self) -> bool:
        """Whether the scores can be probabilities: each bin's mean is in [0, 1]; single peaks may be a little out."""
        return bool(((self.score >= 0) & (self.score <= 1)).all())


def precision_recall(
    annotations: AnnotationSource | GroundTruth, results: list[dict[str, Any]], sigmas: Sequence[float] | None = None
) -> PrecisionRecall:
    """The curves whose means are COCO's AP; arguments and errors are those of `evaluate_keypoints`."""
    evaluation = match_results(annotations, results, sigmas=sigmas)
    with redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]  # one category, persons of all sizes, 20 an image
    return PrecisionRecall(np.asarray(evaluation.params.iouThrs), np.asarray(evaluation.params.recThrs), precision)


def calibrate(scores: ArrayLike, outcomes: ArrayLike, bins: int = _BINS) -> Calibration:
    """Compares scores (M,) with outcomes (M,) in bins of equally many cases."""
    scores, outcomes = np.asarray(scores, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return Calibration(
        np.array([scores[part].mean() for part in parts]),
        np.array([outcomes[part].mean() for part in parts]),
        np.array([len(part) for part in parts], dtype=np.int64),
    )


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
    truth: GroundTruth,
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None = None,
    backend: Backend = "pycocotools",
) -> Details:
    """Measures all of them; arguments and errors are those of `evaluate_keypoints`."""
    errors = analyze_errors(truth, results, sigmas, backend)
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
                "labeled": int(keypoints.labeled[index]),
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
    head = ["labeled", "similarity", *(f"PCK@{fraction:g}" for fraction in PCK_FRACTIONS), *ERROR_CLASSES]
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

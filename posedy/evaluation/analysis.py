"""Detailed metrics: per keypoint, per subset of persons, precision-recall curves, calibration."""

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
from posedy.evaluation.matching import MIN_MATCH_OKS, MatchedPersons, mean_over_labeled
from posedy.geometry import box_iou, xywh_to_xyxy

PCK_FRACTIONS = (0.05, 0.1, 0.2)
"""PCK thresholds as fractions of the longer side of a person's box."""
_MEDIUM_AREA, _LARGE_AREA = 32**2, 96**2  # COCO's minimum areas of medium and large persons in square pixels
_CALIBRATION_BINS = 10


@dataclass(frozen=True)
class SubsetMetrics:
    """AP, AR and mean OKS of a subset of the persons.

    Attributes:
        persons: number of persons.
        ap: AP of these persons and of the results nearest to them, NaN without persons. Results near no person reduce
            the overall AP only: in a subset, their effect would depend on its size.
        ar: AR of these persons.
        oks: mean OKS, 0 for a person without a matched result.
    """

    persons: int
    ap: float
    ar: float
    oks: float


@dataclass(frozen=True, eq=False)
class KeypointMetrics:
    """Metrics of each of K keypoints, over the persons with this keypoint labeled; NaN if there are none.

    Attributes:
        labeled: (K,) number of persons with this keypoint labeled.
        similarity: (K,) mean keypoint similarity (a keypoint's summand of OKS), 0 for unmatched persons.
        pck: maps each of `PCK_FRACTIONS` to the PCK (K,) at this threshold (Yang and Ramanan, 2013).
    """

    labeled: NDArray[np.int64]
    similarity: NDArray[np.float64]
    pck: dict[float, NDArray[np.float64]]


def compute_keypoint_metrics(persons: MatchedPersons) -> KeypointMetrics:
    """Computes mean similarity and PCK of each keypoint; unmatched persons count as missed."""
    labeled = persons.labeled
    counts = labeled.sum(axis=0)

    def mean(values: NDArray) -> NDArray[np.float64]:
        sums = (values * labeled).sum(axis=0)
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

    distances = np.linalg.norm(persons.pred_keypoints - persons.gt_keypoints, axis=-1)
    longer_sides = persons.boxes[:, 2:].max(axis=1)[:, None]
    # NaN distances of unmatched persons compare as False
    pck = {fraction: mean(distances <= fraction * longer_sides) for fraction in PCK_FRACTIONS}
    return KeypointMetrics(counts, mean(persons.similarity), pck)


def compute_breakdown(
    gt: GroundTruth,
    results: list[dict[str, Any]],
    persons: MatchedPersons,
    sigmas: Sequence[float] | None = None,
    backend: Backend = "pycocotools",
) -> dict[str, dict[str, SubsetMetrics]]:
    """Computes metrics of subsets of the persons by size, number of labeled keypoints, and overlap with neighbors.

    Args:
        gt: the ground truth.
        results: COCO keypoint results.
        persons: `match_persons` of both.
        sigmas: (K,) OKS sigmas; by default the category's.
        backend: evaluation library that computes AP and AR.

    Returns:
        Metrics by criterion and subset, like {"size": {"medium": ..., ...}, "labeled keypoints": ..., ...}.
    """
    counts = persons.labeled.sum(axis=1)
    third, two_thirds = persons.skeleton.num_keypoints // 3, 2 * persons.skeleton.num_keypoints // 3
    overlap, nearest = _compute_overlaps(gt), _find_nearest(persons, results, gt.category["id"])
    criteria = {
        "size": {
            "small (under 32x32)": persons.areas < _MEDIUM_AREA,
            "medium": (persons.areas >= _MEDIUM_AREA) & (persons.areas < _LARGE_AREA),
            "large (from 96x96)": persons.areas >= _LARGE_AREA,
        },
        "labeled keypoints": {
            _format_range(1, third): counts <= third,
            _format_range(third + 1, two_thirds): (counts > third) & (counts <= two_thirds),
            _format_range(two_thirds + 1, persons.skeleton.num_keypoints): counts > two_thirds,
        },
        "neighbors (IoU of boxes)": {
            "none": overlap == 0,
            "under 0.1": (overlap > 0) & (overlap < 0.1),
            "0.1 to 0.3": (overlap >= 0.1) & (overlap < 0.3),
            "over 0.3": overlap >= 0.3,
        },
    }
    criteria["labeled keypoints"].pop("", None)  # with one or two keypoints, a third may be empty
    return {
        criterion: {
            name: _compute_subset_metrics(gt, results, persons, nearest, mask, sigmas, backend)
            for name, mask in subsets.items()
        }
        for criterion, subsets in criteria.items()
    }


def _format_range(first: int, last: int) -> str:
    """Formats a range of integers, "" if it is empty."""
    if first >= last:
        return str(last) if first == last else ""
    return f"{first} to {last}"


def _compute_subset_metrics(
    gt: GroundTruth,
    results: list[dict[str, Any]],
    persons: MatchedPersons,
    nearest: NDArray[np.int64],
    mask: NDArray[np.bool_],
    sigmas: Sequence[float] | None,
    backend: Backend,
) -> SubsetMetrics:
    if not mask.any():
        return SubsetMetrics(0, np.nan, np.nan, np.nan)
    # crowds are ignored, so all other persons become crowds
    others = {person["id"] for person, selected in zip(gt.labeled, mask, strict=True) if not selected}
    annotations = tuple(person | ({"iscrowd": 1} if person["id"] in others else {}) for person in gt.annotations)
    selected = [result for result, person in zip(results, nearest, strict=True) if person >= 0 and mask[person]]
    metrics = evaluate_keypoints(replace(gt, annotations=annotations), selected, sigmas=sigmas, backend=backend)
    return SubsetMetrics(int(mask.sum()), metrics["AP"], metrics["AR"], float(persons.oks[mask].mean()))


def _find_nearest(persons: MatchedPersons, results: list[dict[str, Any]], category_id: int | str) -> NDArray[np.int64]:
    """Returns the index (R,) of the person with the highest OKS for each result, -1 if it is below `MIN_MATCH_OKS`.

    It is -1 for results of other categories, too.
    """
    members = defaultdict(list)
    for person, image_id in enumerate(persons.image_ids.tolist()):
        members[image_id].append(person)
    nearest = np.full(len(results), -1)
    for index, result in enumerate(results):
        in_image = members.get(result["image_id"])
        if in_image is None or result["category_id"] != category_id:
            continue
        keypoints = np.reshape(result["keypoints"], (-1, 3))[:, :2]
        similarity = persons.compute_similarity(keypoints, persons.gt_keypoints[in_image], persons.areas[in_image])
        oks = mean_over_labeled(similarity, persons.labeled[in_image])
        if oks.max() >= MIN_MATCH_OKS:
            nearest[index] = in_image[int(oks.argmax())]
    return nearest


def _compute_overlaps(gt: GroundTruth) -> NDArray[np.float64]:
    """Returns the largest IoU (P,) of each labeled person's box with that of any other annotation in the image."""
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for person in gt.annotations:
        by_image[person["image_id"]].append(person)
    largest: dict[int, float] = {}
    for in_image in by_image.values():
        boxes = xywh_to_xyxy(np.array([person["bbox"] for person in in_image], dtype=np.float64))
        iou = box_iou(boxes, boxes)
        np.fill_diagonal(iou, 0)
        largest |= {person["id"]: overlap for person, overlap in zip(in_image, iou.max(axis=1), strict=True)}
    return np.array([largest[person["id"]] for person in gt.labeled], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurves:
    """Precision-recall curves at several OKS thresholds, interpolated as in COCOeval.

    Attributes:
        thresholds: (T,) OKS thresholds.
        recalls: (R,) recalls.
        precision: (T, R) precision.
    """

    thresholds: NDArray[np.float64]
    recalls: NDArray[np.float64]
    precision: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores compared with accuracy (OKS or keypoint similarity) in B equal-count bins, by ascending score.

    Attributes:
        score: (B,) mean score of each bin.
        accuracy: (B,) mean accuracy of each bin; it equals the score if scores are calibrated.
        count: (B,) number of samples in each bin.
    """

    score: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al., AAAI 2015), NaN without samples."""
        if not self.count.sum():
            return np.nan
        return float(np.average(np.abs(self.score - self.accuracy), weights=self.count))

    @property
    def is_probability(self) -> bool:
        """Whether the mean score of each bin is in [0, 1]; single heatmap peaks may lie slightly outside."""
        return bool(((self.score >= 0) & (self.score <= 1)).all())


def compute_precision_recall(
    annotations: AnnotationSource | GroundTruth, results: list[dict[str, Any]], sigmas: Sequence[float] | None = None
) -> PrecisionRecallCurves:
    """Computes precision-recall curves, the mean of which is AP; arguments and errors as for `evaluate_keypoints`."""
    evaluation = match_results(annotations, results, sigmas=sigmas)
    with redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]  # one category, all sizes, 20 results per image
    return PrecisionRecallCurves(
        np.asarray(evaluation.params.iouThrs), np.asarray(evaluation.params.recThrs), precision
    )


def calibrate(scores: ArrayLike, accuracies: ArrayLike, bins: int = _CALIBRATION_BINS) -> Calibration:
    """Compares scores (M,) with accuracies (M,) in equal-count bins."""
    scores, accuracies = np.asarray(scores, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    order = np.argsort(scores, kind="stable")
    indices = [in_bin for in_bin in np.array_split(order, bins) if len(in_bin)]
    return Calibration(
        np.array([scores[in_bin].mean() for in_bin in indices]),
        np.array([accuracies[in_bin].mean() for in_bin in indices]),
        np.array([len(in_bin) for in_bin in indices], dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class DetailedMetrics:
    """Detailed metrics of COCO keypoint results.

    Attributes:
        errors: error classes of keypoints and their AP costs.
        keypoints: metrics of each keypoint.
        breakdown: metrics of subsets of the persons, by criterion and subset.
        curves: precision-recall curves.
    """

    errors: ErrorAnalysis
    keypoints: KeypointMetrics
    breakdown: dict[str, dict[str, SubsetMetrics]]
    curves: PrecisionRecallCurves


def compute_details(
    gt: GroundTruth,
    results: list[dict[str, Any]],
    sigmas: Sequence[float] | None = None,
    backend: Backend = "pycocotools",
) -> DetailedMetrics:
    """Computes all detailed metrics; arguments and errors as for `evaluate_keypoints`."""
    errors = analyze_errors(gt, results, sigmas, backend)
    return DetailedMetrics(
        errors,
        compute_keypoint_metrics(errors.persons),
        compute_breakdown(gt, results, errors.persons, sigmas, backend),
        compute_precision_recall(gt, results, sigmas),
    )


def details_to_json(details: DetailedMetrics) -> dict[str, Any]:
    """Converts detailed metrics to JSON values, with None (null) in place of NaN."""
    counts, keypoints = details.errors.counts, details.keypoints
    names = details.errors.persons.skeleton.keypoints
    return {
        "keypoints": {
            name: {
                "labeled": int(keypoints.labeled[index]),
                "similarity": _to_json_number(keypoints.similarity[index]),
                **{f"PCK@{fraction:g}": _to_json_number(keypoints.pck[fraction][index]) for fraction in PCK_FRACTIONS},
                **dict(zip(ERROR_CLASSES, counts[index].tolist(), strict=True)),
            }
            for index, name in enumerate(names)
        },
        "errors": {
            "counts": dict(zip(ERROR_CLASSES, counts.sum(axis=0).tolist(), strict=True)),
            "AP_costs": {name: _to_json_number(cost) for name, cost in details.errors.ap_costs.items()},
        },
        "parts": {
            criterion: {
                name: {key: _to_json_number(value) for key, value in asdict(subset).items()}
                for name, subset in subsets.items()
            }
            for criterion, subsets in details.breakdown.items()
        },
        "recalls": [round(float(recall), 2) for recall in details.curves.recalls],
        "precision": {
            f"{threshold:.2f}": [_to_json_number(value) for value in row]
            for threshold, row in zip(details.curves.thresholds, details.curves.precision, strict=True)
        },
    }


def format_details(details: DetailedMetrics) -> str:
    """Formats detailed metrics as tables for a terminal."""
    record = details_to_json(details)
    columns = ["labeled", "similarity", *(f"PCK@{fraction:g}" for fraction in PCK_FRACTIONS), *ERROR_CLASSES]
    lines = [" " * 16 + "".join(f"{column:>11}" for column in columns)]
    for name, metrics in record["keypoints"].items():
        lines.append(f"{name:>16}" + "".join(f"{_format_json_number(metrics[column]):>11}" for column in columns))
    costs = ", ".join(f"{name} {cost:+.3f}" for name, cost in details.errors.ap_costs.items())
    lines += ["", f"AP costs of errors: {costs}"]
    for criterion, subsets in details.breakdown.items():
        lines.append(f"\n{criterion:>26}    persons     AP     AR    OKS")
        for name, subset in subsets.items():
            values = "".join(
                f"{_format_json_number(_to_json_number(value)):>7}" for value in (subset.ap, subset.ar, subset.oks)
            )
            lines.append(f"{name:>26} {subset.persons:>10}{values}")
    return "\n".join(lines)


def _to_json_number(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else float(value)


def _format_json_number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"

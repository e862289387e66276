"""Confidence intervals of COCO metrics: percentile bootstrap over images (Efron, 1979).

Images are resampled with replacement; an image sampled w times has weight w, with its persons and its results. Matching
is per image and does not change, so each resample costs one weighted accumulation of COCOeval's matches:

    precision(r) = max over recalls >= r of  sum_i w_i TP_i / sum_i w_i (TP_i + FP_i)
    AP = mean of precision(r) over r = 0, 0.01 .. 1
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.evaluation.coco_eval import METRIC_NAMES, Images, match_results
from posedy.poses import format_count

RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95
MIN_IMAGES = 10
"""Minimum number of images without a warning: with fewer, resamples hardly differ and intervals are too narrow."""


@dataclass(frozen=True)
class ConfidenceInterval:
    """Lower and upper end of a metric's 95 % confidence interval, by percentile bootstrap.

    Attributes:
        low: lower end, NaN if no resample defines the metric.
        high: upper end, likewise.
        undefined: fraction of resamples without any person of the size class, which are left out.
    """

    low: float
    high: float
    undefined: float = 0.0

    def __str__(self) -> str:
        """Formats the interval to three decimals, or as "-" if it is undefined."""
        return "-" if math.isnan(self.low) else f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True, eq=False)
class _SizeClassMatches:
    """COCOeval's matches in one area range, with results in descending order of score.

    Attributes:
        image: (D,) index of the image of each result.
        true_positives: (T, D) whether the result is matched to a person at each of T OKS thresholds.
        false_positives: (T, D) whether it is unmatched; a result matched to ignored ground truth is neither.
        persons: (I,) number of counted persons in each image.
    """

    image: NDArray[np.int64]
    true_positives: NDArray[np.bool_]
    false_positives: NDArray[np.bool_]
    persons: NDArray[np.int64]


class WeightedMetrics:
    """Computes COCO metrics with a weight per image; with unit weights they equal COCOeval's.

    Args:
        evaluation: COCOeval after `evaluate`, see `match_results` and `match_boxes`.
    """

    def __init__(self, evaluation: COCOeval) -> None:
        params = evaluation.params
        self.images = list(params.imgIds)
        self.num_images = len(self.images)
        self._recalls = np.asarray(params.recThrs)
        self._thresholds = np.asarray(params.iouThrs)
        per_class = np.array_split(np.arange(len(evaluation.evalImgs)), len(params.areaRng))
        self._size_classes = {
            label: _collect_matches([evaluation.evalImgs[index] for index in indices], len(self._thresholds))
            for label, indices in zip(params.areaRngLbl, per_class, strict=True)
        }

    def __call__(self, weights: NDArray[np.int64]) -> dict[str, float]:
        """Computes `METRIC_NAMES` for image weights (I,); NaN for a size class without persons."""
        precision, recall = zip(
            *(self._accumulate(self._size_classes[size], weights) for size in ("all", "medium", "large")), strict=True
        )
        return dict(zip(METRIC_NAMES, [*self._summarize(precision), *self._summarize(recall)], strict=True))

    def _summarize(self, values: Sequence[NDArray[np.float64]]) -> list[float]:
        """Returns the mean over thresholds, the values at 0.5 and 0.75, and the means of medium and large persons."""
        every, medium, large = values
        at = [float(every[np.isclose(self._thresholds, threshold)][0]) for threshold in (0.5, 0.75)]
        return [float(every.mean()), *at, float(medium.mean()), float(large.mean())]

    def _accumulate(
        self, matches: _SizeClassMatches, weights: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the mean precision (T,) and the final recall (T,) at each threshold."""
        num_persons = int(weights @ matches.persons)
        if num_persons == 0:
            undefined = np.full(len(self._thresholds), np.nan)
            return undefined, undefined
        sampled = weights[matches.image] > 0
        if not sampled.any():
            return np.zeros(len(self._thresholds)), np.zeros(len(self._thresholds))
        counts = weights[matches.image[sampled]]
        true_positives = np.cumsum(matches.true_positives[:, sampled] * counts, axis=1)
        false_positives = np.cumsum(matches.false_positives[:, sampled] * counts, axis=1)
        recall = true_positives / num_persons
        precision = true_positives / np.maximum(true_positives + false_positives, np.spacing(1.0))
        interpolated = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        mean_precision = np.zeros(len(self._thresholds))
        for index, (recall_row, precision_row) in enumerate(zip(recall, interpolated, strict=True)):
            positions = np.searchsorted(recall_row, self._recalls, side="left")
            reached = positions[positions < len(precision_row)]
            mean_precision[index] = precision_row[reached].sum() / len(self._recalls)
        return mean_precision, recall[:, -1]


class MeanMetrics:
    """The mean of the metrics of several results on the same images, such as those of the seeds of a network.

    Args:
        each: the metrics of each of the results, at least one.

    Raises:
        ValueError: if the images differ.
    """

    def __init__(self, each: Sequence[WeightedMetrics]) -> None:
        self.each = each
        self.images, self.num_images = each[0].images, each[0].num_images
        if any(metrics.images != self.images for metrics in each):
            raise ValueError(
                f"expected results on the same images, got {[metrics.num_images for metrics in each]} images"
            )

    def __call__(self, weights: NDArray[np.int64]) -> dict[str, float]:
        """Computes the means of `METRIC_NAMES` for image weights (I,)."""
        values = [metrics(weights) for metrics in self.each]
        return {name: float(np.mean([value[name] for value in values])) for name in METRIC_NAMES}


def format_intervals(intervals: Mapping[str, ConfidenceInterval]) -> str:
    """Formats confidence intervals by metric, and the share of resamples in which a metric is undefined."""
    lines = [f"95 %: {', '.join(f'{name} {interval}' for name, interval in intervals.items())}"]
    if undefined := [f"{name} in {item.undefined:.1%}" for name, item in intervals.items() if item.undefined]:
        lines.append(f"resamples without a person of that size, not in the interval: {', '.join(undefined)}")
    return "\n".join(lines)


def bootstrap_intervals(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images = "all",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, ConfidenceInterval]:
    """Computes 95 % confidence intervals of the COCO metrics by bootstrap over images.

    Args:
        annotations: see `evaluate_keypoints`, also for the errors raised.
        results: COCO keypoint results.
        images: images to evaluate and resample.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.
    """
    metrics = WeightedMetrics(match_results(annotations, results, images))
    return _to_intervals([metrics(weights) for weights in _sample_weights(metrics.num_images, resamples, seed)])


def bootstrap_difference(
    annotations: AnnotationSource | GroundTruth,
    results: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    images: Images = "all",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, ConfidenceInterval]]:
    """Computes the metric differences of two results, second minus first, with 95 % intervals by paired bootstrap.

    Both results are evaluated on the same resamples.

    Args:
        annotations: see `evaluate_keypoints`.
        results: two results on the same images, the baseline first.
        images: "all" or image ids; "detected" may select different images for the two.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        Each metric's difference and its confidence interval.

    Raises:
        OSError: as `evaluate_keypoints`.
        ValueError: likewise, and if "detected" selects different images.
    """
    first, second = (WeightedMetrics(match_results(annotations, each, images)) for each in results)
    if first.images != second.images:
        raise ValueError(
            "expected two results on the same images, got results on different images "
            f"({first.num_images} and {second.num_images}): use images='all'"
        )

    return paired_difference(first, second, resamples, seed)


def paired_difference(
    first: WeightedMetrics | MeanMetrics,
    second: WeightedMetrics | MeanMetrics,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, ConfidenceInterval]]:
    """Computes the metric differences, second minus first, of the same images; see `bootstrap_difference`."""

    def compute_difference(weights: NDArray[np.int64]) -> dict[str, float]:
        before, after = first(weights), second(weights)
        return {name: after[name] - before[name] for name in METRIC_NAMES}

    difference = compute_difference(np.ones(first.num_images, dtype=np.int64))
    intervals = _to_intervals(
        [compute_difference(weights) for weights in _sample_weights(first.num_images, resamples, seed)]
    )
    return {name: (difference[name], intervals[name]) for name in METRIC_NAMES}


def _sample_weights(num_images: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Samples how often each image occurs in each resample: (resamples, I)."""
    if resamples < 1:
        raise ValueError(f"resamples: expected at least 1, got {resamples}")
    rng = np.random.default_rng(seed)
    if num_images < MIN_IMAGES:
        warnings.warn(
            f"confidence intervals over {format_count(num_images, 'image')} are too narrow: a bootstrap needs "
            f"at least {MIN_IMAGES} images, better hundreds",
            stacklevel=3,
        )
    samples = rng.integers(num_images, size=(resamples, num_images))
    return np.stack([np.bincount(images, minlength=num_images) for images in samples])


def _to_intervals(samples: list[dict[str, float]]) -> dict[str, ConfidenceInterval]:
    """Computes percentile intervals from the metrics of all resamples."""
    tail = 100 * (1 - CONFIDENCE_LEVEL) / 2
    intervals = {}
    for name in METRIC_NAMES:
        values = np.array([metrics[name] for metrics in samples])
        defined = values[~np.isnan(values)]  # a resample may contain no person of a size class
        low, high = np.percentile(defined, [tail, 100 - tail]) if len(defined) else (np.nan, np.nan)
        intervals[name] = ConfidenceInterval(float(low), float(high), 1 - len(defined) / len(values))
    return intervals


def _collect_matches(per_image: Sequence[dict[str, Any] | None], num_thresholds: int) -> _SizeClassMatches:
    """Concatenates COCOeval's matches of all images, sorted by descending score."""
    empty = np.zeros((num_thresholds, 0), dtype=bool)
    image, scores, true_positives, false_positives = [np.zeros(0, np.int64)], [np.zeros(0)], [empty], [empty]
    persons = np.zeros(len(per_image), dtype=np.int64)
    for index, matches in enumerate(per_image):
        if matches is None:
            continue
        counted = ~np.asarray(matches["dtIgnore"], dtype=bool)
        matched = np.asarray(matches["dtMatches"]) != 0
        persons[index] = np.count_nonzero(np.asarray(matches["gtIgnore"]) == 0)
        image.append(np.full(len(matches["dtScores"]), index))
        scores.append(np.asarray(matches["dtScores"]))
        true_positives.append(matched & counted)
        false_positives.append(~matched & counted)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return _SizeClassMatches(
        np.concatenate(image)[order],
        np.concatenate(true_positives, axis=1)[:, order],
        np.concatenate(false_positives, axis=1)[:, order],
        persons,
    )

"""How far numbers would move with other photos: bootstrap intervals over images (Efron, 1979).

The photos are drawn anew with replacement; a photo that is drawn w times counts w times, with its persons and its
results. Matching does not change, so each draw costs one weighted accumulation of what COCOeval matched:

    precision(r) = max over recalls >= r of  sum_i w_i TP_i / sum_i w_i (TP_i + FP_i)
    AP = mean of precision(r) over r = 0, 0.01 .. 1
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.evaluation.coco_eval import METRIC_NAMES, Images, match_results

RESAMPLES = 1000
LEVEL = 0.95
FEW_IMAGES = 10
"""Under so many images draws differ too little from each other to tell how photos differ."""


@dataclass(frozen=True)
class Interval:
    """From the lower to the upper percentile of a bootstrap, NaN where no draw defines the number.

    Attributes:
        low: the lower end.
        high: the upper end.
        undefined: the share of draws that missed all persons of a size and say nothing.
    """

    low: float
    high: float
    undefined: float = 0.0

    def __str__(self) -> str:
        """To three decimals."""
        return f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True, eq=False)
class _SizeClass:
    """What was matched among the truth of one range of areas, the results by descending score.

    Attributes:
        image: (D,) index of the image of each result.
        hits: (T, D) whether it matches a person at the T thresholds of OKS.
        misses: (T, D) whether it matches nobody; what matches ignored truth is neither.
        persons: (I,) of each image that count.
    """

    image: NDArray[np.int64]
    hits: NDArray[np.bool_]
    misses: NDArray[np.bool_]
    persons: NDArray[np.int64]


class WeightedMetrics:
    """COCO's ten numbers where each image counts with a weight; with all weights 1 they are COCOeval's.

    Args:
        evaluation: after `evaluate`, of keypoints; see `match_results`.
    """

    def __init__(self, evaluation: COCOeval) -> None:
        params = evaluation.params
        self.images = list(params.imgIds)
        self.num_images = len(self.images)
        self._recalls = np.asarray(params.recThrs)
        self._thresholds = np.asarray(params.iouThrs)
        per_class = np.array_split(np.arange(len(evaluation.evalImgs)), len(params.areaRng))
        self._classes = {
            label: _gather([evaluation.evalImgs[index] for index in indices], len(self._thresholds))
            for label, indices in zip(params.areaRngLbl, per_class, strict=True)
        }

    def __call__(self, weights: NDArray[np.int64]) -> dict[str, float]:
        """`METRIC_NAMES` for (I,) weights of the images, NaN where no person of a size is left."""
        precision, recall = zip(
            *(self._of(self._classes[size], weights) for size in ("all", "medium", "large")), strict=True
        )
        return dict(zip(METRIC_NAMES, [*self._six(precision), *self._six(recall)], strict=True))

    def _six(self, values: Sequence[NDArray[np.float64]]) -> list[float]:
        """The mean over thresholds, those at 0.5 and 0.75, and the mean for medium and large persons."""
        every, medium, large = values
        at = [float(every[np.isclose(self._thresholds, threshold)][0]) for threshold in (0.5, 0.75)]
        return [float(every.mean()), *at, float(medium.mean()), float(large.mean())]

    def _of(self, matched: _SizeClass, weights: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean precision and final recall (T,) at each threshold."""
        persons = int(weights @ matched.persons)
        if persons == 0:
            undefined = np.full(len(self._thresholds), np.nan)
            return undefined, undefined
        drawn = weights[matched.image] > 0
        if not drawn.any():
            return np.zeros(len(self._thresholds)), np.zeros(len(self._thresholds))
        counts = weights[matched.image[drawn]]
        hits = np.cumsum(matched.hits[:, drawn] * counts, axis=1)
        misses = np.cumsum(matched.misses[:, drawn] * counts, axis=1)
        recall = hits / persons
        precision = hits / np.maximum(hits + misses, np.spacing(1.0))
        best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        mean_precision = np.zeros(len(self._thresholds))
        for index, (reached, best) in enumerate(zip(recall, best_from_here, strict=True)):
            places = np.searchsorted(reached, self._recalls, side="left")
            mean_precision[index] = best[places[places < len(best)]].sum() / len(self._recalls)
        return mean_precision, recall[:, -1]


def bootstrap_intervals(
    annotations: AnnotationSource | GroundTruth,
    results: list[dict[str, Any]],
    images: Images = "all",
    sigmas: Sequence[float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """The 95 % interval of each of COCO's ten numbers over images drawn with replacement.

    Args:
        annotations: see `evaluate_keypoints`, and so for results, images, sigmas and errors.
        results: COCO keypoint results.
        images: those counted, and drawn from.
        sigmas: of OKS.
        resamples: draws.
        seed: of the draws.
    """
    metrics = WeightedMetrics(match_results(annotations, results, images, sigmas))
    return _intervals([metrics(weights) for weights in _draws(metrics.num_images, resamples, seed)])


def bootstrap_difference(
    annotations: AnnotationSource | GroundTruth,
    results: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    images: Images = "all",
    sigmas: Sequence[float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, Interval]]:
    """What the second of two results is better by, in each number, with its 95 % interval over the same drawn images.

    Args:
        annotations: see `bootstrap_intervals`, and so for the others.
        results: two results on the same images.
        images: "all" or image ids; "detected" may be others for each.
        sigmas: of OKS.
        resamples: draws.
        seed: of the draws.

    Raises:
        ValueError: also if images is "detected" and differ.
    """
    first, second = (WeightedMetrics(match_results(annotations, each, images, sigmas)) for each in results)
    if first.images != second.images:
        raise ValueError(
            f"the two results are on other images ({first.num_images} and {second.num_images} of them): compare on all"
        )

    def difference(weights: NDArray[np.int64]) -> dict[str, float]:
        before, after = first(weights), second(weights)
        return {name: after[name] - before[name] for name in METRIC_NAMES}

    whole = difference(np.ones(first.num_images, dtype=np.int64))
    intervals = _intervals([difference(weights) for weights in _draws(first.num_images, resamples, seed)])
    return {name: (whole[name], intervals[name]) for name in METRIC_NAMES}


def _draws(num_images: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """(resamples, I): how often each image was drawn."""
    if resamples < 1:
        raise ValueError(f"an interval needs at least one draw, got {resamples}")
    generator = np.random.default_rng(seed)
    if num_images < FEW_IMAGES:
        warnings.warn(
            f"intervals over {num_images} image{'s' * (num_images != 1)} are too narrow: a bootstrap needs at least "
            f"{FEW_IMAGES}, better hundreds",
            stacklevel=3,
        )
    drawn = generator.integers(num_images, size=(resamples, num_images))
    return np.stack([np.bincount(images, minlength=num_images) for images in drawn])


def _intervals(draws: list[dict[str, float]]) -> dict[str, Interval]:
    tail = 100 * (1 - LEVEL) / 2
    intervals = {}
    for name in METRIC_NAMES:
        values = np.array([numbers[name] for numbers in draws])
        defined = values[~np.isnan(values)]  # a draw may miss the few persons of a size
        low, high = np.percentile(defined, [tail, 100 - tail]) if len(defined) else (np.nan, np.nan)
        intervals[name] = Interval(float(low), float(high), 1 - len(defined) / len(values))
    return intervals


def _gather(of_images: Sequence[dict[str, Any] | None], num_thresholds: int) -> _SizeClass:
    """What COCOeval matched in each image, results of all images together by descending score."""
    empty = np.zeros((num_thresholds, 0), dtype=bool)
    image, scores, hits, misses = [np.zeros(0, np.int64)], [np.zeros(0)], [empty], [empty]
    persons = np.zeros(len(of_images), dtype=np.int64)
    for index, matched in enumerate(of_images):
        if matched is None:
            continue
        counted = ~np.asarray(matched["dtIgnore"], dtype=bool)
        taken = np.asarray(matched["dtMatches"]) != 0
        persons[index] = np.count_nonzero(np.asarray(matched["gtIgnore"]) == 0)
        image.append(np.full(len(matched["dtScores"]), index))
        scores.append(np.asarray(matched["dtScores"]))
        hits.append(taken & counted)
        misses.append(~taken & counted)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return _SizeClass(
        np.concatenate(image)[order],
        np.concatenate(hits, axis=1)[:, order],
        np.concatenate(misses, axis=1)[:, order],
        persons,
    )

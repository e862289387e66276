"""Curves behind the numbers: precision against recall, and scores against what they stand for."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.evaluation.coco_metrics import match_results
from posedy.evaluation.truth import AnnotationSource, KeypointTruth

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
    annotations: AnnotationSource | KeypointTruth, results: list[dict[str, Any]], sigmas: Sequence[float] | None = None
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

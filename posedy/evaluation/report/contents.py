"""What a report says, in numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco import GroundTruth
from posedy.evaluation.analysis import Calibration, Details, calibrate, measure_details
from posedy.evaluation.bootstrap import Interval, bootstrap_intervals
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.gallery import best_median_worst, shown_persons
from posedy.evaluation.matching import MatchedPersons
from posedy.skeleton import COCO17


@dataclass(frozen=True, eq=False)
class ReportContents:
    """All that a report shows.

    Attributes:
        title: what was measured.
        protocol: how, as pairs of a name and words.
        num_images: of the truth.
        num_results: poses that count, see `MatchedPersons`.
        metrics: COCO's ten numbers.
        intervals: of each of them, 95 % over images.
        details: what AP is made of.
        pose_calibration: pose scores against OKS.
        keypoint_calibration: keypoint scores against the similarity with the truth.
        persons: a picture (H, W, 3) RGB of the best, median and worst persons, if there were photos.
        missing_photos: what is to say about photos that cannot be read, "" if all can.
        training: rows of metrics.csv, if there is one.
    """

    title: str
    protocol: tuple[tuple[str, str], ...]
    num_images: int
    num_results: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    details: Details
    pose_calibration: Calibration
    keypoint_calibration: Calibration
    persons: NDArray[np.uint8] | None
    missing_photos: str
    training: Sequence[Mapping[str, str]]


def gather(
    title: str,
    protocol: Sequence[tuple[str, str]],
    truth: GroundTruth,
    results: list[dict[str, Any]],
    *,
    photo_of: Callable[[Any], Path] | None = None,
    training: Sequence[Mapping[str, str]] = (),
) -> ReportContents:
    """Measures results in every way that a report shows.

    Args:
        title: what was measured.
        protocol: how, as pairs of a name and words; sigmas are added if they are not COCO's.
        truth: the annotation file.
        results: COCO keypoint results on it.
        photo_of: the photo of an image id, for pictures; None leaves them out, and so do photos that cannot be read.
        training: rows of metrics.csv.

    Raises:
        ValueError: if truth and results do not fit together.
    """
    details = measure_details(truth, results)
    persons = details.errors.persons
    picture, missing_photos = _picture(persons, photo_of) if photo_of is not None else (None, "")
    return ReportContents(
        title=title,
        protocol=(*protocol, *_sigmas(persons)),
        num_images=len(truth.image_ids),
        num_results=int(persons.counted.sum()),
        metrics=evaluate_keypoints(truth, results),
        intervals=bootstrap_intervals(truth, results),
        details=details,
        pose_calibration=calibrate(*_poses(persons, results)),
        keypoint_calibration=calibrate(
            persons.keypoint_scores[persons.found][persons.labeled[persons.found]],
            persons.similarity[persons.found][persons.labeled[persons.found]],
        ),
        persons=picture,
        missing_photos=missing_photos,
        training=tuple(training),
    )


def _poses(persons: MatchedPersons, results: list[dict[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The score and the OKS of each pose that counts, 0 for one that was matched with nobody."""
    similarity = np.zeros(len(results))
    similarity[persons.results[persons.found]] = persons.oks[persons.found]
    scores = np.array([result["score"] for result in results], dtype=np.float64)
    return scores[persons.counted], similarity[persons.counted]


def _sigmas(persons: MatchedPersons) -> list[tuple[str, str]]:
    """What the protocol says about the sigmas: nothing if they are COCO's."""
    if np.array_equal(persons.sigmas, COCO17.sigmas):
        return []
    numbers = ", ".join(f"{sigma:g}" for sigma in persons.sigmas)
    return [("sigmas of OKS", f"{numbers} (in the order of the keypoints)")]


def _picture(persons: MatchedPersons, photo_of: Callable[[Any], Path]) -> tuple[NDArray[np.uint8] | None, str]:
    """The picture of the persons, None if no photo can be read, and what is to say about those that cannot."""
    errors: dict[Any, str] = {}
    picture = best_median_worst(persons, photo_of, lambda image_id, error: errors.setdefault(image_id, str(error)))
    if not errors:
        return picture, ""
    wanted = len(np.unique(persons.image_ids[np.concatenate(list(shown_persons(persons).values()))]))
    first = next(iter(errors.values()))
    if len(errors) == wanted:
        return None, f"No pictures: none of {wanted} photos can be read. The first: {first}"
    return picture, f"{len(errors)} of {wanted} photos cannot be read, their persons are on gray. The first: {first}"

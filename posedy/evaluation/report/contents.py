"""Metrics and images of a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco import GroundTruth
from posedy.evaluation.analysis import Calibration, DetailedMetrics, calibrate, compute_details
from posedy.evaluation.bootstrap import ConfidenceInterval, bootstrap_intervals
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.gallery import draw_gallery, select_gallery
from posedy.evaluation.matching import MatchedPersons
from posedy.skeleton import COCO17


@dataclass(frozen=True, eq=False)
class ReportContents:
    """The metrics, the gallery and the training log that a report shows.

    Attributes:
        title: name of the evaluated model or results.
        protocol: evaluation protocol, as pairs of name and value.
        num_images: number of images of the ground truth.
        num_results: number of counted results, see `MatchedPersons.counted`.
        metrics: the ten COCO metrics.
        intervals: 95 % confidence intervals of the metrics, by bootstrap over images.
        details: detailed metrics.
        pose_calibration: pose scores compared with OKS.
        keypoint_calibration: keypoint scores compared with keypoint similarity.
        gallery: (H, W, 3) RGB image of the best, median and worst persons, None without images.
        missing_images: message about unreadable images, "" if there are none.
        training_log: rows of metrics.csv, empty without a training run.
    """

    title: str
    protocol: tuple[tuple[str, str], ...]
    num_images: int
    num_results: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, ConfidenceInterval]
    details: DetailedMetrics
    pose_calibration: Calibration
    keypoint_calibration: Calibration
    gallery: NDArray[np.uint8] | None
    missing_images: str
    training_log: Sequence[Mapping[str, str]]


def collect_contents(
    title: str,
    protocol: Sequence[tuple[str, str]],
    gt: GroundTruth,
    results: list[dict[str, Any]],
    *,
    find_image: Callable[[Any], Path] | None = None,
    training_log: Sequence[Mapping[str, str]] = (),
) -> ReportContents:
    """Computes the metrics of a report and draws its images.

    Args:
        title: name of the evaluated model or results.
        protocol: evaluation protocol, as pairs of name and value; sigmas other than COCO's are added.
        gt: the ground truth.
        results: COCO keypoint results.
        find_image: returns the image file of an image id; None omits the gallery.
        training_log: rows of metrics.csv.

    Raises:
        ValueError: if ground truth and results do not belong together.
    """
    details = compute_details(gt, results)
    persons = details.errors.persons
    gallery, missing_images = _draw_gallery(persons, find_image) if find_image is not None else (None, "")
    return ReportContents(
        title=title,
        protocol=(*protocol, *_list_sigmas(persons)),
        num_images=len(gt.image_ids),
        num_results=int(persons.counted.sum()),
        metrics=evaluate_keypoints(gt, results),
        intervals=bootstrap_intervals(gt, results),
        details=details,
        pose_calibration=calibrate(*_collect_pose_scores(persons, results)),
        keypoint_calibration=calibrate(
            persons.keypoint_scores[persons.matched][persons.labeled[persons.matched]],
            persons.similarity[persons.matched][persons.labeled[persons.matched]],
        ),
        gallery=gallery,
        missing_images=missing_images,
        training_log=tuple(training_log),
    )


def _collect_pose_scores(
    persons: MatchedPersons, results: list[dict[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the score and the OKS of each counted result; the OKS of an unmatched result is 0."""
    oks = np.zeros(len(results))
    oks[persons.result_indices[persons.matched]] = persons.oks[persons.matched]
    scores = np.array([result["score"] for result in results], dtype=np.float64)
    return scores[persons.counted], oks[persons.counted]


def _list_sigmas(persons: MatchedPersons) -> list[tuple[str, str]]:
    """Returns the protocol's row about OKS sigmas, none for COCO's."""
    if np.array_equal(persons.sigmas, COCO17.sigmas):
        return []
    values = ", ".join(f"{sigma:g}" for sigma in persons.sigmas)
    return [("OKS sigmas", f"{values} (in keypoint order)")]


def _draw_gallery(persons: MatchedPersons, find_image: Callable[[Any], Path]) -> tuple[NDArray[np.uint8] | None, str]:
    """Draws the gallery, None if no image can be read; returns it with a message about unreadable images."""
    errors: dict[Any, str] = {}
    gallery = draw_gallery(persons, find_image, lambda image_id, error: errors.setdefault(image_id, str(error)))
    if not errors:
        return gallery, ""
    num_images = len(np.unique(persons.image_ids[np.concatenate(list(select_gallery(persons).values()))]))
    first = next(iter(errors.values()))
    if len(errors) == num_images:
        return None, f"Persons are not shown: none of {num_images} images can be read. First error: {first}"
    return (
        gallery,
        f"{len(errors)} of {num_images} images cannot be read; their persons are drawn on gray. First error: {first}",
    )

"""Likely causes of metrics that are too low: results in another form, areas of 0, images without predictions."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.box_form import LARGEST_FRACTION, LARGEST_PERCENT
from posedy.data.coco import GroundTruth
from posedy.evaluation.coco_eval import Images, evaluate_keypoints, evaluated_images, format_number
from posedy.geometry import box_iou
from posedy.skeleton import Skeleton

_LOW_AP50 = 0.05
_PLAUSIBLE_AP50 = 0.2
_MANY_IMAGES = 0.2
# nearly all of right results overlap a labeled person; of results for other images or in other pixels up to 0.21 do
_MIN_OVERLAP_SHARE = 0.25
_OVERLAP_IOU = 0.3
_MIN_EXTENT = 4.0  # pixels; the predictions of an untrained network are often one point
_Reorder = Callable[[NDArray[np.float64]], NDArray[np.float64]]
# keypoints (P, K, 3) from the numbers (P, 3 * K) of a results file in another order
_ORDERS: Mapping[str, _Reorder] = {
    "y, x, score of each keypoint": lambda rows: rows.reshape(len(rows), -1, 3)[..., [1, 0, 2]],
    "score, x, y of each keypoint": lambda rows: rows.reshape(len(rows), -1, 3)[..., [1, 2, 0]],
    "all x, then all y, then all scores": lambda rows: rows.reshape(len(rows), 3, -1).swapaxes(1, 2),
    "x, y of all keypoints, then all scores": lambda rows: np.concatenate(
        [
            rows[:, : rows.shape[1] // 3 * 2].reshape(len(rows), -1, 2),
            rows[:, rows.shape[1] // 3 * 2 :, None],
        ],
        axis=-1,
    ),
}


def warn_of_doubts(
    ground_truth: GroundTruth,
    results: list[dict[str, Any]],
    metrics: Mapping[str, float],
    name: str,
    images: Images = "all",
) -> None:
    """Warns of every likely cause of wrong metrics that `find_doubts` finds; `name` is the name of the results."""
    for doubt in find_doubts(ground_truth, results, metrics, images):
        warnings.warn(f"{name}: {doubt}", stacklevel=2)


def find_doubts(
    ground_truth: GroundTruth, results: list[dict[str, Any]], metrics: Mapping[str, float], images: Images = "all"
) -> list[str]:
    """Finds likely causes of wrong metrics.

    Args:
        ground_truth: the ground truth.
        results: the evaluated results, which are valid.
        metrics: what `evaluate_keypoints` returns for them.
        images: the evaluated images, as in `evaluate_keypoints`.

    Returns:
        A sentence for each cause; no sentence if there is none.
    """
    selected = set(evaluated_images(ground_truth, results, images))
    labeled = [person for person in ground_truth.labeled if person["image_id"] in selected]
    results = [result for result in results if result["category_id"] == ground_truth.category["id"]]
    doubts = []
    if tiny := sum(person["area"] < 1 for person in labeled):
        doubts.append(
            f"{tiny} of {len(labeled)} labeled persons have an area below 1 square pixel in {ground_truth.source}: OKS "
            "divides by it, so that hardly any prediction matches them, and APm and APl leave them out; write the area "
            "of the person's mask, or of the box"
        )
    if repeated := len(results) - len({(str(result["image_id"]), *result["keypoints"]) for result in results}):
        doubts.append(f"{repeated} of {len(results)} results repeat another one of the same image and count as wrong")
    with_persons = {person["image_id"] for person in labeled}
    missing = with_persons - {result["image_id"] for result in results}
    if len(missing) > _MANY_IMAGES * len(with_persons):
        doubts.append(
            f"{len(missing)} of {len(with_persons)} images with labeled persons have no prediction, and their persons "
            "count as missed; posedy eval --images detected evaluates only images with predictions"
        )
    if results and metrics["AP50"] < _LOW_AP50:
        doubts += _find_other_form(ground_truth, labeled, results, metrics, images)
    return doubts


def _find_other_form(
    ground_truth: GroundTruth,
    labeled: list[dict[str, Any]],
    results: list[dict[str, Any]],
    metrics: Mapping[str, float],
    images: Images,
) -> list[str]:
    """Finds the likely form of results that hardly match; at most one sentence."""
    rows = np.array([result["keypoints"] for result in results], dtype=np.float64)
    largest = np.abs(rows.reshape(len(rows), -1, 3)[..., :2]).max()
    extent = max((np.asarray(person["keypoints"], dtype=np.float64).max() for person in labeled), default=0)
    start = f"AP is {format_number(metrics['AP'])}"
    if largest <= LARGEST_FRACTION < extent:
        return [f"{start}, and no coordinate exceeds {LARGEST_FRACTION:g}: fractions of the image? Write pixels"]
    if largest <= LARGEST_PERCENT < extent / 2:
        return [f"{start}, and no coordinate exceeds 100: percent of the image? Write pixels"]
    with warnings.catch_warnings(action="ignore"):  # the evaluation has warned of sigmas and limbs
        flipped = Skeleton.from_coco_category(ground_truth.category).flip_permutation
    forms: dict[str, tuple[_Reorder, str]] = {
        f"keypoints as {order}": (reorder, "write x, y, score of each keypoint") for order, reorder in _ORDERS.items()
    } | {
        "left and right exchanged": (
            lambda rows: rows.reshape(len(rows), -1, 3)[:, flipped],
            "left is the person's left, which is on the right of the image if the person faces the camera",
        )
    }
    for form, (reorder, remedy) in forms.items():
        keypoints = reorder(rows).reshape(len(rows), -1).tolist()
        others = [{**result, "keypoints": row} for result, row in zip(results, keypoints, strict=True)]
        other = evaluate_keypoints(ground_truth, others, images)
        if other["AP50"] > _PLAUSIBLE_AP50:
            return [f"{start}; with {form} it would be {format_number(other['AP'])}: {remedy}"]
    share = _overlap_share(labeled, results)
    if share is not None and share < _MIN_OVERLAP_SHARE:
        some = f"only {share:.0%} of the predictions overlap" if share else "no prediction overlaps"
        return [
            f"{start}, and {some} any labeled person of its image: do image ids and coordinates "
            "(pixels of the image as stored) belong to these images?"
        ]
    return []


def _overlap_share(labeled: list[dict[str, Any]], results: list[dict[str, Any]]) -> float | None:
    """Returns the share of predictions whose extent overlaps that of a labeled person of the same image.

    It is over the predictions of images with labeled persons whose extent is not a point; None without any.
    """
    persons: dict[Any, list[NDArray[np.float64]]] = defaultdict(list)
    for person in labeled:
        points = np.asarray(person["keypoints"], dtype=np.float64).reshape(-1, 3)
        persons[person["image_id"]].append(_extent(points[points[:, 2] > 0]))
    overlaps = []
    for result in results:
        box = _extent(np.asarray(result["keypoints"], dtype=np.float64).reshape(-1, 3))
        if (box[2:] - box[:2]).max() >= _MIN_EXTENT:
            others = np.array(persons[result["image_id"]]).reshape(-1, 4)
            overlaps.append(box_iou(box[None], others).max(initial=0) >= _OVERLAP_IOU)
    return float(np.mean(overlaps)) if overlaps else None


def _extent(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the box x1, y1, x2, y2 of points (N, 3)."""
    return np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])

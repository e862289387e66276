"""Baseline predictions without a network: ground truth, ground truth with swapped sides, median pose."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.poses import to_coco_results
from posedy.skeleton import Skeleton


def ground_truth_results(annotations: AnnotationSource) -> list[dict[str, Any]]:
    """Returns every labeled person as a prediction; unlabeled keypoints lie at the box center with score 0.

    Args:
        annotations: a COCO annotation file or its content.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a COCO keypoint file or has no labeled person.
    """
    gt, keypoints, labeled, boxes = _labeled_persons(annotations)
    return _to_results(gt, _center_unlabeled(keypoints, labeled, boxes), labeled)


def swapped_sides_results(annotations: AnnotationSource, skeleton: Skeleton) -> list[dict[str, Any]]:
    """Returns the ground truth with left and right swapped, the predictions of a network that confuses all sides.

    Args:
        annotations: a COCO annotation file or its content.
        skeleton: defines the pairs of left and right keypoints.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a COCO keypoint file, has no labeled person or another number of keypoints.
    """
    gt, keypoints, labeled, boxes = _labeled_persons(annotations)
    if skeleton.num_keypoints != gt.num_keypoints:
        raise ValueError(
            f"{gt.source}: has {gt.num_keypoints} keypoints, but the skeleton has {skeleton.num_keypoints}"
        )
    permutation = list(skeleton.flip_permutation)
    keypoints, labeled = keypoints[:, permutation], labeled[:, permutation]
    return _to_results(gt, _center_unlabeled(keypoints, labeled, boxes), labeled)


def median_pose_results(annotations: AnnotationSource) -> list[dict[str, Any]]:
    """Returns the same pose for all labeled persons: the median position of each keypoint relative to the box.

    A keypoint without any label lies at the center of the box.

    Args:
        annotations: a COCO annotation file or its content.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a COCO keypoint file or has no labeled person.
    """
    gt, keypoints, labeled, boxes = _labeled_persons(annotations)
    corner, size = boxes[:, None, :2], boxes[:, None, 2:]
    # relative positions are undefined in a box without width or height
    usable = labeled & (size > 0).all(axis=-1)
    relative = np.full_like(keypoints, np.nan)
    np.divide(keypoints - corner, size, out=relative, where=usable[..., None])
    relative[:, ~usable.any(axis=0)] = 0.5
    median = np.nanmedian(relative, axis=0)
    return _to_results(gt, corner + median * size, np.ones_like(labeled))


def _labeled_persons(
    annotations: AnnotationSource,
) -> tuple[GroundTruth, NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Returns the ground truth and its labeled persons: keypoints (P, K, 2), labels (P, K), xywh boxes (P, 4)."""
    gt = GroundTruth.from_coco(annotations)
    if not gt.labeled:
        raise ValueError(f"{gt.source}: no annotation has labeled keypoints (num_keypoints > 0 and iscrowd 0)")
    triplets = np.array([person["keypoints"] for person in gt.labeled], dtype=np.float64)
    triplets = triplets.reshape(len(triplets), -1, 3)
    boxes = np.array([person["bbox"] for person in gt.labeled], dtype=np.float64)
    return gt, triplets[..., :2], triplets[..., 2] > 0, boxes


def _center_unlabeled(
    keypoints: NDArray[np.float64], labeled: NDArray[np.bool_], boxes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Moves unlabeled keypoints of (P, K, 2), which COCO puts at (0, 0), to the center of the xywh box."""
    center = boxes[:, :2] + boxes[:, 2:] / 2
    return np.where(labeled[..., None], keypoints, center[:, None])


def _to_results(
    gt: GroundTruth, keypoints: NDArray[np.float64], keypoint_scores: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Returns one COCO result with score 1 per labeled person, in their order."""
    category_id = gt.category["id"]
    results = []
    for index, person in enumerate(gt.labeled):
        pose = slice(index, index + 1)
        results += to_coco_results(person["image_id"], keypoints[pose], keypoint_scores[pose], [1.0], category_id)
    return results

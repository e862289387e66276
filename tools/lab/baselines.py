"""Predictions made without a network: what AP a data set gives to the truth, to one average pose, to mixed-up sides."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco import GroundTruth
from posedy.data.coco_file import AnnotationSource
from posedy.data.coco_results import to_coco_results
from posedy.skeleton import Skeleton


def truth_results(annotations: AnnotationSource) -> list[dict[str, Any]]:
    """Every labeled person as a prediction; keypoints without a label lie at the center of the box with score 0.

    Args:
        annotations: a COCO annotation file or its content.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a COCO keypoint file or has no labeled person.
    """
    truth, keypoints, labeled, boxes = _labeled_people(annotations)
    return _results(truth, _centered_where_unlabeled(keypoints, labeled, boxes), labeled)


def mirrored_truth_results(annotations: AnnotationSource, skeleton: Skeleton) -> list[dict[str, Any]]:
    """The truth with left and right exchanged: what a network scores that finds every keypoint but not its side.

    Args:
        annotations: a COCO annotation file or its content.
        skeleton: says which keypoints are left and right of each other.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a COCO keypoint file, has no labeled person or has another number of keypoints.
    """
    truth, keypoints, labeled, boxes = _labeled_people(annotations)
    if skeleton.num_keypoints != truth.num_keypoints:
        raise ValueError(
            f"{truth.source}: has {truth.num_keypoints} keypoints, but the skeleton has {skeleton.num_keypoints}"
        )
    exchanged = list(skeleton.flip_permutation)
    keypoints, labeled = keypoints[:, exchanged], labeled[:, exchanged]
    return _results(truth, _centered_where_unlabeled(keypoints, labeled, boxes), labeled)


def median_pose_results(annotations: AnnotationSource) -> list[dict[str, Any]]:
    """One pose for everybody: each keypoint's median place in the box, put into the box of every labeled person.

    A keypoint that is labeled nowhere lies at the center of the box.

    Args:
        annotations: a COCO annotation file or its content.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a COCO keypoint file or has no labeled person.
    """
    truth, keypoints, labeled, boxes = _labeled_people(annotations)
    corner, size = boxes[:, None, :2], boxes[:, None, 2:]
    # A box without width or height has no places in it.
    usable = labeled & (size > 0).all(axis=-1)
    relative = np.full_like(keypoints, np.nan)
    np.divide(keypoints - corner, size, out=relative, where=usable[..., None])
    relative[:, ~usable.any(axis=0)] = 0.5
    median = np.nanmedian(relative, axis=0)
    return _results(truth, corner + median * size, np.ones_like(labeled))


def _labeled_people(
    annotations: AnnotationSource,
) -> tuple[GroundTruth, NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """The truth, and of its P labeled persons: keypoints (P, K, 2), which are labeled (P, K), xywh boxes (P, 4)."""
    truth = GroundTruth.from_coco(annotations)
    if not truth.labeled:
        raise ValueError(f"{truth.source}: no annotation has labeled keypoints (num_keypoints > 0 and iscrowd 0)")
    triplets = np.array([person["keypoints"] for person in truth.labeled], dtype=np.float64)
    triplets = triplets.reshape(len(triplets), -1, 3)
    boxes = np.array([person["bbox"] for person in truth.labeled], dtype=np.float64)
    return truth, triplets[..., :2], triplets[..., 2] > 0, boxes


def _centered_where_unlabeled(
    keypoints: NDArray[np.float64], labeled: NDArray[np.bool_], boxes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Keypoints (P, K, 2) with those that have no label moved from COCO's (0, 0) to the center of the xywh box."""
    center = boxes[:, :2] + boxes[:, 2:] / 2
    return np.where(labeled[..., None], keypoints, center[:, None])


def _results(
    truth: GroundTruth, keypoints: NDArray[np.float64], keypoint_scores: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """One COCO result of score 1 for each labeled person, in their order."""
    category_id = truth.category["id"]
    results = []
    for index, person in enumerate(truth.labeled):
        pose = slice(index, index + 1)
        results += to_coco_results(person["image_id"], keypoints[pose], keypoint_scores[pose], [1.0], category_id)
    return results

"""Difficulty of a synthetic dataset: its statistics and the AP of baseline predictions."""

from pathlib import Path

from posedy.data.coco import GroundTruth
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.skeleton import COCO17
from tools.lab.baselines import median_pose_results, swapped_sides_results
from tools.lab.synthetic import DatasetStatistics


def measure_difficulty(statistics: DatasetStatistics, annotations: Path) -> dict[str, float]:
    """Returns the statistics of a split and the AP, with ground-truth boxes, of two baselines.

    "AP of the median pose" puts the same pose into every box; "AP of left and right exchanged" swaps the sides of the
    ground truth. A high AP of either would mean that the set can be solved without using the image.
    """
    gt = GroundTruth.from_coco(annotations)
    median = evaluate_keypoints(gt, median_pose_results(annotations))
    swapped = evaluate_keypoints(gt, swapped_sides_results(annotations, COCO17))
    return {
        "images": statistics.images,
        "persons": statistics.persons,
        "back views": statistics.back_view_fraction,
        "with a neighbor (IoU > 0.1)": statistics.neighbor_fraction,
        "occluded keypoints": statistics.occluded_fraction,
        "AP of the median pose": median["AP"],
        "AP of left and right exchanged": swapped["AP"],
    }

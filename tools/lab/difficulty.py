"""How hard a drawn data set is: what was drawn, and what one scores on it without looking."""

from pathlib import Path

from posedy.data.coco import GroundTruth
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.skeleton import COCO17
from tools.lab.baselines import median_pose_results, mirrored_truth_results
from tools.lab.synthetic import DrawnStatistics


def difficulty(drawn: DrawnStatistics, annotations: Path) -> dict[str, float]:
    """The counts of a split and the AP, with ground-truth boxes, of two guesses.

    "AP of the median pose" puts the same pose into every box, "AP of left and right exchanged" swaps the names of the
    true keypoints: a set on which either scores well would reward a network that does not look.
    """
    truth = GroundTruth.from_coco(annotations)
    median = evaluate_keypoints(truth, median_pose_results(annotations))
    mirrored = evaluate_keypoints(truth, mirrored_truth_results(annotations, COCO17))
    return {
        "photos": drawn.photos,
        "persons": drawn.persons,
        "back views": drawn.back_view_fraction,
        "with a neighbor (IoU > 0.1)": drawn.neighbor_fraction,
        "occluded keypoints": drawn.occluded_fraction,
        "AP of the median pose": median["AP"],
        "AP of left and right exchanged": mirrored["AP"],
    }

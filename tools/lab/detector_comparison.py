"""Comparison of weights of the person detector on the dev split: person AP with a paired bootstrap over images.

python -m tools.lab.detector_comparison tuned.safetensors --json FILE

compares them with the weights in the package. The labels of the dev split lack crowds and persons without keypoints.
With "unlabeled ignored", boxes on the persons of dev_unlabeled.json do not count, see `tools.lab.detector_accuracy`;
the list was made with the original weights and favors them. With "labels" they count as false.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import cv2
import torch

from posedy.data.coco import GroundTruth
from posedy.data.detections import boxes_to_results
from posedy.evaluation.bootstrap import RESAMPLES, WeightedMetrics, paired_difference
from posedy.evaluation.box_eval import FALSE_BOXES, evaluate_boxes, match_boxes
from posedy.files import check_writable, write_json_atomically
from posedy.inference.detect import ImageEntry, detect_images
from posedy.inference.detectors.nanodet import PersonDetector
from posedy.models.nanodet import PERSON_WEIGHTS
from tools.lab.detector_accuracy import UNLABELED, add_ignored_boxes
from tools.lab.entry import run_and_exit

METRICS = ("AP", "AP50", "AP75")
"""The compared metrics."""

_MIN_SCORE = 0.01

Results = list[dict[str, Any]]


def read_ground_truths(annotations: Path, unlabeled: Path = UNLABELED) -> dict[str, GroundTruth]:
    """Returns the ground truth of the dev split with and without the boxes to ignore, by name."""
    content = json.loads(annotations.read_bytes())
    ignoring = add_ignored_boxes(content, json.loads(unlabeled.read_bytes()))
    return {"unlabeled ignored": GroundTruth.from_coco(ignoring), "labels": GroundTruth.from_coco(content)}


def detect_persons(weights: Path, gt: GroundTruth, images: Path, size: int = 416) -> Results:
    """Detects persons in all images with weights of the detector: COCO results with scores from 0.01 on.

    Raises:
        OSError: if an image cannot be read.
    """
    detector = PersonDetector(size, threshold=_MIN_SCORE, device="cpu", runtime="torch", weights=weights)
    entries = [ImageEntry(images / name, name, image_id, apply_exif=False) for image_id, name in gt.file_names.items()]
    return boxes_to_results(detect_images(entries, detector, _fail, _MIN_SCORE), gt.category["id"])


def _fail(message: str) -> NoReturn:
    raise OSError(message)


def describe(gt: GroundTruth, results: Results) -> dict[str, float]:
    """Computes AP, AP50, AP75 and the recall at numbers of false boxes per image."""
    evaluation = evaluate_boxes(gt, results)
    return evaluation.metrics | {f"R@{count}": evaluation.recall_at(count) for count in FALSE_BOXES}


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the metrics of both weights and their differences."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.detector_comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help=".safetensors file of the weights to compare")
    parser.add_argument("--baseline", type=Path, default=PERSON_WEIGHTS, help="weights (default: those in the package)")
    parser.add_argument("--annotations", type=Path, default=Path("data/real/dev.json"), help="COCO keypoint file")
    parser.add_argument("--images", type=Path, default=Path("data/real/dev"), help="folder of the images")
    parser.add_argument("--sizes", type=int, nargs="+", default=[416, 320], help="sizes (default: 416 320)")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="bootstrap resamples (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    arguments = parser.parse_args(argv)
    if arguments.json is not None:
        check_writable(arguments.json)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    ground_truths = read_ground_truths(arguments.annotations)
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        any_gt = next(iter(ground_truths.values()))
        before, after = (
            detect_persons(weights, any_gt, arguments.images, size)
            for weights in (arguments.baseline, arguments.weights)
        )
        for name, gt in ground_truths.items():
            metrics = {"baseline": describe(gt, before), "weights": describe(gt, after)}
            matched = (WeightedMetrics(match_boxes(gt, results)) for results in (before, after))
            all_differences = paired_difference(*matched, resamples=arguments.resamples)
            differences = {metric: all_differences[metric] for metric in METRICS}
            print(f"\nsize {size}, {name}")
            for each, values in metrics.items():
                print(f"{each:10}" + "  ".join(f"{metric} {value:.3f}" for metric, value in values.items()))
            for metric, (difference, interval) in differences.items():
                print(f"{'':10}{metric} {difference:+.4f}, 95 %: {interval.low:+.4f} to {interval.high:+.4f}")
            intervals = {metric: [value, each.low, each.high] for metric, (value, each) in differences.items()}
            rows.append({"size": size, "ground_truth": name, **metrics, "differences": intervals})
    if arguments.json is not None:
        write_json_atomically(arguments.json, rows)


if __name__ == "__main__":
    run_and_exit(main, "detector_comparison")

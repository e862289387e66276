"""Accuracy and time of the person detector, for the choice of its input size, NMS and thresholds.

python -m tools.lab.detector_accuracy --annotations data/real/dev.json --images data/real/dev

The labels of the dev split lack crowds and persons without keypoints, whose boxes would count as false. Therefore
dev_unlabeled.json lists boxes on such persons, which are ignored like crowds: of all boxes with scores of at least 0.35
of the modes below and of size 512 that match no label, 873 without duplicates, those on a person that were checked by
eye and overlap no labeled person by an IoU of 0.25. 75 others are not on a person and 216 may be inaccurate boxes of
labeled persons; these are false. Boxes on unlabeled persons with lower scores remain false.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from posedy.data.coco import GroundTruth
from posedy.data.detections import ImageBoxes, boxes_to_results
from posedy.evaluation.box_eval import FALSE_BOXES, BoxEvaluation, evaluate_boxes
from posedy.files import check_writable, write_json_atomically
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.detectors import nanodet
from posedy.inference.detectors.nanodet import NMS_IOU, PersonDetector
from tools.lab.entry import run_and_exit

UNLABELED = Path(__file__).with_name("dev_unlabeled.json")
"""Boxes on unlabeled persons of the dev split: {image id: [[x, y, width, height], ...]}."""

_MIN_SCORE = 0.01
_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
_NMS_IOUS = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7)

Mode = tuple[str, int | tuple[int, int]]
MODES: tuple[Mode, ...] = (
    ("416, aspect ratio kept", 416),
    ("416x416, stretched", (416, 416)),
    ("320, aspect ratio kept", 320),
    ("320x320, stretched", (320, 320)),
)


class Outputs:
    """The decoded boxes of a set of images before NMS, for one mode of the detector, with the CPU times.

    Args:
        mode: name and `size` of the detector.
        gt: the ground truth with the file names of the images.
        images: their folder.
    """

    def __init__(self, mode: Mode, gt: GroundTruth, images: Path) -> None:
        self.name, size = mode
        detector = PersonDetector(size, threshold=_MIN_SCORE, device="cpu", nms_iou=1.0)
        self.gt = gt
        self.candidates: list[tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]]] = []
        self.times: list[tuple[float, float, float]] = []
        for image_id in tqdm(gt.image_ids, desc=self.name, unit="image", disable=None):
            image = rgb_to_bgr(read_image(images / gt.file_names[image_id]))
            input_size = detector.input_size(image)
            start = time.process_time()
            batch = nanodet.resize(image, input_size)[None]
            resized = time.process_time()
            [(boxes, scores)] = detector.candidates(batch)
            predicted = time.process_time()
            nanodet.suppress_duplicates(boxes, scores, NMS_IOU)
            self.times.append((resized - start, predicted - resized, time.process_time() - predicted))
            scaled = nanodet.scale_boxes(boxes, input_size, image.shape)
            self.candidates.append((scaled, scores, (image.shape[1], image.shape[0])))

    def results(self, nms_iou: float = NMS_IOU) -> list[dict[str, Any]]:
        """Returns the boxes after NMS as COCO results."""
        detected = []
        for image_id, (boxes, scores, size) in zip(self.gt.image_ids, self.candidates, strict=True):
            kept = nanodet.suppress_duplicates(boxes, scores, nms_iou)[:100]
            detected.append(ImageBoxes(self.gt.file_names[image_id], image_id, size, boxes[kept], scores[kept]))
        return boxes_to_results(detected, self.gt.category["id"])

    def evaluate(self, nms_iou: float = NMS_IOU) -> BoxEvaluation:
        """Evaluates the boxes after NMS."""
        return evaluate_boxes(self.gt, self.results(nms_iou))


def add_ignored_boxes(content: Mapping[str, Any], boxes: Mapping[str, list[list[float]]]) -> dict[str, Any]:
    """Returns the content of a COCO keypoint file with further boxes as crowds, which evaluations ignore.

    Args:
        content: the content, which is not changed.
        boxes: {image id: [[x, y, width, height], ...]}; those of images that are not in the file are left out.
    """
    category = next(category for category in content["categories"] if "keypoints" in category)
    listed = {str(image["id"]): image["id"] for image in content["images"]}
    first = 1 + max((annotation["id"] for annotation in content["annotations"]), default=0)
    pairs = [(listed[image_id], box) for image_id, rows in boxes.items() if image_id in listed for box in rows]
    fields = {"category_id": category["id"], "iscrowd": 1, "num_keypoints": 0}
    keypoints = [0] * 3 * len(category["keypoints"])
    crowds = [
        {"id": number, "image_id": image_id, "bbox": box, "area": box[2] * box[3], "keypoints": keypoints, **fields}
        for number, (image_id, box) in enumerate(pairs, start=first)
    ]
    return {**content, "annotations": [*content["annotations"], *crowds]}


def format_row(name: str, evaluation: BoxEvaluation) -> str:
    """Formats AP, AP50 and the recall at numbers of false boxes per image."""
    recalls = "".join(f"{evaluation.recall_at(count):8.3f}" for count in FALSE_BOXES)
    return f"{name:26}{evaluation.metrics['AP']:8.3f}{evaluation.metrics['AP50']:8.3f}{recalls}"


HEADER = f"{'':26}{'AP':>8}{'AP50':>8}" + "".join(f"{f'R@{count}':>8}" for count in FALSE_BOXES)


def format_thresholds(evaluation: BoxEvaluation) -> str:
    """Formats the metrics at the score thresholds."""
    lines = ["score   recall  precision  false boxes per image  images with false boxes"]
    for threshold in _THRESHOLDS:
        row = evaluation.at_threshold(threshold)
        lines.append(
            f"{threshold:5.2f}{row.recall:9.3f}{row.precision:11.3f}{row.false_boxes:23.2f}"
            f"{row.images_with_false_boxes:25.2f}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Prints the accuracy of the modes, of NMS thresholds and of score thresholds, and the CPU times."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.detector_accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--annotations", type=Path, default=Path("data/real/dev.json"), help="COCO keypoint file")
    parser.add_argument("--images", type=Path, default=Path("data/real/dev"), help="folder of the images")
    parser.add_argument("--unlabeled", type=Path, default=UNLABELED, help="boxes to ignore (default: %(default)s)")
    parser.add_argument("--modes", type=int, default=len(MODES), help="number of modes (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the boxes of the first mode as COCO results")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    arguments = parser.parse_args(argv)
    for path in (arguments.out, arguments.json):
        if path is not None:
            check_writable(path)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    content = json.loads(arguments.annotations.read_bytes())
    gt = GroundTruth.from_coco(add_ignored_boxes(content, json.loads(arguments.unlabeled.read_bytes())))
    outputs = [Outputs(mode, gt, arguments.images) for mode in MODES[: arguments.modes]]
    first = outputs[0]
    print(
        f"{len(gt.image_ids)} images, {len(gt.labeled)} persons with labeled keypoints; R@1, R@2, R@5: their recall at "
        f"1, 2 and 5 false boxes per image, IoU 0.5; NMS {NMS_IOU}\n\n{HEADER}"
    )
    by_mode = {each.name: each.evaluate() for each in outputs}
    for name, evaluation in by_mode.items():
        print(format_row(name, evaluation))
    print(f"\nNMS, {first.name}\n{HEADER}")
    by_nms = {iou: first.evaluate(iou) for iou in _NMS_IOUS}
    for iou, evaluation in by_nms.items():
        print(format_row(f"IoU {iou}", evaluation))
    for name, evaluation in by_mode.items():
        print(f"\nScore thresholds, {name}\n{format_thresholds(evaluation)}")
    print("\nCPU time per image on one thread in milliseconds, medians: resize, network, decode with NMS")
    for each in outputs:
        print(f"{each.name:26}" + "".join(f"{1e3 * value:8.1f}" for value in np.median(each.times, axis=0)))
    if arguments.out is not None:
        write_json_atomically(arguments.out, first.results())
    if arguments.json is not None:
        rows = {
            name: {
                **evaluation.metrics,
                **{f"recall_at_{count}": evaluation.recall_at(count) for count in FALSE_BOXES},
                "thresholds": [asdict(evaluation.at_threshold(threshold)) for threshold in _THRESHOLDS],
            }
            for name, evaluation in by_mode.items()
        }
        write_json_atomically(arguments.json, rows)


if __name__ == "__main__":
    run_and_exit(main, "detector_accuracy")

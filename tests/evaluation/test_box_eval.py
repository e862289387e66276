"""Metrics of detected boxes against loops, with crowds and persons without keypoints."""

import math
from typing import Any

import numpy as np
import pytest

from posedy.evaluation.box_eval import evaluate_boxes
from posedy.geometry import box_iou, xywh_to_xyxy

Record = dict[str, Any]


def person(number: int, image_id: int, bbox: list[float], keypoints: int = 1, crowd: int = 0) -> Record:
    record = {"id": number, "image_id": image_id, "category_id": 1, "bbox": bbox, "area": bbox[2] * bbox[3]}
    return record | {"iscrowd": crowd, "keypoints": [1, 1, 2] * keypoints + [0, 0, 0] * (1 - keypoints)}


def make_content(annotations: list[Record], images: int) -> Record:
    category = {"id": 1, "name": "person", "keypoints": ["nose"], "skeleton": []}
    listed = [{"id": number, "file_name": f"{number}.jpg"} for number in range(images)]
    return {"images": listed, "annotations": annotations, "categories": [category]}


def result(image_id: int, bbox: list[float], score: float) -> Record:
    return {"image_id": image_id, "category_id": 1, "bbox": bbox, "score": score}


@pytest.fixture(scope="module")
def random_set() -> tuple[Record, list[Record]]:
    """Twenty images with persons, of whom some have no keypoints, and boxes near and far from them."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image_id in range(20):
        for _ in range(int(rng.integers(0, 5))):
            box = [*rng.uniform(0, 300, 2), *rng.uniform(20, 120, 2)]
            annotations.append(person(len(annotations) + 1, image_id, box, keypoints=int(rng.random() < 0.7)))
            for _ in range(int(rng.integers(0, 3))):
                moved = np.array(box) + rng.normal(0, 0.12, 4) * [box[2], box[3], box[2], box[3]]
                results.append(result(image_id, np.maximum(moved, 1).tolist(), float(rng.random())))
        results.append(result(image_id, [*rng.uniform(0, 300, 2), 30.0, 60.0], float(rng.random())))
    return make_content(annotations, 20), results


def match_with_loops(content: Record, results: list[Record]) -> list[tuple[float, bool, bool, int]]:
    """Matches each box to the free person of the highest IoU: (score, is false, is labeled, image)."""
    rows, free = [], {record["id"]: record for record in content["annotations"]}
    for box in sorted(results, key=lambda box: -box["score"]):
        best, best_iou = None, 0.5
        for number, record in free.items():
            iou = box_iou(xywh_to_xyxy([box["bbox"]]), xywh_to_xyxy([record["bbox"]]))[0, 0]
            if record["image_id"] == box["image_id"] and iou >= best_iou:
                best, best_iou = number, iou
        labeled = best is not None and free.pop(best)["keypoints"][2] > 0
        rows.append((box["score"], best is None, labeled, box["image_id"]))
    return rows


def test_metrics_equal_loops(random_set: tuple[Record, list[Record]]) -> None:
    content, results = random_set
    evaluation = evaluate_boxes(content, results)
    rows = match_with_loops(content, results)
    labeled = sum(record["keypoints"][2] > 0 for record in content["annotations"])
    assert (evaluation.num_images, evaluation.num_labeled) == (20, labeled)
    assert 0 < sum(is_false for _, is_false, _, _ in rows) < len(rows)
    for threshold in (0.0, 0.3, 0.6):
        kept = [row for row in rows if row[0] >= threshold]
        false_images = [image for _, is_false, _, image in kept if is_false]
        metrics = evaluation.at_threshold(threshold)
        assert metrics.recall == pytest.approx(sum(row[2] for row in kept) / labeled)
        assert metrics.precision == pytest.approx(1 - len(false_images) / len(kept))
        assert metrics.false_boxes == pytest.approx(len(false_images) / 20)
        assert metrics.images_with_false_boxes == pytest.approx(len(set(false_images)) / 20)
    for count in (0.2, 0.5, 100):
        reached, false = 0, 0
        for _, is_false, is_labeled, _ in rows:
            false += is_false
            if false > count * 20:
                break
            reached += is_labeled
        assert evaluation.recall_at(count) == pytest.approx(reached / labeled)


def test_ground_truth_as_boxes_is_perfect(random_set: tuple[Record, list[Record]]) -> None:
    content, _ = random_set
    boxes = [result(record["image_id"], record["bbox"], 1.0) for record in content["annotations"]]
    evaluation = evaluate_boxes(content, boxes)
    assert list(evaluation.metrics.values()) == pytest.approx([1, 1, 1])
    assert evaluation.recall_at(0) == 1
    assert not evaluation.is_false.any()


def test_boxes_in_crowds_are_neither_true_nor_false() -> None:
    content = make_content([person(1, 0, [0, 0, 50, 50]), person(2, 0, [100, 0, 200, 100], crowd=1)], 2)
    boxes = [result(0, [0, 0, 50, 50], 0.5), result(0, [120, 10, 20, 40], 0.9), result(1, [0, 0, 9, 9], 0.4)]
    evaluation = evaluate_boxes(content, boxes)
    assert evaluation.scores.tolist() == [0.5, 0.4]
    assert evaluation.is_false.tolist() == [False, True]
    assert evaluation.metrics["AP"] == pytest.approx(1)


def test_no_boxes() -> None:
    evaluation = evaluate_boxes(make_content([person(1, 0, [0, 0, 50, 50])], 1), [])
    assert evaluation.metrics["AP"] == evaluation.recall_at(5) == 0
    assert math.isnan(evaluation.at_threshold(0.5).precision)


def test_invalid_inputs_are_rejected() -> None:
    content = make_content([person(1, 0, [0, 0, 50, 50])], 1)
    with pytest.raises(ValueError, match="7"):
        evaluate_boxes(content, [result(7, [0, 0, 1, 1], 1.0)])
    with pytest.raises(ValueError, match=r"result 1.*bbox"):
        evaluate_boxes(content, [result(0, [0, 0, 1, 1], 1.0), {"image_id": 0, "category_id": 1, "score": 1.0}])
    with pytest.raises(ValueError, match="keypoints"):
        evaluate_boxes(make_content([person(1, 0, [0, 0, 50, 50], keypoints=0)], 1), [])

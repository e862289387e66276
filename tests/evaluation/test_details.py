import json

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation.analysis import compute_details, details_to_json, format_details
from posedy.evaluation.coco_eval import evaluate_keypoints


@pytest.fixture
def details(annotations, noised_results):
    return compute_details(GroundTruth.from_coco(annotations), noised_results)


def test_json_contains_all_details(details, annotations, noised_results):
    record = json.loads(json.dumps(details_to_json(details), allow_nan=False))
    assert list(record) == ["keypoints", "errors", "parts", "recalls", "precision"]
    assert len(record["recalls"]) == len(record["precision"]["0.50"]) == 101
    metrics = evaluate_keypoints(annotations, noised_results)
    assert np.mean(record["precision"]["0.50"]) == pytest.approx(metrics["AP50"])
    assert record["parts"]["size"]["medium"]["ar"] == pytest.approx(metrics["ARm"])
    assert record["errors"]["AP_costs"]["miss"] == details.errors.ap_costs["miss"]
    wrist = record["keypoints"]["left_wrist"]
    assert wrist["good"] + wrist["jitter"] + wrist["inversion"] + wrist["swap"] + wrist["miss"] <= wrist["labeled"]
    assert 0 <= wrist["PCK@0.05"] <= wrist["PCK@0.1"] <= wrist["PCK@0.2"] <= 1


def test_text_has_a_line_for_each_keypoint_and_subset(details):
    lines = format_details(details).splitlines()
    for name in ("nose", "right_ankle", "medium", "over 0.3"):
        assert sum(name in line for line in lines) == 1
    assert any(f"miss {details.errors.ap_costs['miss']:+.3f}" in line for line in lines)


def test_results_of_other_categories_are_ignored(annotations, noised_results):
    other = {"id": 2, "name": "dog"}
    content = {**annotations, "categories": [*annotations["categories"], other]}
    image = noised_results[0]["image_id"]
    results = [
        {**result, "category_id": 2 if result["image_id"] == image else result["category_id"]}
        for result in noised_results
    ]
    details = compute_details(GroundTruth.from_coco(content), results)
    fewer = [result for result in noised_results if result["image_id"] != image]
    expected = compute_details(GroundTruth.from_coco(annotations), fewer)
    assert format_details(details) == format_details(expected)

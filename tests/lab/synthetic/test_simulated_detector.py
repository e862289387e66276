"""The simulated detector."""

import numpy as np

from posedy.geometry import box_iou, xywh_to_xyxy
from tools.lab.synthetic.annotation import SyntheticImage
from tools.lab.synthetic.simulated_detector import simulate_detections


def test_most_people_are_detected_with_some_false_positives() -> None:
    boxes = [[20, 30, 40, 100], [120, 10, 60, 150], [220, 60, 30, 60]]
    records = [{"bbox": box, "iscrowd": 0} for box in boxes] + [{"bbox": [0, 0, 300, 30], "iscrowd": 1}]
    image = SyntheticImage(np.zeros((240, 320, 3), np.uint8), records, [False] * 4)
    rng = np.random.default_rng(0)
    missed, false, scores_true, scores_false = 0, 0, [], []
    for _ in range(200):
        detections = simulate_detections(rng, image)
        detected_boxes = xywh_to_xyxy(np.array([record["bbox"] for record in detections]).reshape(-1, 4))
        assert (detected_boxes >= 0).all()
        assert (detected_boxes <= [320, 240, 320, 240]).all()
        overlaps = box_iou(detected_boxes, xywh_to_xyxy(boxes))
        missed += np.count_nonzero(overlaps.max(axis=0, initial=0) < 0.5)
        is_false = overlaps.max(axis=1) < 0.3
        false += np.count_nonzero(is_false)
        scores = np.array([record["score"] for record in detections])
        scores_false += scores[is_false].tolist()
        scores_true += scores[~is_false].tolist()
    assert 0.04 < missed / 600 < 0.13
    assert 0.15 < false / 200 < 0.5
    assert np.mean(scores_true) > 0.6 > 0.3 > np.mean(scores_false)
    assert all(0 <= score <= 1 for score in scores_true + scores_false)

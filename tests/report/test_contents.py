import pytest

from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.report.contents import gather


def test_all_numbers_are_of_the_same_results(truth, noised):
    results = noised(6)
    contents = gather("a network", [("boxes", "gt")], truth, results)
    expected = evaluate_keypoints(truth, results)
    assert contents.metrics == pytest.approx(expected, nan_ok=True)
    assert (
        contents.details.errors.ap == contents.metrics["AP"] == pytest.approx(contents.details.curves.precision.mean())
    )
    assert contents.intervals["AP"].low <= contents.metrics["AP"] <= contents.intervals["AP"].high
    assert contents.num_images == 8
    assert contents.num_results == contents.pose_calibration.count.sum() == len(results)
    assert contents.keypoint_calibration.count.sum() == contents.details.keypoints.labeled.sum()  # everybody was found
    assert contents.persons is None


def test_poses_of_nobody_count_as_0(truth, noised):
    results = noised(0)
    stray = {**results[0], "keypoints": [5000.0, 5000.0, 0.5] * 17, "score": 0.0}
    contents = gather("a network", [], truth, [stray, *results])
    assert contents.pose_calibration.outcome[0] < 1
    assert contents.pose_calibration.outcome[1:] == pytest.approx(1)

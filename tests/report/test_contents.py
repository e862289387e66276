import pytest

from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.evaluation.report.contents import collect_contents


def test_contents_are_consistent_with_the_metrics(gt, make_noisy_results):
    results = make_noisy_results(6)
    contents = collect_contents("a network", [("boxes", "gt")], gt, results)
    expected = evaluate_keypoints(gt, results)
    assert contents.metrics == pytest.approx(expected, nan_ok=True)
    assert (
        contents.details.errors.ap == contents.metrics["AP"] == pytest.approx(contents.details.curves.precision.mean())
    )
    assert contents.intervals["AP"].low <= contents.metrics["AP"] <= contents.intervals["AP"].high
    assert contents.num_images == 8
    assert contents.num_results == contents.pose_calibration.count.sum() == len(results)
    assert contents.keypoint_calibration.count.sum() == contents.details.keypoints.labeled.sum()  # all are matched
    assert contents.gallery is None


def test_unmatched_poses_have_accuracy_0(gt, make_noisy_results):
    results = make_noisy_results(0)
    stray = {**results[0], "keypoints": [5000.0, 5000.0, 0.5] * 17, "score": 0.0}
    contents = collect_contents("a network", [], gt, [stray, *results])
    assert contents.pose_calibration.accuracy[0] < 1
    assert contents.pose_calibration.accuracy[1:] == pytest.approx(1)

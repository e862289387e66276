"""The tracking benchmark; the evaluation is that of the package trackers, checked with an example counted by hand."""

import sys

import numpy as np
import pytest

from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.tracking import benchmark_trackers, format_trackers, track_metrics
from tools.lab.benchmarks.tracking_inputs import (
    SIZE,
    SimulatedPoses,
    background_names,
    generate_kind,
    record,
    simulate_detections,
)
from tools.lab.synthetic.video import SyntheticFrame

A, B, EMPTY = [0.0, 0.0, 10.0, 10.0], [100.0, 0.0, 110.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def people(*lefts: float) -> SyntheticFrame:
    boxes = np.array([[left, 50.0, left + 40, 150.0] for left in lefts])
    keypoints = boxes[:, None, :2] + np.random.default_rng(0).uniform(5, 35, (17, 2))
    return SyntheticFrame(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), keypoints, boxes)


def test_metrics_of_an_example_counted_by_hand() -> None:
    """Person A is tracked as 1, 1, 3, 3; B as 2, none, 2, 2; the last frame has a false positive.

    7 true positives, 1 false negative, 1 false positive, 1 id switch. IDF1: A with either of its tracks (2 frames), B
    with 2 (3 frames) are 5 of 8 and 8. HOTA: detection accuracy 7 / 9; association of the 7 true positives: 4 times
    2 / 4 and 3 times 3 / 4.
    """
    pytest.importorskip("trackers", reason="the evaluation is that of the package trackers")
    tracked = [([1, 2], [A, B]), ([1], [A]), ([3, 2], [A, B]), ([3, 2, 4], [A, B, EMPTY])]
    metrics = track_metrics(
        [np.array([0, 1])] * 4,
        [np.array([A, B])] * 4,
        [np.array(ids) for ids, _ in tracked],
        [np.array(boxes) for _, boxes in tracked],
    )
    association = (4 * 2 / 4 + 3 * 3 / 4) / 7
    expected = {"MOTA": 5 / 8, "IDSW": 1, "IDF1": 5 / 8, "AssA": association, "HOTA": (7 / 9 * association) ** 0.5}
    assert metrics == pytest.approx(expected, abs=1e-6)


def test_detections_are_jittered_boxes_of_visible_people() -> None:
    apart, occluded, outside = people(100, 400), people(100, 104), people(-35, 400)
    counts = dict.fromkeys(("apart", "occluded", "outside"), 0)
    for number in range(200):
        for name, frame in (("apart", apart), ("occluded", occluded), ("outside", outside)):
            detections = simulate_detections(frame, (0, number))
            counts[name] += int((detections.scores > 0.5).sum())
            assert (detections.boxes >= 0).all()
            assert (detections.boxes <= [*SIZE, *SIZE]).all()
    assert counts["apart"] == pytest.approx(400 * 0.92, rel=0.05)
    assert counts["occluded"] == pytest.approx(200 * 0.92, rel=0.1)
    assert counts["outside"] == pytest.approx(200 * 0.92, rel=0.1)
    again = simulate_detections(apart, (0, 7))
    np.testing.assert_array_equal(again.boxes, simulate_detections(apart, (0, 7)).boxes)


def test_simulated_pose_in_the_box_of_an_occluded_person_is_that_of_the_person_in_front() -> None:
    estimator = SimulatedPoses(0)
    estimator.frame = people(100, 110, 400)
    boxes = np.concatenate([estimator.frame.boxes, [[550, 200, 600, 300]]])
    poses = estimator(estimator.frame.image, boxes, np.ones(4))
    errors = np.median(np.linalg.norm(poses.keypoints[:, None] - estimator.frame.keypoints, axis=-1), axis=-1)
    assert errors.argmin(axis=1)[:3].tolist() == [1, 1, 2]
    assert errors.min(axis=1)[:3].max() < 5
    assert poses.scores[3].max() < 0.5  # no person


def test_background_images_have_few_persons() -> None:
    assert 1 < len(background_names()) < 20
    assert all(name.is_file() for name in background_names())


def test_inputs_of_all_trackers_are_of_the_same_frames() -> None:
    recording = record(None, generate_kind("image backgrounds", 0, 11), 0)
    assert {len(frames) for frames in recording.inputs.values()} == {11} == {len(recording.gt_ids)}
    detections, poses = recording.inputs["detections"], recording.inputs["poses"]
    for given, used in zip(detections, poses, strict=True):
        expected = given.boxes[given.scores >= 0.4]
        np.testing.assert_array_equal(np.sort(used.boxes, axis=0), np.sort(expected, axis=0))
    first, second = recording.inputs["tracked 10"][:2]
    assert len(first.boxes) == len(second.boxes) == (detections[0].scores >= 0.4).sum()


def test_trackers_are_compared() -> None:
    pytest.importorskip("trackers", reason="compares its trackers")
    report = benchmark_trackers(None, 12, [0], {"SORT": {"minimum_consecutive_frames": 1}}, kinds=["fixed camera"])
    (video,) = report["videos"]
    assert len(video["trackers"]) == 3 + 2 * 5
    for row in video["trackers"].values():
        assert 0 < row["HOTA"] <= 1
        assert row["ms"] > 0
    assert "| SORT, tuned; detector at every frame |" in format_trackers(report)
    with pytest.raises(ValueError, match="--frames"):
        main(["tracking", "--frames", "0"])


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ImportError, match="pip install trackers"):
        main(["tracking", "--frames", "1", "--seed", "0"])

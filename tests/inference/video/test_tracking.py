import itertools
import json

import cv2
import numpy as np
import pytest

from posedy.inference.detectors import FullImageDetector
from posedy.inference.estimator import PoseEstimator
from posedy.inference.smoothing import OneEuroFilter
from posedy.inference.track_table import TrackTable
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import FrameSource
from posedy.poses import Poses
from posedy.skeleton import COCO17


@pytest.fixture
def estimator(dot_net) -> PoseEstimator:
    return PoseEstimator(dot_net, device="cpu", flip=False)


def crossing(step: int) -> list[tuple[float, float]]:
    return [(20 + 3.0 * step, 30.0), (230 - 3.0 * step, 110.0)]


def test_persons_are_tracked_between_detections(estimator, detector, draw_frame, dots_at) -> None:
    tracker = PoseTracker(estimator, detector, detect_every=100, smooth=False)
    for step in range(30):
        poses = tracker(draw_frame(crossing(step)), step / 30)
        assert sorted(poses.track_ids.tolist()) == [1, 2]
        for track_id, corner in enumerate(crossing(step), start=1):
            keypoints = poses.keypoints[poses.track_ids.tolist().index(track_id)]
            assert np.abs(keypoints - dots_at(*corner)).max() < 3
    assert detector.calls == 1


def test_detector_runs_at_every_nth_frame(estimator, detector, draw_frame) -> None:
    tracker = PoseTracker(estimator, detector, detect_every=4)
    for step in range(9):
        tracker(draw_frame(crossing(step)), step / 30)
    assert detector.calls == 3


def test_tracker_uses_detector_of_estimator_by_default(dot_net, detector, draw_frame) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", flip=False, detector=detector)
    assert PoseTracker(estimator)(draw_frame(crossing(0)), 0.0).track_ids.tolist() == [1, 2]
    assert detector.calls == 1


def test_tracker_without_any_detector_is_an_error(dot_net, draw_frame) -> None:
    tracker = PoseTracker(PoseEstimator(dot_net, device="cpu", flip=False, detector=None))
    with pytest.raises(ValueError, match="detector"):
        tracker(draw_frame(crossing(0)), 0.0)


@pytest.mark.parametrize("smooth", [False, True])
def test_reset_equals_a_new_tracker(smooth: bool, estimator, detector, draw_frame) -> None:
    """Also with a lost person, new persons in the place of the old ones, and a time that starts over."""
    tracker = PoseTracker(estimator, detector, detect_every=1000, smooth=smooth)
    for step in range(3):
        tracker(draw_frame(crossing(step)), 100 + step / 30)
    tracker(draw_frame([(130, 60)]), 101.0)
    tracker.reset()
    new = PoseTracker(estimator, detector, detect_every=1000, smooth=smooth)
    for step in range(4):
        frame = draw_frame(crossing(step)[::-1])
        calls = detector.calls
        poses = tracker(frame, step / 30)
        assert detector.calls - calls == (step == 0)
        expected = new(frame, step / 30)
        assert poses.track_ids.tolist() == expected.track_ids.tolist() == [1, 2]
        np.testing.assert_array_equal(poses.keypoints, expected.keypoints)
        np.testing.assert_array_equal(poses.boxes, expected.boxes)


@pytest.mark.parametrize("smooth", [False, True])
def test_time_that_does_not_advance_is_rejected_and_changes_nothing(
    smooth: bool, estimator, detector, draw_frame
) -> None:
    tracker = PoseTracker(estimator, detector, detect_every=2, smooth=smooth)
    expected = PoseTracker(estimator, detector, detect_every=2, smooth=smooth)
    for step in range(4):
        poses = tracker(draw_frame(crossing(step)), 1.0 + step)
        np.testing.assert_array_equal(poses.keypoints, expected(draw_frame(crossing(step)), 1.0 + step).keypoints)
        assert poses.track_ids.tolist() == [1, 2]
        calls = detector.calls
        for time in (1.0 + step, 0.5, float("nan")):
            with pytest.raises(ValueError, match=rf"{time} s"):
                tracker(draw_frame([(130, 60)]), time)
        assert detector.calls == calls
    tracker.reset()
    assert len(tracker(draw_frame(crossing(0)), 0.5)) == 2


def test_lost_person_is_detected_again(estimator, detector, draw_frame) -> None:
    tracker = PoseTracker(estimator, detector, detect_every=1000)
    tracker(draw_frame([(20, 30)]), 0.0)
    tracker(draw_frame([(200, 100)]), 0.1)  # outside the tracked box
    poses = tracker(draw_frame([(200, 100)]), 0.2)
    assert detector.calls == 2
    assert len(poses) == 1
    tracker(draw_frame([]), 0.3)
    assert len(tracker(draw_frame([]), 0.4)) == 0


def test_duplicate_poses_are_suppressed(estimator, detector, draw_frame) -> None:
    class DuplicateDetector:
        def detect(self, image):
            boxes, scores = detector.detect(image)
            return np.concatenate([boxes, boxes + 2]), np.concatenate([scores, scores / 2])

    poses = PoseTracker(estimator, DuplicateDetector())(draw_frame([(20, 30)]), 0.0)
    assert len(poses) == 1
    assert poses.box_scores.tolist() == [1]


def test_boxes_below_box_threshold_are_ignored(estimator, draw_frame) -> None:
    class LowScoreDetector:
        def detect(self, image):
            return [[10, 10, 60, 90], [200, 100, 240, 160]], [0.2, 0.31]

    tracker = PoseTracker(estimator, LowScoreDetector(), box_threshold=0.3)
    assert tracker(draw_frame([(20, 30)]), 0.0).boxes.tolist() == [[200, 100, 240, 160]]
    with pytest.raises(ValueError, match="nan"):
        PoseTracker(estimator, LowScoreDetector(), box_threshold=float("nan"))


def test_a_lower_threshold_than_that_of_the_detector_names_the_remedy(dot_net) -> None:
    with pytest.raises(ValueError, match=r"PoseEstimator\(box_threshold="):
        PoseTracker(PoseEstimator(dot_net, "cpu"), box_threshold=0.1)
    PoseTracker(PoseEstimator(dot_net, "cpu", box_threshold=0.1), box_threshold=0.1)


def test_smoothing_reduces_jitter_and_records_have_ids(estimator, detector, draw_frame) -> None:
    jitter = {}
    for smooth in (False, True):
        tracker = PoseTracker(estimator, detector, detect_every=1, smooth=smooth)
        corners = [(60 + x, 40 + y) for x, y in np.random.default_rng(0).normal(0, 1, (40, 2))]
        keypoints = [tracker(draw_frame([corner]), step / 30).keypoints[0] for step, corner in enumerate(corners)]
        jitter[smooth] = np.diff(keypoints, axis=0).std()
    assert jitter[True] < jitter[False] / 2
    records = tracker(draw_frame([(60, 40)]), 9.0).to_records()
    assert json.loads(json.dumps(records))[0]["id"] >= 1
    assert set(records[0]["keypoints"]) == {"red", "green", "blue"}


def test_detect_every_zero_is_rejected(estimator, detector) -> None:
    with pytest.raises(ValueError, match="detect_every"):
        PoseTracker(estimator, detector, detect_every=0)


FRAME = np.zeros((200, 320, 3), np.uint8)
PERSON = [100.0, 50.0, 180.0, 190.0]


class ConstantDetector:
    """Detects one person in a constant box, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, image: np.ndarray) -> tuple[list, list]:
        self.calls += 1
        return [PERSON], [0.9]


class PartialPersonEstimator:
    """Estimates a person at `left` whose first `num_confident` keypoints are confident inside the box."""

    skeleton = COCO17

    def __init__(self) -> None:
        self.left, self.num_confident = 100.0, 7
        self.boxes: list[np.ndarray] = []

    def __call__(self, image: np.ndarray, boxes: np.ndarray, box_scores: np.ndarray) -> Poses:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        self.boxes.append(boxes)
        x = self.left + np.linspace(20, 60, 17)
        y = 65 + np.linspace(0, 100, 17)
        keypoints = np.broadcast_to(np.stack([x, y], axis=-1).astype(np.float32), (len(boxes), 17, 2))
        inside = (keypoints > boxes[:, None, :2]).all(axis=-1) & (keypoints < boxes[:, None, 2:]).all(axis=-1)
        confident = inside & (np.arange(17) < self.num_confident)
        scores = np.where(confident, 0.9, 0.05).astype(np.float32)
        return Poses(keypoints, scores, boxes, np.asarray(box_scores, np.float32), COCO17)


def test_person_with_seven_confident_keypoints_is_tracked() -> None:
    estimator, detector = PartialPersonEstimator(), ConstantDetector()
    tracker = PoseTracker(estimator, detector, detect_every=10)  # type: ignore[arg-type]
    ids = {tuple(tracker(FRAME, step / 30).track_ids.tolist()) for step in range(60)}
    assert ids == {(1,)}
    assert detector.calls == 6


def test_box_of_partly_visible_person_moves_and_keeps_its_size() -> None:
    estimator, detector = PartialPersonEstimator(), ConstantDetector()
    tracker = PoseTracker(estimator, detector, detect_every=1000)  # type: ignore[arg-type]
    for step in range(40):
        tracker(FRAME, step / 30)
        estimator.left += 3
    np.testing.assert_allclose(estimator.boxes[-1][0], np.add(PERSON, [38 * 3, 0, 38 * 3, 0]), atol=1e-3)
    estimator.num_confident = 17  # the whole person is visible inside the box
    assert (tracker(FRAME, 2.0).scores > 0.2).all()
    assert detector.calls == 1


@pytest.mark.parametrize("num_confident", [7, 17])
def test_lost_person_causes_one_extra_detection(num_confident: int) -> None:
    estimator, detector = PartialPersonEstimator(), ConstantDetector()
    estimator.num_confident = num_confident
    tracker = PoseTracker(estimator, detector, detect_every=1000)  # type: ignore[arg-type]
    for step in range(3):
        tracker(FRAME, step / 30)
    estimator.num_confident = num_confident // 2
    tracker(FRAME, 3 / 30)
    assert detector.calls == 1
    estimator.num_confident = num_confident
    for step in range(4, 10):
        tracker(FRAME, step / 30)
    assert detector.calls == 2


def test_extra_detections_run_at_every_fifth_frame_at_most() -> None:
    estimator, detector = PartialPersonEstimator(), ConstantDetector()
    estimator.num_confident = 0
    tracker = PoseTracker(estimator, detector, detect_every=30)  # type: ignore[arg-type]
    for step in range(60):
        tracker(FRAME, step / 30)
    assert detector.calls <= 2 + 60 / 5


class GivenPose:
    """An estimator of the keypoints (17, 2) that are set, in each box, and a detector of the box that is set."""

    skeleton = COCO17

    def __init__(self) -> None:
        self.keypoints, self.scores = np.zeros((17, 2), np.float32), np.full(17, 0.9, np.float32)
        self.box: list[float] | None = PERSON

    def __call__(self, image: np.ndarray, boxes: np.ndarray, box_scores: np.ndarray) -> Poses:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        keypoints, scores = (np.repeat(value[None], len(boxes), axis=0) for value in (self.keypoints, self.scores))
        return Poses(keypoints, scores, boxes, np.asarray(box_scores, np.float32), COCO17)

    def detect(self, image: np.ndarray) -> tuple[list, list]:
        return ([self.box], [0.9]) if self.box is not None else ([], [])


def moving_keypoints(count: int) -> np.ndarray:
    """Keypoints (count, 17, 2) of a person who moves through PERSON."""
    start = np.random.default_rng(0).uniform(PERSON[:2], np.subtract(PERSON[2:], [30, 40]), (17, 2))
    return (start + 2.5 * np.arange(count)[:, None, None] * [1, 1.2]).astype(np.float32)


@pytest.mark.parametrize("box", [[100, 50, 180, 190], [60, 50, 300, 190]])
def test_speeds_are_relative_to_the_longer_side_of_the_box(box: list[float]) -> None:
    size = max(box[2] - box[0], box[3] - box[1])
    pose, one_euro = GivenPose(), OneEuroFilter()
    pose.box = box
    tracker = PoseTracker(pose, pose, detect_every=1)  # type: ignore[arg-type]
    for step, keypoints in enumerate(moving_keypoints(10)):
        pose.keypoints = keypoints
        expected = one_euro(keypoints, step / 30, size)
        np.testing.assert_allclose(tracker(FRAME, step / 30).keypoints[0], expected, atol=1e-3)


def test_smoothing_scales_with_the_image() -> None:
    smoothed = {}
    for scale in (1, 10):
        pose = GivenPose()
        pose.box = [scale * side for side in PERSON]
        frame = np.zeros((scale * 200, scale * 320, 3), np.uint8)
        tracker = PoseTracker(pose, pose, detect_every=1)  # type: ignore[arg-type]
        smoothed[scale] = []
        for step, keypoints in enumerate(moving_keypoints(8)):
            pose.keypoints = scale * keypoints
            smoothed[scale].append(tracker(frame, step / 30).keypoints[0])
    np.testing.assert_allclose(smoothed[10], np.multiply(10, smoothed[1]), atol=1e-2)


def test_smoothing_restarts_after_an_absence() -> None:
    """The track continues, but its first keypoints after a frame without the person are not averaged with old ones."""
    pose = GivenPose()
    tracker = PoseTracker(pose, pose, detect_every=1)  # type: ignore[arg-type]
    ids = []
    for step, keypoints in enumerate(moving_keypoints(8)):
        pose.keypoints = keypoints
        pose.box = PERSON if step < 3 or step >= 5 else None
        pose.scores[:] = 0.9 if step != 3 else 0.05  # the person is lost, and absent at frame 4
        poses = tracker(FRAME, step / 30)
        ids.append(poses.track_ids.tolist())
        if len(poses):
            is_raw = np.allclose(poses.keypoints[0], keypoints, atol=1e-4)
            assert is_raw == (step in (0, 5)), step
    assert ids == [[1]] * 4 + [[]] + [[1]] * 3


def test_invalid_boxes_are_dropped_with_one_warning(estimator, detector, draw_frame) -> None:
    class FaultyDetector:
        def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            boxes, scores = detector.detect(image)
            bad = [[np.nan, 0, 50, 50], [400, 0, 500, 100], [60, 20, 20, 90], [0, 0, 1, 1]]
            return np.concatenate([bad, boxes]), np.concatenate([np.full(4, 0.9), scores])

    tracker = PoseTracker(estimator, FaultyDetector(), detect_every=2)
    with pytest.warns(UserWarning, match="FaultyDetector") as caught:
        ids = [tracker(draw_frame([(20 + step, 30)]), step / 30).track_ids.tolist() for step in range(6)]
    assert ids == [[1]] * 6
    assert len(caught) == 1


def test_a_frame_after_a_failure_may_be_given_again(estimator, draw_frame) -> None:
    class Failing(FullImageDetector):
        fails = False
        frames = 0

        def detect(self, image_bgr):
            if self.fails:
                raise RuntimeError("failure")
            self.frames += 1
            return super().detect(image_bgr)

    detector = Failing()
    tracker = PoseTracker(estimator, detector, detect_every=2)
    frame = draw_frame([(20.0, 30.0)])
    tracker(frame, 0)
    tracker(frame, 1)
    detector.fails = True
    before = detector.frames
    with pytest.raises(ValueError, match=r"Failing.*RuntimeError: failure"):
        tracker(frame, 2)
    with pytest.raises(TypeError, match="NoneType"):
        tracker(None, 2)
    with pytest.raises(ValueError, match="inf"):
        tracker(frame, float("inf"))
    detector.fails = False
    tracker(frame, 2)
    assert detector.frames == before + 1


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("smooth", [pytest.param(False, marks=pytest.mark.slow), True])
def test_ids_survive_another_resolution(scale: float, smooth: bool, estimator, detector, draw_frame, dots_at) -> None:
    """The detector runs at once, and smoothing starts anew: keypoints do not lag behind the new coordinates."""

    class ScaledDetector:
        def detect(self, image):
            boxes, scores = detector.detect(cv2.resize(image, (320, 200), interpolation=cv2.INTER_NEAREST))
            return boxes * image.shape[1] / 320, scores

    tracker = PoseTracker(estimator, ScaledDetector(), detect_every=100, smooth=smooth)
    for step in range(10):
        assert tracker(draw_frame(crossing(step)), step / 30).track_ids.tolist() == [1, 2]
    for step in range(10, 20):
        frame = cv2.resize(draw_frame(crossing(step)), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        poses = tracker(frame, step / 30)
        assert sorted(poses.track_ids.tolist()) == [1, 2]
        expected = scale * dots_at(*crossing(step)[0])
        keypoints = poses.keypoints[poses.track_ids.tolist().index(1)]
        assert np.abs(keypoints - expected).max() < (8 if smooth and step > 10 else 3) * max(scale, 1)
    assert detector.calls == 2


def test_tracks_end_at_another_aspect_ratio(estimator, detector, draw_frame) -> None:
    tracker = PoseTracker(estimator, detector, detect_every=100)
    for step in range(3):
        tracker(draw_frame([(20, 30), (230, 110)]), step / 30)
    poses = tracker(draw_frame([(20, 30), (230, 110)])[:, :160].copy(), 1.0)  # the second box would be outside
    assert poses.track_ids.tolist() == [3]
    assert detector.calls == 2
    assert tracker(draw_frame([(20, 30)])[:, :160].copy(), 1.1).track_ids.tolist() == [3]
    assert detector.calls == 2


def test_a_mean_scale_of_1_is_another_size(estimator, detector) -> None:
    """One side grows and the other shrinks by 0.8 %."""
    tracker = PoseTracker(estimator, detector, detect_every=100)
    for number, shape in enumerate([(250, 250), (248, 252), (248, 252)]):
        tracker(np.zeros((*shape, 3), np.uint8), number / 30)
    assert detector.calls == 2


def test_a_frame_of_another_size_may_be_given_again(estimator, detector, draw_frame) -> None:
    tracker = PoseTracker(estimator, detector, detect_every=100)
    tracker(draw_frame([(20, 30)]), 0.0)
    frame = cv2.resize(draw_frame([(20, 30)]), (160, 100), interpolation=cv2.INTER_AREA)
    detector.detect = lambda image: 1 / 0
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        tracker(frame, 0.1)
    detector.detect = lambda image: ([[10, 15, 34, 47]], [1.0])
    assert tracker(frame, 0.1).track_ids.tolist() == [1]


def test_poses_have_the_time(estimator, detector, draw_frame) -> None:
    poses = PoseTracker(estimator, detector)(draw_frame([(20, 30)]), 1.25)
    assert (poses.time, poses.frame) == (1.25, None)


def test_smoothing_is_on_or_off(estimator, detector) -> None:
    with pytest.raises(TypeError, match=r"'none'.*smooth_tracks"):
        PoseTracker(estimator, detector, smooth="none")


def test_track_yields_the_times_and_numbers_of_a_file(dot_net, detector, make_video) -> None:
    path = make_video([[(20 + step, 30)] for step in range(5)])
    estimator = PoseEstimator(dot_net, device="cpu", flip=False, detector=detector)
    poses = list(estimator.track(path))
    assert [each.frame for each in poses] == list(range(5))
    assert [each.time for each in poses] == pytest.approx(np.arange(5) / 30, abs=1e-3)
    assert TrackTable.from_poses(poses).rate == pytest.approx(30, rel=1e-3)
    poses = list(estimator.track([np.zeros((50, 60, 3), np.uint8)] * 3, rate=10))
    assert [(each.frame, each.time) for each in poses] == [(0, 0.0), (1, 0.1), (2, 0.2)]


@pytest.mark.parametrize("read", [0, 1, 5, 9])
def test_closing_the_iterator_closes_the_file(read: int, dot_net, detector, make_video, monkeypatch) -> None:
    """Also before the first frame, and at the end of the file."""
    closed = []
    close = FrameSource.close
    monkeypatch.setattr(FrameSource, "close", lambda source: (closed.append(source), close(source)))
    path = make_video([[(20 + step, 30)] for step in range(5)])
    tracked = PoseEstimator(dot_net, device="cpu", flip=False, detector=detector).track(path)
    assert len(list(itertools.islice(tracked, read))) == min(read, 5)
    assert bool(closed) == (read > 5)
    tracked.close()
    assert closed
    assert list(tracked) == []


def test_an_error_of_a_frame_closes_the_file(dot_net, make_video, monkeypatch) -> None:
    closed = []
    monkeypatch.setattr(FrameSource, "close", lambda source: closed.append(source))
    estimator = PoseEstimator(dot_net, device="cpu", flip=False, detector=None)
    tracked = estimator.track(make_video([[(20, 30)]]))
    with pytest.raises(ValueError, match="detector"):
        next(tracked)
    assert closed


def test_a_detector_is_no_name(estimator) -> None:
    with pytest.raises(TypeError, match="'full-image'"):
        PoseTracker(estimator, detector="full-image")

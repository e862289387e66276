import json

import numpy as np
import pytest

from posedy.inference.estimator import PoseEstimator
from posedy.inference.poses import Poses
from posedy.inference.tracking import PoseTracker
from posedy.skeleton import COCO17


@pytest.fixture
def estimator(dot_net) -> PoseEstimator:
    return PoseEstimator(dot_net, device="cpu", flip=False)


def moving(step: int) -> list[tuple[float, float]]:
    return [(20 + 3.0 * step, 30.0), (230 - 3.0 * step, 110.0)]


def test_persons_are_followed_without_asking_again(estimator, detector, draw_frame, dots_at) -> None:
    tracker = PoseTracker(estimator, detector, every=100, smooth=False)
    for step in range(30):
        found = tracker(draw_frame(moving(step)), step / 30)
        assert sorted(found.ids.tolist()) == [1, 2]
        for id_, place in enumerate(moving(step), start=1):
            keypoints = found.poses.keypoints[found.ids.tolist().index(id_)]
            assert np.abs(keypoints - dots_at(*place)).max() < 3
    assert detector.asked == 1


def test_the_detector_is_asked_at_every_nth_frame(estimator, detector, draw_frame) -> None:
    tracker = PoseTracker(estimator, detector, every=4)
    for step in range(9):
        tracker(draw_frame(moving(step)), step / 30)
    assert detector.asked == 3


def test_who_is_lost_is_looked_for_again(estimator, detector, draw_frame) -> None:
    tracker = PoseTracker(estimator, detector, every=1000)
    tracker(draw_frame([(20, 30)]), 0.0)
    tracker(draw_frame([(200, 100)]), 0.1)  # elsewhere: nothing is seen where it was
    found = tracker(draw_frame([(200, 100)]), 0.2)
    assert detector.asked == 2
    assert len(found) == 1
    tracker(draw_frame([]), 0.3)
    assert len(tracker(draw_frame([]), 0.4)) == 0


def test_boxes_that_come_to_show_one_person_are_one(estimator, detector, draw_frame) -> None:
    class Double:
        def detect(self, image):
            boxes, scores = detector.detect(image)
            return np.concatenate([boxes, boxes + 2]), np.concatenate([scores, scores / 2])

    found = PoseTracker(estimator, Double())(draw_frame([(20, 30)]), 0.0)
    assert len(found) == 1
    assert found.poses.box_scores.tolist() == [1]


def test_unsure_boxes_are_not_used(estimator, draw_frame) -> None:
    class Unsure:
        def detect(self, image):
            return [[10, 10, 60, 90], [200, 100, 240, 160]], [0.2, 0.31]

    tracker = PoseTracker(estimator, Unsure(), box_threshold=0.3)
    assert tracker(draw_frame([(20, 30)]), 0.0).poses.boxes.tolist() == [[200, 100, 240, 160]]
    with pytest.raises(ValueError, match="from 0 to 1, got nan"):
        PoseTracker(estimator, Unsure(), box_threshold=float("nan"))


def test_smoothing_steadies_and_records_have_ids(estimator, detector, draw_frame) -> None:
    steadiness = {}
    for smooth in (False, True):
        tracker = PoseTracker(estimator, detector, every=1, smooth=smooth)
        places = [(60 + x, 40 + y) for x, y in np.random.default_rng(0).normal(0, 1, (40, 2))]
        points = [tracker(draw_frame([place]), step / 30).poses.keypoints[0] for step, place in enumerate(places)]
        steadiness[smooth] = np.diff(points, axis=0).std()
    assert steadiness[True] < steadiness[False] / 2
    records = tracker(draw_frame([(60, 40)]), 9.0).to_records()
    assert json.loads(json.dumps(records))[0]["id"] >= 1
    assert set(records[0]["keypoints"]) == {"red", "green", "blue"}


def test_asking_never_is_refused(estimator, detector) -> None:
    with pytest.raises(ValueError, match="N from 1, got 0"):
        PoseTracker(estimator, detector, every=0)


FRAME = np.zeros((200, 320, 3), np.uint8)
PERSON = [100.0, 50.0, 180.0, 190.0]


class Constant:
    """Detects one person in one box, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, image: np.ndarray) -> tuple[list, list]:
        self.calls += 1
        return [PERSON], [0.9]


class HeadAndShoulders:
    """Is confident of the first `visible` keypoints that are inside the box; `left` moves the person."""

    skeleton = COCO17

    def __init__(self) -> None:
        self.left, self.visible = 100.0, 7
        self.boxes: list[np.ndarray] = []

    def __call__(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Poses:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        self.boxes.append(boxes)
        x = self.left + np.linspace(20, 60, 17)
        y = 65 + np.linspace(0, 100, 17)
        keypoints = np.broadcast_to(np.stack([x, y], axis=-1).astype(np.float32), (len(boxes), 17, 2))
        inside = (keypoints > boxes[:, None, :2]).all(axis=-1) & (keypoints < boxes[:, None, 2:]).all(axis=-1)
        confident = inside & (np.arange(17) < self.visible)
        return Poses(keypoints, np.where(confident, 0.9, 0.05), boxes, np.asarray(scores, np.float32), COCO17)


def test_a_person_with_seven_confident_keypoints_is_not_lost() -> None:
    estimator, detector = HeadAndShoulders(), Constant()
    tracker = PoseTracker(estimator, detector, every=10)  # type: ignore[arg-type]
    ids = {tuple(tracker(FRAME, step / 30).ids.tolist()) for step in range(60)}
    assert ids == {(1,)}
    assert detector.calls == 6


def test_the_box_of_a_partly_visible_person_moves_with_the_person_and_keeps_its_size() -> None:
    estimator, detector = HeadAndShoulders(), Constant()
    tracker = PoseTracker(estimator, detector, every=1000)  # type: ignore[arg-type]
    for step in range(40):
        tracker(FRAME, step / 30)
        estimator.left += 3
    np.testing.assert_allclose(estimator.boxes[-1][0], np.add(PERSON, [38 * 3, 0, 38 * 3, 0]), atol=1e-3)
    estimator.visible = 17  # the whole person is visible, and inside the box
    assert (tracker(FRAME, 2.0).poses.scores > 0.2).all()
    assert detector.calls == 1


@pytest.mark.parametrize("visible", [7, 17])
def test_a_lost_person_causes_one_early_detection(visible: int) -> None:
    estimator, detector = HeadAndShoulders(), Constant()
    estimator.visible = visible
    tracker = PoseTracker(estimator, detector, every=1000)  # type: ignore[arg-type]
    for step in range(3):
        tracker(FRAME, step / 30)
    estimator.visible = visible // 2
    tracker(FRAME, 3 / 30)
    assert detector.calls == 1
    estimator.visible = visible
    for step in range(4, 10):
        tracker(FRAME, step / 30)
    assert detector.calls == 2


def test_a_detection_without_a_confident_pose_asks_the_detector_at_every_fifth_frame_at_most() -> None:
    estimator, detector = HeadAndShoulders(), Constant()
    estimator.visible = 0
    tracker = PoseTracker(estimator, detector, every=30)  # type: ignore[arg-type]
    for step in range(60):
        tracker(FRAME, step / 30)
    assert detector.calls <= 2 + 60 / 5


def test_one_bad_box_does_not_end_a_video(estimator, detector, draw_frame) -> None:
    class Flawed:
        def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            boxes, scores = detector.detect(image)
            bad = [[np.nan, 0, 50, 50], [400, 0, 500, 100], [60, 20, 20, 90], [0, 0, 1, 1]]
            return np.concatenate([bad, boxes]), np.concatenate([np.full(4, 0.9), scores])

    tracker = PoseTracker(estimator, Flawed(), every=2)
    with pytest.warns(UserWarning, match="Flawed") as caught:
        ids = [tracker(draw_frame([(20 + step, 30)]), step / 30).ids.tolist() for step in range(6)]
    assert ids == [[1]] * 6
    assert len(caught) == 1

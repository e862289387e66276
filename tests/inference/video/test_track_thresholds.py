"""Boxes of new persons need the higher threshold of two; tracked persons keep boxes with lower scores."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.inference.detectors import BoxThresholds, register_detector
from posedy.inference.estimator import PoseEstimator
from posedy.inference.tracking import PoseTracker
from posedy.models.pose_net import PoseNet
from posedy.poses import Poses
from posedy.skeleton import COCO17

FRAME = np.zeros((200, 320, 3), np.uint8)
PERSON = [100.0, 50.0, 180.0, 190.0]
OTHER = [220.0, 40.0, 300.0, 180.0]
THRESHOLDS = BoxThresholds(display=0.4, track_start=0.4, track_keep=0.2)
Detection = tuple[Sequence[float], float]


class ListedDetector:
    """Detects the given boxes with their scores; each call takes the next list, and the last one is repeated."""

    def __init__(self, *frames: list[Detection]) -> None:
        self.frames = list(frames)

    def detect(self, image: NDArray[np.uint8]) -> tuple[list, list]:
        frame = self.frames.pop(0) if len(self.frames) > 1 else self.frames[0]
        return [box for box, _ in frame], [score for _, score in frame]


class ThresholdDetector(ListedDetector):
    thresholds = THRESHOLDS


class GridEstimator:
    """Estimates keypoints that fill a fraction of each box, around its center, all of them confident."""

    skeleton = COCO17

    def __init__(self, fraction: Sequence[float] = (0.8, 0.8)) -> None:
        self.fraction = np.array(fraction)
        self.boxes: list[list[list[float]]] = []

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray, box_scores: NDArray) -> Poses:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        self.boxes.append(boxes.tolist())
        steps = np.linspace(-0.5, 0.5, 17)[:, None] * self.fraction
        centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        keypoints = (centers[:, None] + steps * sizes[:, None]).astype(np.float32)
        scores = np.full(keypoints.shape[:2], 0.9, np.float32)
        return Poses(keypoints, scores, boxes, np.asarray(box_scores, np.float32), COCO17)


def track(detector: ListedDetector, count: int = 6, estimator: GridEstimator | None = None, **options: float) -> list:
    """The track ids of each frame; the detector runs at every frame."""
    tracker = PoseTracker(estimator or GridEstimator(), detector, detect_every=1, **options)  # type: ignore[arg-type]
    return [tracker(FRAME, step / 30).track_ids.tolist() for step in range(count)]


def missed_once(detector: ListedDetector, estimator: GridEstimator) -> bool:
    """Whether the second detection misses the person: its box is then the one around the last keypoints."""
    track(detector, 2, estimator)
    return PERSON not in estimator.boxes[1]


def test_a_low_box_alone_starts_no_track() -> None:
    assert track(ThresholdDetector([(PERSON, 0.39)])) == [[]] * 6
    assert track(ThresholdDetector([(PERSON, 0.4)])) == [[1]] * 6


def test_a_low_box_keeps_a_track() -> None:
    detector = ThresholdDetector([(PERSON, 0.9)], [(PERSON, 0.2)])
    assert track(detector, 20) == [[1]] * 20
    assert not missed_once(ThresholdDetector([(PERSON, 0.9)], [(PERSON, 0.2)]), GridEstimator())


def test_a_box_below_both_thresholds_is_missed() -> None:
    detector = ThresholdDetector([(PERSON, 0.9)], [(PERSON, 0.19)])
    # tracked by pose alone over three missed detections
    assert track(detector, 6) == [[1]] * 4 + [[]] * 2
    assert missed_once(ThresholdDetector([(PERSON, 0.9)], [(PERSON, 0.19)]), GridEstimator())


def test_a_low_box_keeps_a_person_of_whom_a_small_part_is_visible() -> None:
    """As for high boxes, a box that covers the keypoints is the person's, whatever the IoU."""
    frames: list[list[Detection]] = [[(PERSON, 0.9)], [(PERSON, 0.3)]]
    assert not missed_once(ThresholdDetector(*frames), GridEstimator((0.3, 0.3)))


def test_a_low_box_inside_a_tracked_person_starts_no_track() -> None:
    inside = [110.0, 60.0, 140.0, 100.0]
    overlapping = [115.0, 60.0, 195.0, 200.0]
    for box in (inside, overlapping):
        frames: list[list[Detection]] = [[(PERSON, 0.9)], [(PERSON, 0.8), (box, 0.3)]]
        estimator = GridEstimator()
        assert track(ThresholdDetector(*frames), 6, estimator) == [[1]] * 6
        assert all(len(boxes) == 1 for boxes in estimator.boxes)


def test_the_best_of_several_low_boxes_is_used() -> None:
    shifted = [box + 15 for box in PERSON]
    large = [0.0, 0.0, 320.0, 200.0]
    frames: list[list[Detection]] = [[(PERSON, 0.9)], [(shifted, 0.35), (large, 0.3), (PERSON, 0.25)]]
    estimator = GridEstimator()
    assert track(ThresholdDetector(*frames), 6, estimator) == [[1]] * 6
    assert estimator.boxes[1:] == [[PERSON]] * 5


def test_low_boxes_of_two_persons_are_both_kept() -> None:
    frames: list[list[Detection]] = [[(PERSON, 0.9), (OTHER, 0.8)], [(OTHER, 0.3), (PERSON, 0.3)]]
    ids = track(ThresholdDetector(*frames), 6)
    assert ids == [[1, 2]] + [[2, 1]] * 5


def test_keypoints_on_a_line_match_only_boxes_around_them() -> None:
    """Their tight box has no area."""
    frames: list[list[Detection]] = [[(PERSON, 0.9)], [(OTHER, 0.3), (PERSON, 0.3)], [(OTHER, 0.9)]]
    estimator = GridEstimator((0.0, 0.8))
    assert track(ThresholdDetector(*frames), 3, estimator) == [[1], [1], [2, 1]]
    assert estimator.boxes[1] == [PERSON]


@pytest.mark.parametrize("box_threshold", [None, 0.3, 0.0])
def test_a_detector_without_thresholds_has_one(box_threshold: float | None) -> None:
    """Its boxes are those of new and of tracked persons alike, from 0.3 by default."""
    frames: list[list[Detection]] = [[(PERSON, 0.3)], [(PERSON, 0.29)]]
    options = {} if box_threshold is None else {"box_threshold": box_threshold}
    is_kept = box_threshold == 0
    assert track(ListedDetector(*frames), 6, **options) == [[1]] * (6 if is_kept else 4) + [[]] * (0 if is_kept else 2)
    starts = track(ListedDetector([(PERSON, 0.29)]), 2, **options)
    assert starts == ([[1]] * 2 if is_kept else [[]] * 2)


def test_a_threshold_of_zero_keeps_negative_scores() -> None:
    assert track(ListedDetector([(PERSON, -3.0)]), 2, box_threshold=0.0) == [[1], [1]]


@pytest.mark.parametrize(("box_threshold", "ids"), [(0.1, [[1]] * 6), (0.6, [[]] * 6), (0.5, [[1]] * 6)])
def test_box_threshold_is_the_one_of_new_persons(box_threshold: float, ids: list) -> None:
    score = 0.15 if box_threshold == 0.1 else 0.5
    frames: list[list[Detection]] = [[(PERSON, score)], [(PERSON, min(score, 0.3))]]
    assert track(ThresholdDetector(*frames), 6, box_threshold=box_threshold) == ids


@pytest.mark.parametrize("is_named", [False, True])
def test_estimators_track_with_both_thresholds(
    is_named: bool,
    dot_net: PoseNet,
    draw_frame: Callable[[list[tuple[float, float]]], NDArray[np.uint8]],
    restored_registries: None,
) -> None:
    """Low boxes of tracked persons are below the threshold for images."""
    box = [20.0, 30.0, 68.0, 94.0]
    frames: list[list[Detection]] = [[(box, 0.9)], [(box, 0.21)]]

    class Named(ThresholdDetector):
        def __init__(self, threshold: float) -> None:
            super().__init__(*[[entry for entry in frame if entry[1] >= threshold] for frame in frames])

    register_detector("listed")(Named)
    detector = "listed" if is_named else ThresholdDetector(*frames)
    estimator = PoseEstimator(dot_net, "cpu", detector=detector, flip=False)
    image = draw_frame([(20, 30)])
    box_scores = [poses.box_scores.tolist() for poses in estimator.track([image] * 3, detect_every=1)]
    np.testing.assert_allclose(box_scores, [[0.9], [0.21], [0.21]], rtol=1e-6)
    assert len(estimator(image)) == 0
    assert estimator.detect(image)[1].tolist() == []
    assert estimator.detect(image, 0.2)[0].tolist() == [box]
    with pytest.raises(ValueError, match="nan"):
        estimator.detect(image, float("nan"))


@pytest.mark.parametrize(("box_threshold", "is_used"), [(None, False), (0.3, True), (0.31, False), (0.0, True)])
def test_the_estimators_box_threshold_is_for_images_and_new_persons(
    box_threshold: float | None,
    is_used: bool,
    dot_net: PoseNet,
    draw_frame: Callable[[list[tuple[float, float]]], NDArray[np.uint8]],
) -> None:
    box, image = [20.0, 30.0, 68.0, 94.0], draw_frame([(20, 30)])
    options = {"flip": False, "box_threshold": box_threshold}
    estimator = PoseEstimator(dot_net, "cpu", detector=ThresholdDetector([(box, 0.3)]), **options)
    count = int(is_used)
    assert len(estimator(image)) == len(estimator([image])[0]) == len(estimator.detect(image)[0]) == count
    assert [len(poses) for poses in estimator.track([image] * 2, detect_every=1)] == [count] * 2
    assert len(estimator(image, [box], [0.01])) == 1
    kept = ThresholdDetector([(box, 0.9)], [(box, 0.21)])
    for poses in PoseEstimator(dot_net, "cpu", detector=kept, **options).track([image] * 2, detect_every=1):
        assert len(poses) == 1
    assert poses.box_scores == pytest.approx([0.21])


@pytest.mark.parametrize("box_threshold", [1.5, float("nan"), True, "0.3"])
def test_invalid_box_thresholds_of_estimators_are_rejected(box_threshold: object, dot_net: PoseNet) -> None:
    with pytest.raises(ValueError, match=str(box_threshold)):
        PoseEstimator(dot_net, "cpu", box_threshold=box_threshold)  # type: ignore[arg-type]

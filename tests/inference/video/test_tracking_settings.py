"""`TrackingSettings`: the defaults track as the constants before them, and every setting has an effect."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.geometry import box_iou
from posedy.inference.detectors import BoxThresholds
from posedy.inference.tracking import PoseTracker
from posedy.inference.tracking_settings import DEFAULT_SETTINGS, TrackingSettings
from posedy.poses import Poses
from posedy.skeleton import COCO17

SIZE = (320, 200)
SHAPE = np.random.default_rng(1).uniform(0.1, 0.9, (17, 2)) * [36, 100]
OTHER_VALUES = {
    "duplicate_oks": 0.99,
    "box_margin": 0.5,
    "same_person_iou": 0.9,
    "same_person_coverage": 0.3,
    "max_misses": 0,
    "min_confident_share": 0.9,
    "min_confident": 14,
    "partial_share": 0.95,
    "extra_interval": 1,
    "min_box_side": 90.0,
    "match_threshold": 0.6,
    "oks_weight": 0.0,
    "max_age": 0.05,
    "max_size_ratio": 1.0,
    "velocity_time": 0.01,
    "max_extrapolation": 0.05,
    "occlusion_iou": 0.9,
    "min_motion_evidence": -100.0,
    "min_color_evidence": 0.0,
    "color_time": 0.01,
    "isolated_iou": 0.0,
}
COLORS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (120, 90, 60)]


class Walkers:
    """Four people who cross, stop and leave the image, their detector, and an estimator of their poses.

    People are missed, have low scores and lose keypoints; in the box of an occluded person is the pose of the other.
    """

    skeleton = COCO17
    thresholds = BoxThresholds(track_start=0.4, track_keep=0.2)

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.boxes = np.zeros((0, 4))

    def frames(self, count: int) -> Iterator[NDArray[np.uint8]]:
        for number in range(count):
            phases = 0.05 * number * np.array([1.0, 1.3, 1.9, 0.7]) + [0, 1.6, 3.1, 4.7]
            left = 140 + np.array([120, 110, 230, 60]) * np.sin(phases)
            corners = np.stack([left, [50, 60, 70, 85]], axis=1)
            self.boxes = np.concatenate([corners, corners + np.array([36, 100])], axis=1)
            image = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
            for (x1, y1, x2, y2), color in zip(self.boxes.astype(int).clip(0), COLORS, strict=True):
                image[y1:y2, x1:x2] = color
            yield image

    def detect(self, image: NDArray[np.uint8]) -> tuple[NDArray, NDArray]:
        is_hidden = np.triu(box_iou(self.boxes, self.boxes), k=1).max(axis=1) > 0.5
        kept = ~is_hidden & (self.rng.random(4) > 0.15) & (self.boxes[:, 0] > -20) & (self.boxes[:, 2] < SIZE[0] + 20)
        boxes = self.boxes[kept] + self.rng.normal(0, 1, (kept.sum(), 4))
        return np.concatenate([boxes, boxes[:1] + 3]), self.rng.uniform(0.25, 0.95, kept.sum() + len(boxes[:1]))

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray, box_scores: NDArray) -> Poses:
        people = box_iou(boxes, self.boxes).argmax(axis=1) if len(boxes) else np.zeros(0, np.int64)
        keypoints = self.boxes[people, None, :2] + SHAPE + self.rng.normal(0, 1, (len(boxes), 17, 2))
        scores = self.rng.uniform(0.1, 0.95, (len(boxes), 17)) ** np.where(self.rng.random((len(boxes), 1)) < 0.1, 4, 1)
        inside = (keypoints >= 0).all(axis=-1) & (keypoints < SIZE).all(axis=-1)
        return Poses(
            keypoints.astype(np.float32), np.where(inside, scores, 0.05).astype(np.float32), boxes, box_scores, COCO17
        )


def track(settings: TrackingSettings = DEFAULT_SETTINGS) -> tuple[list[list[int]], list[NDArray]]:
    """The track ids and keypoints of each frame."""
    walkers = Walkers()
    tracker = PoseTracker(walkers, walkers, 4, settings=settings)  # type: ignore[arg-type]
    poses = [tracker(image, number / 30) for number, image in enumerate(walkers.frames(150))]
    return [each.track_ids.tolist() for each in poses], [each.keypoints for each in poses]


def test_defaults_track_as_before() -> None:
    """The ids and keypoints are recorded: a change must be intended, and measured by the tracking benchmark."""
    ids, keypoints = track()
    sampled = [[1], [2, 4, 1], [4, 5, 2], [1, 2, 4], [2, 5, 4, 1], [2, 1], [1, 2, 4], [2, 4, 1], [4], [7, 8, 4]]
    assert ids[::15] == sampled
    assert sum(len(each) for each in ids) == 420
    assert sum(each.sum(dtype=np.float64) for each in keypoints) == pytest.approx(1978763.159, rel=1e-6)


def test_settings_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULT_SETTINGS.max_age = 1.0  # type: ignore[misc]


@pytest.mark.slow
def test_every_setting_has_an_effect() -> None:
    assert OTHER_VALUES.keys() == {field.name for field in fields(TrackingSettings)}
    ids, keypoints = track()
    for name, value in OTHER_VALUES.items():
        other_ids, others = track(TrackingSettings(**{name: value}))  # type: ignore[arg-type]
        is_same = all(np.array_equal(each, other) for each, other in zip(keypoints, others, strict=True))
        assert not (is_same and ids == other_ids), name

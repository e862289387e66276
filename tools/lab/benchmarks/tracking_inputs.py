"""Videos, detections and poses for the tracking benchmark."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.geometry import box_iou
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.association import limb_colors
from posedy.inference.detectors import BoxThresholds
from posedy.inference.tracking import PoseTracker
from posedy.poses import Poses
from posedy.skeleton import COCO17
from tools.lab.synthetic.video import SyntheticFrame, generate_video

RATE = 30.0
SIZE = (640, 360)
KINDS: dict[str, dict[str, Any]] = {
    "fixed camera": {},
    "moving camera": {"camera_motion": True, "leaving": True},
    "motion blur": {"camera_motion": True, "leaving": True, "exposure": 1 / RATE},
    "image backgrounds": {"leaving": True, "background": True},
    "same clothes": {"leaving": True, "same_outfit": True},
}
"""The kinds of videos, with options of `generate_video`; the background is an image of data/coco_mini."""
PEOPLE = 3
DETECT_EVERY = 10

_COCO_MINI = Path(__file__).parents[3] / "data/coco_mini"
_MAX_PERSON_AREA = 0.2  # of background images, as a fraction of the image
_MISSED, _JITTER, _FALSE_PER_FRAME = 0.08, 0.03, 0.1  # simulated detector; jitter as a fraction of the box side
_OCCLUSION_IOU = 0.6  # a person is not detected above this IoU with a person in front
_MIN_INSIDE = 0.3  # ground truth: minimum fraction of the box inside the image
_POSE_MARGINS = np.array([-0.16, -0.15, 0.16, 0.08])  # of boxes around keypoints, as fractions of their extent
_THRESHOLDS = BoxThresholds(track_start=0.4, track_keep=0.2)  # those of posedy's default detector
# Simulated poses: errors in x and y relative to the box height, and scores, of free keypoints and of those in a box of
# a person in front. Both were measured with the default network on synthetic people, as was the share of outliers.
_POSE_ERRORS, _POSE_SCORES, _SCORE_SPREAD = (0.018, 0.043), (0.88, 0.78), 0.1
_OUTLIERS, _OUTLIER_ERROR = 0.05, 0.15


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections of one frame, and the poses in them if a tracker needs them.

    Attributes:
        boxes: (P, 4) xyxy.
        scores: (P,).
        poses: the poses in the boxes.
        colors: (P, L, 3) of `limb_colors`.
        color_seconds: time of `limb_colors`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    poses: Poses | None = None
    colors: NDArray[np.float64] | None = None
    color_seconds: float = 0.0


@dataclass(eq=False)
class Recording:
    """Everything that trackers and their evaluation need of one video.

    Attributes:
        gt_ids: ids (G,) of the people in each frame.
        gt_boxes: boxes (G, 4) of the people in each frame, clipped to the image.
        inputs: detections of each frame by input: "detections" (all of them), "poses" (those for new tracks, with
            poses), "tracked 1" and "tracked 10" (the boxes of `PoseTracker` with this detection interval).
    """

    gt_ids: list[NDArray[np.int64]] = field(default_factory=list)
    gt_boxes: list[NDArray[np.float64]] = field(default_factory=list)
    inputs: dict[str, list[Detections]] = field(default_factory=dict)

    def add_ground_truth(self, frame: SyntheticFrame) -> None:
        """Adds the people of the next frame who are at least 30 % inside the image."""
        boxes, inside = _clip(frame.boxes)
        self.gt_ids.append(np.flatnonzero(inside >= _MIN_INSIDE))
        self.gt_boxes.append(boxes[inside >= _MIN_INSIDE])

    def add(self, name: str, detections: Detections) -> None:
        """Adds the detections of the next frame."""
        self.inputs.setdefault(name, []).append(detections)


def generate_kind(kind: str, seed: int, frames: int) -> Iterator[SyntheticFrame]:
    """Generates a video of one of the `KINDS` with three people."""
    options = dict(KINDS[kind])
    if options.pop("background", False):
        names = background_names()
        options["background"] = rgb_to_bgr(read_image(names[seed % len(names)]))
    return generate_video(seed, frames, PEOPLE, SIZE, RATE, **options)


def background_names() -> list[Path]:
    """Lists the images of data/coco_mini in which persons are few and small."""
    names = []
    for file in sorted(_COCO_MINI.glob("annotations/person_keypoints_*.json")):
        content = json.loads(file.read_bytes())
        area = {image["id"]: 0.0 for image in content["images"]}
        for annotation in content["annotations"]:
            area[annotation["image_id"]] += annotation["bbox"][2] * annotation["bbox"][3]
        for image in content["images"]:
            if area[image["id"]] < _MAX_PERSON_AREA * image["width"] * image["height"]:
                names.append(_COCO_MINI / file.stem.removeprefix("person_keypoints_") / image["file_name"])
    return names


def simulate_detections(frame: SyntheticFrame, seed: tuple[int, int]) -> Detections:
    """Simulates a person detector: 8 % of the people are missed, and scores fall with occlusion.

    Boxes are jittered by 3 % of their sides. A person is not detected with IoU > 0.6 with a person in front, or with
    less than 30 % inside the image. One in ten frames has a false positive of a low score.
    """
    rng = np.random.default_rng(seed)
    boxes, inside = _clip(frame.boxes)
    iou = np.triu(box_iou(boxes, boxes), k=1)  # people are ordered back to front
    covered = _covered(boxes)
    is_detected = (iou.max(axis=1) <= _OCCLUSION_IOU) & (inside >= _MIN_INSIDE) & (rng.random(len(boxes)) >= _MISSED)
    sides = (boxes[:, 2:] - boxes[:, :2])[:, [0, 1, 0, 1]]
    noisy = boxes + sides * rng.normal(0, _JITTER, boxes.shape)
    mean = 0.05 + 0.85 * np.clip(1 - covered, 0, 1)
    scores = rng.beta(20 * mean, 20 * (1 - mean))
    false = np.zeros((rng.poisson(_FALSE_PER_FRAME), 4))
    for box in false:
        side = SIZE[1] * rng.uniform(0.1, 0.5) * np.array([rng.uniform(0.3, 0.8), 1])
        corner = rng.uniform(0, 1, 2) * (np.array(SIZE) - side)
        box[:] = np.concatenate([corner, corner + side])
    noisy, _ = _clip(np.concatenate([noisy[is_detected], false]))
    scores = np.concatenate([scores[is_detected], rng.uniform(0.05, 0.5, len(false))])
    return Detections(noisy.astype(np.float32), scores.astype(np.float32))


class SimulatedPoses:
    """An estimator that returns ground-truth poses of the current frame with the errors of a network.

    The pose in a box is that of the person with the largest visible overlap, so that the pose in the box of an occluded
    person jumps to the person in front. A box without a person has random keypoints with low scores.

    Attributes:
        frame: the current frame.
    """

    skeleton = COCO17

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self.frame: SyntheticFrame

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray, box_scores: NDArray) -> Poses:
        """Returns the poses of the people in the boxes."""
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        overlap = box_iou(boxes, _clip(self.frame.boxes)[0]) * (1 - _covered(self.frame.boxes))
        keypoints = np.zeros((len(boxes), len(COCO17.keypoints), 2))
        scores = np.zeros(keypoints.shape[:2])
        for row, box in enumerate(boxes):
            person = int(overlap[row].argmax())
            if overlap[row, person] > 0.1:
                keypoints[row], scores[row] = self._pose(person)
            else:
                keypoints[row] = box[:2] + self._rng.random(keypoints.shape[1:]) * (box[2:] - box[:2])
                scores[row] = self._rng.uniform(0.05, 0.4, scores.shape[1])
        return Poses(keypoints.astype(np.float32), scores.astype(np.float32), boxes, np.asarray(box_scores), COCO17)

    def _pose(self, person: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the keypoints (K, 2) and scores (K,) of a person, the less accurate where people are in front."""
        keypoints, boxes = self.frame.keypoints[person], self.frame.boxes
        in_front = boxes[person + 1 :]
        covered = ((keypoints[:, None] > in_front[:, :2]) & (keypoints[:, None] < in_front[:, 2:])).all(-1).any(-1)
        outside = ((keypoints < 0) | (keypoints > SIZE)).any(axis=1)
        height = boxes[person, 3] - boxes[person, 1]
        error = np.where(covered, _POSE_ERRORS[1], _POSE_ERRORS[0])
        error = height * np.where(self._rng.random(len(error)) < _OUTLIERS, _OUTLIER_ERROR, error)[:, None]
        scores = np.where(covered, _POSE_SCORES[1], _POSE_SCORES[0])
        scores = self._rng.normal(scores, _SCORE_SPREAD).clip(0.05, 0.98)
        scores = np.where(outside, 0.1, scores)
        return np.clip(keypoints + self._rng.normal(0, error, keypoints.shape), 0, SIZE), scores


def record_detections(video_frames: Iterator[SyntheticFrame], seed: int) -> Recording:
    """Records ground truth and detections of one video, without poses."""
    recording = Recording()
    for number, frame in enumerate(video_frames):
        recording.add_ground_truth(frame)
        recording.add("detections", simulate_detections(frame, (seed, number)))
    return recording


def record(estimator: Any, video_frames: Iterator[SyntheticFrame], seed: int) -> Recording:
    """Records the inputs of all trackers in one video.

    Args:
        estimator: a `PoseEstimator`; None for poses simulated from the ground truth.
        video_frames: the video.
        seed: seed of detections and simulated poses.
    """
    recording = Recording()
    simulated = SimulatedPoses(seed)
    estimator = simulated if estimator is None else estimator
    detectors = {every: _SimulatedDetector() for every in (1, DETECT_EVERY)}
    recorder = _RecordingEstimator(estimator)
    trackers = {every: PoseTracker(recorder, detectors[every], every, smooth=False) for every in detectors}  # type: ignore[arg-type]
    limbs = np.array(estimator.skeleton.limbs, np.int64).reshape(-1, 2)

    def add_poses(name: str, poses: Poses, boxes: NDArray[np.float32], image: NDArray[np.uint8]) -> None:
        start = time.perf_counter()
        colors = limb_colors(image, poses.keypoints, poses.scores > DRAW_THRESHOLD, limbs)
        recording.add(name, Detections(boxes, poses.box_scores, poses, colors, time.perf_counter() - start))

    for number, frame in enumerate(video_frames):
        detections = simulate_detections(frame, (seed, number))
        simulated.frame = frame
        recording.add_ground_truth(frame)
        recording.add("detections", detections)
        for every, tracker in trackers.items():
            detectors[every].detections = detections
            poses = tracker(frame.image, number / RATE)
            add_poses(f"tracked {every}", poses, _track_boxes(poses, detections), frame.image)
            if every == 1:
                is_detection = _rows_in(recorder.poses.boxes, detections.boxes)
                is_detection &= recorder.poses.box_scores >= _THRESHOLDS.track_start
                poses = recorder.poses[np.flatnonzero(is_detection)]
                add_poses("poses", poses, poses.boxes, frame.image)
    return recording


@dataclass
class _SimulatedDetector:
    """Returns the detections of the current frame."""

    detections: Detections | None = None
    thresholds: BoxThresholds = _THRESHOLDS

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert self.detections is not None
        return self.detections.boxes, self.detections.scores


class _RecordingEstimator:
    """An estimator that keeps the poses of its last call, before duplicates are suppressed."""

    def __init__(self, estimator: Any) -> None:
        self._estimator, self.skeleton = estimator, estimator.skeleton
        self.poses: Poses

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray, box_scores: NDArray) -> Poses:
        self.poses = self._estimator(image, boxes, box_scores)
        return self.poses


def _track_boxes(poses: Poses, detections: Detections) -> NDArray[np.float32]:
    """Returns the boxes of tracks (P, 4): the detections in this frame, else boxes around confident keypoints.

    The boxes of `PoseTracker` have a margin for motion, therefore they are not used. Margins are the medians of the
    ground truth.
    """
    boxes = poses.boxes.copy()
    for row in np.flatnonzero(~_rows_in(poses.boxes, detections.boxes)):
        confident = poses.keypoints[row, poses.scores[row] > DRAW_THRESHOLD]
        if len(confident) < 2:
            continue
        low, high = confident.min(axis=0), confident.max(axis=0)
        size = np.tile(high - low, 2)
        boxes[row] = np.concatenate([low, high]) + _POSE_MARGINS * size
    return _clip(boxes)[0].astype(np.float32)


def _rows_in(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray((rows[:, None] == others).all(axis=-1).any(axis=1))


def _clip(boxes: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns boxes clipped to the image, and the fraction of each box that is inside."""
    clipped = np.clip(boxes.astype(np.float64), 0, [*SIZE, *SIZE])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return clipped, (clipped[:, 2:] - clipped[:, :2]).prod(axis=1) / np.maximum(areas, 1e-9)


def _covered(boxes: NDArray) -> NDArray[np.float64]:
    """Returns the fraction (P,) of each box that a box in front covers; boxes are ordered back to front."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    iou = np.triu(box_iou(boxes, boxes), k=1)
    return (iou / (1 + iou) * (areas[:, None] + areas) / np.maximum(areas, 1)[:, None]).max(axis=1).clip(0, 1)

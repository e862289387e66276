"""Tracking of persons over the frames of a video: detection interval, track ids and smoothing.

For a whole video use `PoseEstimator.track`; `PoseTracker` takes one frame at a time:

    tracker = posedy.PoseTracker(posedy.PoseEstimator())
    poses = tracker(frame_bgr, time)  # with poses.track_ids
"""

import math
import numbers
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.geometry import box_iou
from posedy.inference.association import TrackAssociator, limb_colors
from posedy.inference.boxes import checked_box_threshold
from posedy.inference.detectors import CleanedDetector, Detector, detector_thresholds
from posedy.inference.smoothing import OneEuroFilter
from posedy.inference.tracking_settings import DEFAULT_SETTINGS, TrackingSettings
from posedy.oks import oks_nms
from posedy.poses import Poses

if TYPE_CHECKING:
    from posedy.inference.estimator import PoseEstimator

_ASPECT_TOLERANCE = 0.02  # largest relative difference of the aspect ratios of two sizes of a video


@dataclass(frozen=True, eq=False)
class TrackedBoxes:
    """Boxes in which the next poses are estimated.

    Attributes:
        boxes: (P, 4) xyxy.
        tight_boxes: (P, 4) xyxy, without the margin for motion.
        scores: (P,) scores of the boxes.
        misses: (P,) consecutive detections that missed the person.
        confident: (P, K), keypoints that were confident in the frame of the last detection; all False for boxes that
            the detector has just returned.
    """

    boxes: NDArray[np.float32]
    tight_boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    misses: NDArray[np.int64]
    confident: NDArray[np.bool_]

    @classmethod
    def empty(cls, num_keypoints: int) -> "TrackedBoxes":
        """Returns an instance without boxes."""
        boxes = np.zeros((0, 4), np.float32)
        confident = np.zeros((0, num_keypoints), np.bool_)
        return cls(boxes, boxes, np.zeros(0, np.float32), np.zeros(0, np.int64), confident)

    def select(self, indices: NDArray[np.int64]) -> "TrackedBoxes":
        """Returns the boxes with the given indices."""
        return TrackedBoxes(
            self.boxes[indices],
            self.tight_boxes[indices],
            self.scores[indices],
            self.misses[indices],
            self.confident[indices],
        )


@dataclass(frozen=True)
class _EstimatorDetector:
    """The detector of an estimator with a threshold for tracked persons."""

    estimator: "PoseEstimator"
    threshold: float

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.estimator.detect(image_bgr, self.threshold)


class PoseTracker:
    """Tracker that estimates the poses of successive frames and assigns track ids to them.

    The next box of a person encloses the confident keypoints of the last pose; if these are fewer than half of the
    skeleton, as for a head and shoulders, the last box moves with them. The detector runs at every N-th frame, and when
    a person is lost, at most at every fifth frame. A person is lost when fewer than three keypoints are confident, or
    fewer than half of those that were confident at the last detection. A person missed by up to three consecutive
    detections is tracked by pose alone.

    Args:
        estimator: estimates poses in boxes.
        detector: detects persons; its boxes are cleaned as in `PoseEstimator`. None for the estimator's own detector.
        detect_every: detection interval N; 1 runs the detector at every frame.
        smooth: whether to smooth keypoints over time, frame by frame; `posedy.smooth_tracks` smooths offline.
        threshold: minimum score of confident keypoints, exclusive.
        box_threshold: minimum score of boxes of new persons, inclusive; None is the detector's own for tracks. Boxes
            of tracked persons may have lower scores, if the detector has a lower threshold for them.
        settings: constants of tracking; the numbers above are the defaults.

    Raises:
        TypeError: if the estimator is a name, detect_every is not an integer, smooth is not a bool, or `detector` has
            no method `detect`.
        ValueError: if detect_every is less than 1, or box_threshold is not in [0, 1] or below the scores of the boxes
            that the estimator's detector returns.
    """

    def __init__(
        self,
        estimator: "PoseEstimator",
        detector: Detector | None = None,
        detect_every: int = 10,
        smooth: bool = True,
        threshold: float = DRAW_THRESHOLD,
        box_threshold: float | None = None,
        settings: TrackingSettings = DEFAULT_SETTINGS,
    ) -> None:
        if isinstance(estimator, str):
            raise TypeError(f"expected a PoseEstimator, got {estimator!r}: use posedy.PoseEstimator({estimator!r})")
        if isinstance(detect_every, bool) or not isinstance(detect_every, int | numbers.Integral):
            raise TypeError(f"expected detect_every to be an integer, got {detect_every!r}")
        if detect_every < 1:
            raise ValueError(f"expected detect_every of at least 1, got {detect_every}")
        if not isinstance(smooth, bool):
            raise TypeError(
                f"smooth must be True or False, got {smooth!r}; for offline smoothing see posedy.smooth_tracks"
            )
        if detector is not None and not isinstance(detector, Detector):
            raise TypeError(
                f"expected a detector with detect(image_bgr) -> (boxes, scores), got {detector!r:.100}; "
                "PoseEstimator(detector=...) takes names"
            )
        self._estimator = estimator
        thresholds = detector_thresholds(detector if detector is not None else estimator)
        self._start_threshold = thresholds.track_start if box_threshold is None else box_threshold
        lowest = min(thresholds.track_keep, checked_box_threshold(self._start_threshold))
        if detector is None and lowest < estimator.lowest_box_score:
            raise ValueError(
                f"box_threshold={self._start_threshold:g}, but the estimator's detector returns boxes from "
                f"{estimator.lowest_box_score:g} on: create it with PoseEstimator(box_threshold=...)"
            )
        source = detector if detector is not None else _EstimatorDetector(estimator, lowest)
        self._detector = CleanedDetector(source, lowest)
        self._detect_every, self._smooth, self._threshold = detect_every, smooth, threshold
        self._sigmas = np.asarray(estimator.skeleton.sigmas)
        self._limbs = np.array(estimator.skeleton.limbs, dtype=np.int64).reshape(-1, 2)
        self._settings = settings
        self._associator = TrackAssociator(self._sigmas, settings)
        self.reset()

    def reset(self) -> None:
        """Deletes all tracks before another video; ids start at 1 again and time may start anywhere."""
        self._associator.reset()
        self._filters: dict[int, OneEuroFilter] = {}
        self._tracked = TrackedBoxes.empty(self._estimator.skeleton.num_keypoints)
        self._frame, self._time = 0, -math.inf
        self._size: tuple[int, int] | None = None  # width and height of the last frame
        self._person_is_lost = False
        self._next_extra = 0  # first frame at which a lost person may cause an extra detection

    def __call__(self, image_bgr: NDArray[np.uint8], time: float) -> Poses:
        """Estimates the poses of the next frame.

        The detector also runs at a frame of another size than the last one, as of a stream that changes its resolution.
        Ids are kept if the aspect ratio is; otherwise all tracks end.

        Args:
            image_bgr: (H, W, 3) uint8.
            time: time in seconds, later than that of the last frame.

        Returns:
            Poses with `track_ids` and `time`.

        Raises:
            TypeError: if the frame is not an array.
            ValueError: if the frame has the wrong shape or type, there is no detector, or the time is not finite or
                does not advance. After an error of the frame, the detector or the network, the frame may be given
                again.
        """
        check_frame(image_bgr)
        if not (math.isfinite(time) and time > self._time):
            raise ValueError(f"time must advance, got {time} s after {self._time} s: call reset() before another video")
        size = (image_bgr.shape[1], image_bgr.shape[0])
        is_resized = self._size not in (None, size)
        scale = self._find_scale(size)
        tracked = self._resize_boxes(scale, size) if is_resized else self._tracked
        detects = is_resized or self._needs_detection()
        if detects:
            tracked = self._add_detections(image_bgr, tracked)
        poses = self._estimator(image_bgr, tracked.boxes, tracked.scores)
        if detects:
            self._person_is_lost = False
            if self._frame % self._detect_every:
                self._next_extra = self._frame + self._settings.extra_interval
        self._frame += 1
        kept = self._suppress_duplicates(poses, tracked)
        poses, tracked = poses[kept], tracked.select(kept)
        self._tracked = self._next_boxes(poses, tracked, image_bgr.shape)
        self._person_is_lost |= len(self._tracked.boxes) < len(poses)
        if is_resized:
            # the tracks are changed here only, so that a frame after a failure may be given again
            self._associator.resize(scale)
            self._filters = {}
        colors = limb_colors(image_bgr, poses.keypoints, poses.scores > self._threshold, self._limbs)
        ids = self._associator.update(poses.keypoints, poses.boxes, colors, time)
        self._time, self._size = time, size
        if self._smooth:
            poses = self._smooth_keypoints(poses, ids, time)
        return replace(poses, track_ids=ids, time=float(time))

    def _find_scale(self, size: tuple[int, int]) -> float | None:
        """Returns the scale from the last frame to one of another size; None if the aspect ratio differs."""
        if self._size is None:
            return 1.0
        x, y = (side / last for side, last in zip(size, self._size, strict=True))
        # sides are rounded to whole pixels, or to even ones
        return (x + y) / 2 if abs(x / y - 1) < _ASPECT_TOLERANCE else None

    def _resize_boxes(self, scale: float | None, size: tuple[int, int]) -> TrackedBoxes:
        """Returns the boxes for a frame of another size (width, height), without any if there is no common scale."""
        if scale is None:
            return TrackedBoxes.empty(self._estimator.skeleton.num_keypoints)
        # the scales of both sides may differ by a pixel, which may move a box out of the frame
        boxes = np.clip(self._tracked.boxes * scale, 0, [*size, *size]).astype(np.float32)
        kept = (boxes[:, 2:] - boxes[:, :2] >= self._settings.min_box_side).all(axis=1)
        tight_boxes = (self._tracked.tight_boxes * scale).astype(np.float32)
        return replace(self._tracked, boxes=boxes, tight_boxes=tight_boxes).select(np.flatnonzero(kept))

    def _needs_detection(self) -> bool:
        """Returns whether the detector runs at this frame."""
        is_extra = self._person_is_lost and self._frame >= self._next_extra
        return self._frame % self._detect_every == 0 or is_extra

    def _add_detections(self, image_bgr: NDArray[np.uint8], tracked: TrackedBoxes) -> TrackedBoxes:
        """Returns the detections, followed by the tracked boxes that no detection matches.

        Boxes with scores below the threshold of new persons are used for tracked persons that no other box matches.
        """
        boxes, scores = self._detector.detect(image_bgr)
        is_used = (scores >= self._start_threshold) | (self._start_threshold == 0)
        unmatched = tracked.tight_boxes[~self._are_detected(tracked.tight_boxes, boxes[is_used])]
        is_used[~is_used] = self._are_best_matches(boxes[~is_used], unmatched)
        boxes, scores = boxes[is_used], scores[is_used]
        is_missed = ~self._are_detected(tracked.tight_boxes, boxes) & (tracked.misses < self._settings.max_misses)
        missed = tracked.select(np.flatnonzero(is_missed))
        unconfident = np.zeros((len(boxes), tracked.confident.shape[1]), np.bool_)
        return TrackedBoxes(
            np.concatenate([boxes, missed.boxes]),
            np.concatenate([boxes, missed.tight_boxes]),
            np.concatenate([scores, missed.scores]),
            np.concatenate([np.zeros(len(boxes), np.int64), missed.misses + 1]),
            np.concatenate([unconfident, missed.confident]),
        )

    def _suppress_duplicates(self, poses: Poses, tracked: TrackedBoxes) -> NDArray[np.int64]:
        """Returns the indices of the best pose of each person."""
        areas = (poses.boxes[:, 2:] - poses.boxes[:, :2]).prod(axis=1)
        kept = np.sort(oks_nms(poses.keypoints, poses.pose_scores, areas, self._sigmas, self._settings.duplicate_oks))
        # a pose that the detector missed may have jumped to a person that it detected
        tight_boxes = np.concatenate([poses.keypoints.min(axis=1), poses.keypoints.max(axis=1)], axis=1)[kept]
        is_missed = tracked.misses[kept] > 0
        overlap = box_iou(tight_boxes, tight_boxes[~is_missed]).max(axis=1, initial=0)
        return kept[~(is_missed & (overlap >= self._settings.same_person_iou))]

    def _next_boxes(self, poses: Poses, tracked: TrackedBoxes, shape: tuple[int, ...]) -> TrackedBoxes:
        """Returns the boxes for the next frame, without lost persons."""
        height, width = shape[:2]
        settings = self._settings
        confident = poses.scores > self._threshold
        is_new = np.logical_not(tracked.confident.any(axis=1))
        tracked = replace(tracked, confident=np.where(is_new[:, None], confident, tracked.confident))
        min_confident = min(settings.min_confident, (confident.shape[1] + 1) // 2)
        still_confident = (confident & tracked.confident).sum(axis=1)
        is_kept = (confident.sum(axis=1) >= min_confident) & (
            still_confident >= settings.min_confident_share * tracked.confident.sum(axis=1)
        )
        boxes, tight_boxes, kept = [], [], []
        for person in np.flatnonzero(is_kept):
            keypoints = poses.keypoints[person, confident[person]]
            tight_box = np.concatenate([keypoints.min(axis=0), keypoints.max(axis=0)])
            margin = settings.box_margin * (tight_box[2:] - tight_box[:2]).max()
            box = tight_box + margin * np.array([-1, -1, 1, 1])
            if len(keypoints) < settings.partial_share * confident.shape[1]:
                last = tracked.boxes[person]
                if not is_new[person]:
                    last = last + np.tile(_center(tight_box) - _center(tracked.tight_boxes[person]), 2)
                box = _move_to_contain(last, box)
            box = np.clip(box, 0, [width, height, width, height])
            if (box[2:] - box[:2] >= settings.min_box_side).all():
                boxes.append(box)
                tight_boxes.append(tight_box)
                kept.append(person)
        return replace(
            tracked.select(np.array(kept, dtype=np.int64)),
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            tight_boxes=np.array(tight_boxes, np.float32).reshape(-1, 4),
        )

    def _smooth_keypoints(self, poses: Poses, ids: NDArray[np.int64], time: float) -> Poses:
        # filters of absent tracks are deleted: a filter continues only from the previous frame
        self._filters = {id_: self._filters.get(id_) or OneEuroFilter() for id_ in ids.tolist()}
        sizes = (poses.boxes[:, 2:] - poses.boxes[:, :2]).max(axis=1)
        smoothed = [
            self._filters[id_](keypoints, time, float(size))
            for id_, keypoints, size in zip(ids.tolist(), poses.keypoints, sizes, strict=True)
        ]
        return replace(poses, keypoints=np.array(smoothed, dtype=np.float32).reshape(poses.keypoints.shape))

    def _are_detected(self, tight_boxes: NDArray[np.float32], detections: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns which tight boxes (P, 4) a detection (D, 4) matches or covers: (P,)."""
        return np.asarray(self._match(tight_boxes, detections)[0].any(axis=1))

    def _are_best_matches(self, detections: NDArray[np.float32], tight_boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns which detections (D, 4) are the best one for a tight box (P, 4): (D,)."""
        is_match, iou = self._match(tight_boxes, detections)
        best = np.where(is_match, iou, -1).max(axis=1, initial=-1, keepdims=True)
        return np.asarray((is_match & (iou == best)).any(axis=0))

    def _match(
        self, tight_boxes: NDArray[np.float32], detections: NDArray[np.float32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Returns which tight boxes (P, 4) each detection (D, 4) matches or covers (P, D), and their IoUs (P, D)."""
        # keypoints on a line, or a single one, have a tight box without an area
        margins = np.clip(self._settings.min_box_side - (tight_boxes[:, 2:] - tight_boxes[:, :2]), 0, None) / 2
        tight_boxes = tight_boxes + np.concatenate([-margins, margins], axis=1)
        areas = (tight_boxes[:, 2:] - tight_boxes[:, :2]).prod(axis=1)[:, None]
        iou = box_iou(tight_boxes, detections)
        intersection = iou / (1 + iou) * (areas + (detections[:, 2:] - detections[:, :2]).prod(axis=1))
        is_covered = intersection >= self._settings.same_person_coverage * areas
        return (iou >= self._settings.same_person_iou) | is_covered, iou


def check_frame(image_bgr: object) -> None:
    """Checks that a frame is an array (H, W, 3) uint8.

    Raises:
        TypeError: if it is not an array.
        ValueError: if it has the wrong shape or type, or is empty.
    """
    if not isinstance(image_bgr, np.ndarray):
        raise TypeError(
            f"expected a frame (H, W, 3) uint8 BGR, got {type(image_bgr).__name__}: convert it to an array, or "
            "estimate single images with PoseEstimator(...)(image)"
        )
    if image_bgr.dtype != np.uint8 or image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or not image_bgr.size:
        raise ValueError(f"expected a frame (H, W, 3) uint8 BGR, got shape {image_bgr.shape} {image_bgr.dtype}")


def _center(box: NDArray[np.floating]) -> NDArray[np.floating]:
    return (box[:2] + box[2:]) / 2


def _move_to_contain(box: NDArray[np.floating], inner: NDArray[np.floating]) -> NDArray[np.floating]:
    """Moves a box (4,) as little as possible, and enlarges it if necessary, to contain another box (4,)."""
    size = np.maximum(box[2:] - box[:2], inner[2:] - inner[:2])
    low = np.clip(box[:2], inner[2:] - size, inner[:2])
    return np.concatenate([low, low + size])

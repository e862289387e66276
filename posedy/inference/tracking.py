"""Poses of successive frames: where to look, who is who, and smoothed keypoints."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.geometry import box_iou
from posedy.inference.association import TrackAssociator, limb_colors
from posedy.inference.boxes import BOX_THRESHOLD, checked_box_threshold
from posedy.inference.detectors import CleanedDetector, Detector
from posedy.inference.estimator import PoseEstimator
from posedy.inference.poses import Poses
from posedy.inference.smoothing import OneEuroFilter
from posedy.oks import oks_nms

_SAME_PERSON = 0.7  # OKS over which two boxes have come to show one person
_MARGIN = 0.15  # of the extent of the keypoints, on each side of the next box
_SAME_BOX = 0.4  # IoU from which a detection shows the person of a place before
_WITHIN = 0.9  # share of a place within a detection from which it shows that person too
_MISSES = 3  # of the detector in a row, after which a person is given up
_CONFIDENT = 0.5  # share of the keypoints that were confident at the last detection; a person with fewer is lost
_FEWEST = 3  # confident keypoints, or half of a skeleton of fewer than six; a person with fewer is lost
_PARTIAL = 0.5  # share of the skeleton; with fewer confident keypoints the next box has the size of the last one
_EXTRA_INTERVAL = 5  # frames between detections that a lost person causes
_SMALLEST = 2  # side of the next box in pixels


@dataclass(frozen=True, eq=False)
class TrackedPoses:
    """The poses of a frame with their persons' ids (P,)."""

    poses: Poses
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def to_records(self) -> list[dict[str, Any]]:
        """As `Poses.to_records`, each with its id."""
        return [{"id": int(id_), **record} for id_, record in zip(self.ids, self.poses.to_records(), strict=True)]


@dataclass(frozen=True, eq=False)
class _Places:
    """Where to look: boxes (P, 4) xyxy, their scores (P,), and how often the detector has not seen them since (P,).

    `bodies` (P, 4) are the boxes without the margin for motion. `confident` (P, K) tells which keypoints were confident
    in the frame of the last detection; a box that the detector has just given has none.
    """

    boxes: NDArray[np.float32]
    bodies: NDArray[np.float32]
    scores: NDArray[np.float32]
    unseen: NDArray[np.int64]
    confident: NDArray[np.bool_]

    def chosen(self, indices: NDArray[np.int64]) -> "_Places":
        return _Places(
            self.boxes[indices],
            self.bodies[indices],
            self.scores[indices],
            self.unseen[indices],
            self.confident[indices],
        )


class PoseTracker:
    """Finds the poses of frames that come one after the other.

    The next box of a person is made from the confident keypoints of the pose before; where they are fewer than half of
    the skeleton, as of a head and shoulders, the last box is moved with them. The detector is asked at every N-th
    frame, and when a person is lost, at most at every fifth frame. A person is lost when fewer than three keypoints are
    confident, or fewer than half of those that were confident at the last detection. Persons that the detector does not
    see are followed on their poses alone until it has missed them three times.

    Args:
        estimator: of the poses.
        detector: of the persons; its boxes are cleaned as by `PoseEstimator`.
        every: N; 1 asks the detector always.
        smooth: whether keypoints are smoothed over time.
        threshold: keypoints with scores over it are confident.
        box_threshold: boxes of the detector with lower scores are not used.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        detector: Detector,
        every: int = 10,
        smooth: bool = True,
        threshold: float = DRAW_THRESHOLD,
        box_threshold: float = BOX_THRESHOLD,
    ) -> None:
        if every < 1:
            raise ValueError(f"the detector is asked at every N-th frame, N from 1, got {every}")
        self._estimator, self._detector, self._every = estimator, CleanedDetector(detector), every
        self._threshold, self._box_threshold = threshold, checked_box_threshold(box_threshold)
        self._sigmas = np.asarray(estimator.skeleton.sigmas)
        self._limbs = np.array(estimator.skeleton.limbs, dtype=np.int64).reshape(-1, 2)
        self._identities = TrackAssociator(self._sigmas)
        self._filters: dict[int, OneEuroFilter] | None = {} if smooth else None
        self._frame = 0
        nowhere = np.zeros((0, 4), np.float32)
        unconfident = np.zeros((0, estimator.skeleton.num_keypoints), np.bool_)
        self._places = _Places(nowhere, nowhere, np.zeros(0, np.float32), np.zeros(0, np.int64), unconfident)
        self._person_is_lost = False
        self._next_extra = 0  # the frame from which a lost person may cause a detection

    def __call__(self, image_bgr: NDArray[np.uint8], time: float) -> TrackedPoses:
        """The poses of the next frame.

        Args:
            image_bgr: (H, W, 3) uint8.
            time: in seconds, later than that of the frame before.
        """
        places = self._places
        if self._needs_detection():
            places = self._with_detections(image_bgr, places)
        self._frame += 1
        poses = self._estimator(image_bgr, places.boxes, places.scores)
        kept = self._without_doubles(poses, places)
        poses, places = _chosen(poses, kept), places.chosen(kept)
        self._places = self._next_places(poses, places, image_bgr.shape)
        self._person_is_lost |= len(self._places.boxes) < len(poses)
        colors = limb_colors(image_bgr, poses.keypoints, poses.scores > self._threshold, self._limbs)
        ids = self._identities(poses.keypoints, poses.boxes, colors, time)
        return TrackedPoses(self._smoothed(poses, ids, time), ids)

    def _needs_detection(self) -> bool:
        """Whether the detector is asked at this frame."""
        if self._frame % self._every:
            if not self._person_is_lost or self._frame < self._next_extra:
                return False
            self._next_extra = self._frame + _EXTRA_INTERVAL
        self._person_is_lost = False
        return True

    def _with_detections(self, image_bgr: NDArray[np.uint8], places: _Places) -> _Places:
        """What the detector sees, and the places before that it does not see."""
        boxes, scores = self._detector.detect(image_bgr)
        sure = scores >= self._box_threshold
        boxes, scores = boxes[sure], scores[sure]
        followed = ~_are_seen(places.bodies, boxes) & (places.unseen < _MISSES)
        return _Places(
            np.concatenate([boxes, places.boxes[followed]]),
            np.concatenate([boxes, places.bodies[followed]]),
            np.concatenate([scores, places.scores[followed]]),
            np.concatenate([np.zeros(len(boxes), np.int64), places.unseen[followed] + 1]),
            np.concatenate([np.zeros((len(boxes), places.confident.shape[1]), np.bool_), places.confident[followed]]),
        )

    def _without_doubles(self, poses: Poses, places: _Places) -> NDArray[np.int64]:
        """The indices of poses; of boxes that have come to show the same person only the best remains."""
        areas = (poses.boxes[:, 2:] - poses.boxes[:, :2]).prod(axis=1)
        kept = np.sort(oks_nms(poses.keypoints, poses.pose_scores, areas, self._sigmas, _SAME_PERSON))
        # who was not seen by the detector may have slipped onto somebody who was
        bodies = np.concatenate([poses.keypoints.min(axis=1), poses.keypoints.max(axis=1)], axis=1)[kept]
        unseen = places.unseen[kept] > 0
        slipped = unseen & (box_iou(bodies, bodies[~unseen]).max(axis=1, initial=0) >= _SAME_BOX)
        return kept[~slipped]

    def _next_places(self, poses: Poses, places: _Places, shape: tuple[int, ...]) -> _Places:
        """Where to look in the next frame for those who are not lost."""
        height, width = shape[:2]
        confident = poses.scores > self._threshold
        is_new = np.logical_not(places.confident.any(axis=1))
        places = replace(places, confident=np.where(is_new[:, None], confident, places.confident))
        fewest = min(_FEWEST, (confident.shape[1] + 1) // 2)
        again = (confident & places.confident).sum(axis=1)
        is_kept = (confident.sum(axis=1) >= fewest) & (again >= _CONFIDENT * places.confident.sum(axis=1))
        boxes, bodies, found = [], [], []
        for person in np.flatnonzero(is_kept):
            visible = poses.keypoints[person, confident[person]]
            body = np.concatenate([visible.min(axis=0), visible.max(axis=0)])
            box = body + _MARGIN * (body[2:] - body[:2]).max() * np.array([-1, -1, 1, 1])
            if len(visible) < _PARTIAL * confident.shape[1]:
                last = places.boxes[person]
                if not is_new[person]:
                    last = last + np.tile(_center(body) - _center(places.bodies[person]), 2)
                box = _moved_to_contain(last, box)
            box = np.clip(box, 0, [width, height, width, height])
            if (box[2:] - box[:2] >= _SMALLEST).all():
                boxes.append(box)
                bodies.append(body)
                found.append(person)
        return replace(
            places.chosen(np.array(found, dtype=np.int64)),
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            bodies=np.array(bodies, np.float32).reshape(-1, 4),
        )

    def _smoothed(self, poses: Poses, ids: NDArray[np.int64], time: float) -> Poses:
        if self._filters is None:
            return poses
        filters = {id_: self._filters.get(id_) or OneEuroFilter() for id_ in ids.tolist()}
        # who is gone is forgotten: a filter goes on only from the frame before
        self._filters = filters
        sizes = (poses.boxes[:, 2:] - poses.boxes[:, :2]).max(axis=1)
        smoothed = [
            filters[id_](points, time, float(size))
            for id_, points, size in zip(ids.tolist(), poses.keypoints, sizes, strict=True)
        ]
        return replace(poses, keypoints=np.array(smoothed, dtype=np.float32).reshape(poses.keypoints.shape))


def _center(box: NDArray[np.floating]) -> NDArray[np.floating]:
    return (box[:2] + box[2:]) / 2


def _moved_to_contain(box: NDArray[np.floating], inner: NDArray[np.floating]) -> NDArray[np.floating]:
    """A box (4,) moved as little as possible, and grown if it is too small, to contain another one (4,)."""
    size = np.maximum(box[2:] - box[:2], inner[2:] - inner[:2])
    low = np.clip(box[:2], inner[2:] - size, inner[:2])
    return np.concatenate([low, low + size])


def _are_seen(bodies: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which bodies (P, 4) a detection (D, 4) shows: those that are much like one, or lie within one."""
    areas = (bodies[:, 2:] - bodies[:, :2]).prod(axis=1)[:, None]
    iou = box_iou(bodies, boxes)
    common = iou / (1 + iou) * (areas + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    return np.asarray(((iou >= _SAME_BOX) | (common >= _WITHIN * areas)).any(axis=1))


def _chosen(poses: Poses, indices: ArrayLike) -> Poses:
    arrays = {name: getattr(poses, name)[indices] for name in ("keypoints", "scores", "boxes", "box_scores")}
    return replace(poses, **arrays)

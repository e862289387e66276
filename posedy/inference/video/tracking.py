"""Poses of successive frames: where to look, who is who, and smoothed keypoints."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.evaluation.nms import oks_nms
from posedy.inference.detectors import Detector
from posedy.inference.estimator import PoseEstimator
from posedy.inference.poses import Poses
from posedy.inference.video.identities import Identities
from posedy.inference.video.smoothing import OneEuroFilter

_SAME_PERSON = 0.7  # OKS over which two boxes have come to show one person
_MARGIN = 0.15  # of the extent of the keypoints, on each side of the next box
_SURE = 0.5  # share of the keypoints that must be sure for a person not to be lost


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


class PoseTracker:
    """Finds the poses of frames that come one after the other.

    The next box of a person is made from the pose before; the detector is asked at every N-th frame, and when a person
    has been lost, that is when fewer than half of the keypoints are sure.

    Args:
        estimator: of the poses.
        detector: of the persons.
        every: N; 1 asks the detector always.
        smooth: whether keypoints are smoothed over time.
        threshold: the score over which a keypoint is sure.
        box_threshold: boxes of the detector with lower scores are not used.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        detector: Detector,
        every: int = 10,
        smooth: bool = True,
        threshold: float = DRAW_THRESHOLD,
        box_threshold: float = 0.3,
    ) -> None:
        if every < 1:
            raise ValueError(f"the detector is asked at every N-th frame, N from 1, got {every}")
        self._estimator, self._detector, self._every = estimator, detector, every
        self._threshold, self._box_threshold = threshold, box_threshold
        self._sigmas = np.asarray(estimator.skeleton.sigmas)
        self._identities = Identities(self._sigmas)
        self._filters: dict[int, OneEuroFilter] | None = {} if smooth else None
        self._frame = 0
        self._next: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def __call__(self, image_bgr: NDArray[np.uint8], time: float) -> TrackedPoses:
        """The poses of the next frame.

        Args:
            image_bgr: (H, W, 3) uint8.
            time: in seconds, later than that of the frame before.
        """
        if self._next is None or self._frame % self._every == 0:
            boxes, scores = (np.asarray(found, dtype=np.float32) for found in self._detector.detect(image_bgr))
            sure = scores >= self._box_threshold
            self._next = boxes.reshape(-1, 4)[sure], scores[sure]
        self._frame += 1
        poses = self._without_doubles(self._estimator(image_bgr, *self._next))
        self._next = self._boxes_from(poses, image_bgr.shape)
        ids = self._identities(poses.keypoints, poses.boxes, time)
        return TrackedPoses(self._smoothed(poses, ids, time), ids)

    def _without_doubles(self, poses: Poses) -> Poses:
        """Of boxes that have come to show the same person only the best remains."""
        areas = (poses.boxes[:, 2:] - poses.boxes[:, :2]).prod(axis=1)
        kept = np.sort(oks_nms(poses.keypoints, poses.pose_scores, areas, self._sigmas, _SAME_PERSON))
        return _chosen(poses, kept)

    def _boxes_from(
        self, poses: Poses, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Where to look in the next frame; None if somebody has been lost."""
        height, width = shape[:2]
        boxes = []
        for keypoints, scores in zip(poses.keypoints, poses.scores, strict=True):
            sure = scores > self._threshold
            if sure.mean() < _SURE:
                return None
            low, high = keypoints[sure].min(axis=0), keypoints[sure].max(axis=0)
            margin = _MARGIN * (high - low).max()
            box = np.clip([*(low - margin), *(high + margin)], 0, [width, height, width, height])
            if not (box[2:] - box[:2] >= 1).all():
                return None
            boxes.append(box)
        return np.array(boxes, dtype=np.float32).reshape(-1, 4), poses.box_scores

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


def _chosen(poses: Poses, indices: ArrayLike) -> Poses:
    arrays = {name: getattr(poses, name)[indices] for name in ("keypoints", "scores", "boxes", "box_scores")}
    return replace(poses, **arrays)

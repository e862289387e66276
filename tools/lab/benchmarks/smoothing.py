"""Smoothing benchmark: jitter, error and lag of online and offline smoothing on synthetic videos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.geometry import box_iou
from posedy.inference.estimator import PoseEstimator
from posedy.inference.offline_smoothing import smooth_tracks
from posedy.inference.smoothing import OneEuroFilter
from posedy.inference.track_table import TrackTable
from posedy.inference.tracking import PoseTracker
from tools.lab.synthetic.video import SyntheticFrame, generate_video

RATE = 30.0
_MISSED, _JITTER = 0.08, 0.03  # simulated detector: fraction of missed persons, jitter in box sides
_OCCLUSION_IOU = 0.6  # a person is not detected above this IoU with a person in front
_NOISE = 4.0  # standard deviation of the noise of pixels
_MATCH_IOU = 0.3  # minimum IoU of a pose's box with the person's ground-truth box
_MAX_SPEED_AT_REST = 0.2  # person sizes per second


def benchmark_smoothing(
    estimator: PoseEstimator, frames: int, people: int, seed: int = 0, speed: float = 1.0
) -> dict[str, Any]:
    """Tracks synthetic people and compares their keypoints before and after smoothing.

    With the confident keypoints p of a track in successive frames, the ground truth g and the person size s, which is
    the longer side of the person's box:

        jitter = root mean square of |p_(t-1) - 2 p_t + p_(t+1)| / s, at rest (|dg/dt| < 0.2 s per second) and moving
        error  = mean of |p - g| / s
        lag    = sum (raw - p) v / sum v v with v = dg/dt per frame, in frames
        shift  = the largest |p - raw| / s

    In `error_jitter` the second differences are those of p - g, without the acceleration of the people themselves.

    Args:
        estimator: predicts the poses.
        frames: length of the video, at 30 frames per second.
        people: number of people in the video.
        seed: seed of the video.
        speed: how many times faster the people move.

    Returns:
        The result in plain types.

    Raises:
        ValueError: if no person is tracked at rest or moving for three frames.
    """
    video_frames = list(generate_video(seed, frames, people, rate=RATE / speed))
    table = _track(estimator, video_frames)
    offline = smooth_tracks(table)
    row_of = {key: row for row, key in enumerate(_keys(offline))}
    rows = [row_of[key] for key in _keys(table)]
    gt = GroundTruthRows.match(table, video_frames)
    return {
        **{"seed": seed, "frames": frames, "people": people, "speed": speed, "poses": len(table)},
        "raw": gt.measure(table, table.keypoints),
        "online": gt.measure(table, smooth_online(table)),
        "offline": gt.measure(table, offline.keypoints[rows]),
        "filled": float(offline.filled.mean()),
    }


def format_smoothing(report: dict[str, Any]) -> str:
    """Formats the result of `benchmark_smoothing`."""
    raw = report["raw"]
    lines = [
        f"{report['people']} people in {report['frames']} frames (seed {report['seed']}, {report['speed']:g} times as "
        f"fast): raw jitter {raw['jitter']['rest']:.4f} at rest, {raw['jitter']['moving']:.4f} moving, mean error "
        f"{raw['error']:.4f} person sizes"
    ]
    for name in ("online", "offline"):
        result = report[name]
        ratios = {
            (kind, part): result[kind][part] / raw[kind][part]
            for kind in ("jitter", "error_jitter")
            for part in ("rest", "moving")
        }
        lines.append(
            f"  {name}: leaves {ratios['jitter', 'rest']:.2f} of the jitter at rest, {ratios['jitter', 'moving']:.2f} "
            f"moving (of the error's: {ratios['error_jitter', 'rest']:.2f}, {ratios['error_jitter', 'moving']:.2f}), "
            f"{result['error'] / raw['error']:.2f} of the error, lag {result['lag']:.2f} frames, largest shift "
            f"{result['shift']:.2f} person sizes"
        )
    lines.append(f"  offline: {report['filled']:.1%} of the keypoints filled")
    return "\n".join(lines)


def smooth_online(table: TrackTable) -> NDArray[np.float64]:
    """Returns the keypoints (R, K, 2) as `PoseTracker` smooths them."""
    keypoints = table.keypoints.copy()
    filters: dict[int, OneEuroFilter] = {}
    for _, time, rows in table.rows_by_frame():
        filters = {id_: filters.get(id_) or OneEuroFilter() for id_ in table.track_ids[rows].tolist()}
        for row in rows:
            size = float((table.boxes[row, 2:] - table.boxes[row, :2]).max())
            keypoints[row] = filters[int(table.track_ids[row])](table.keypoints[row], time, size)
    return keypoints


@dataclass(frozen=True, eq=False)
class GroundTruthRows:
    """The ground truth of the rows of a table.

    Attributes:
        person: (R,) the person of each row, -1 if none.
        keypoints: (R, K, 2), NaN if none.
        velocity: (R, K, 2) in pixels per frame, NaN if none.
    """

    person: NDArray[np.int64]
    keypoints: NDArray[np.float64]
    velocity: NDArray[np.float64]

    @classmethod
    def match(cls, table: TrackTable, video_frames: list[SyntheticFrame]) -> "GroundTruthRows":
        """Assigns the people to the rows of each frame by descending IoU of their boxes."""
        person = np.full(len(table), -1)
        for frame, (_, _, rows) in zip(video_frames, table.rows_by_frame(), strict=True):
            iou = box_iou(np.asarray(frame.boxes), table.boxes[rows])
            while iou.size and iou.max() > _MATCH_IOU:
                index, row = np.unravel_index(iou.argmax(), iou.shape)
                person[rows[row]] = index
                iou[index], iou[:, row] = -1, -1
        gt = np.stack([frame.keypoints for frame in video_frames])
        is_matched = (person >= 0)[:, None, None]
        keypoints = np.where(is_matched, gt[table.row_frames, person], np.nan)
        return cls(person, keypoints, np.where(is_matched, np.gradient(gt, axis=0)[table.row_frames, person], np.nan))

    def measure(self, table: TrackTable, keypoints: NDArray[np.float64]) -> dict[str, Any]:
        """Measures keypoints (R, K, 2) of the rows of a table, as `benchmark_smoothing` documents."""
        sizes = (table.boxes[:, 2:] - table.boxes[:, :2]).max(axis=1)[:, None]
        confident = (table.scores > DRAW_THRESHOLD) & (self.person >= 0)[:, None]
        error, raw = keypoints - self.keypoints, table.keypoints
        before, now, after = self._triplets(table)
        is_used = confident[before] & confident[now] & confident[after]
        speed = np.linalg.norm(self.velocity[now], axis=-1) * RATE / sizes[now]
        jitter = {}
        for name, values in (("jitter", keypoints), ("error_jitter", error)):
            second = values[before] - 2 * values[now] + values[after]
            squared = np.square(second).sum(axis=-1) / sizes[now] ** 2
            at_rest = speed < _MAX_SPEED_AT_REST
            parts = (("rest", at_rest), ("moving", ~at_rest))
            jitter[name] = {part: _root_mean(squared[is_used & mask], part) for part, mask in parts}
        velocity = self.velocity[confident]
        return {
            **jitter,
            "error": float((np.linalg.norm(error, axis=-1) / sizes)[confident].mean()),
            "lag": float(np.sum((raw - keypoints)[confident] * velocity) / np.sum(velocity**2)),
            "shift": float((np.linalg.norm(raw - keypoints, axis=-1) / sizes)[confident].max()),
        }

    def _triplets(self, table: TrackTable) -> NDArray[np.int64]:
        """Returns the rows (3, N) of three successive frames of a track that are of one person."""
        parts = [np.zeros((0, 3), dtype=np.int64)]
        for _, rows in table.tracks():
            triplets = np.stack([rows[:-2], rows[1:-1], rows[2:]], axis=1) if len(rows) > 2 else parts[0]
            frames, persons = table.row_frames[triplets], self.person[triplets]
            parts.append(triplets[(frames[:, 2] - frames[:, 0] == 2) & (persons == persons[:, :1]).all(axis=1)])
        return np.concatenate(parts).T


@dataclass
class _SimulatedDetector:
    """Detects the people of frame `frame` who are not occluded, with missed detections and jittered boxes."""

    video_frames: Sequence[SyntheticFrame]
    frame: int = 0

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns the boxes and scores of the detected people."""
        rng = np.random.default_rng(self.frame)
        boxes = np.asarray(self.video_frames[self.frame].boxes)
        occluded = np.triu(box_iou(boxes, boxes), k=1).max(axis=1) > _OCCLUSION_IOU  # people are ordered back to front
        detected = ~occluded & (rng.random(len(boxes)) >= _MISSED)
        sizes = (boxes[:, 2:] - boxes[:, :2])[:, [0, 1, 0, 1]]
        noisy = boxes + sizes * rng.normal(0, _JITTER, boxes.shape)
        return noisy[detected].astype(np.float32), np.full(int(detected.sum()), 0.9, dtype=np.float32)


def _track(estimator: PoseEstimator, video_frames: list[SyntheticFrame]) -> TrackTable:
    """Tracks the people without smoothing, in frames with noise."""
    detector = _SimulatedDetector(video_frames)
    tracker = PoseTracker(estimator, detector, smooth=False)
    poses = []
    for number, frame in enumerate(video_frames):
        detector.frame = number
        noise = np.random.default_rng(number).normal(0, _NOISE, frame.image.shape)
        image = np.clip(frame.image + noise, 0, 255).round().astype(np.uint8)
        poses.append(tracker(image, number / RATE))
    return TrackTable.from_poses(poses, rate=RATE)


def _keys(table: TrackTable) -> list[tuple[int, int]]:
    """Returns the frame and the track id of each row."""
    return list(zip(table.row_frames.tolist(), table.track_ids.tolist(), strict=True))


def _root_mean(squared: NDArray[np.float64], part: str) -> float:
    if not squared.size:
        raise ValueError(f"no confident keypoint is tracked for three frames ({part}): use more frames or another seed")
    return float(np.sqrt(squared.mean()))

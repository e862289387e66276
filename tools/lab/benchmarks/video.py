"""Video benchmark: track id switches, effect and lag of smoothing, and frame rate."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.geometry import box_iou
from posedy.inference.estimator import PoseEstimator
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import FrameSource
from posedy.inference.video_pipeline import VideoResult, run_video
from posedy.inference.video_writer import VideoWriter
from posedy.poses import Poses
from tools.lab.benchmarks.ratios import ratio
from tools.lab.synthetic.video import SyntheticFrame, generate_video

RATE = 30.0
_MISSED, _JITTER = 0.08, 0.03  # simulated detector: fraction of missed persons, jitter in box sides
_OCCLUSION_IOU = 0.6  # a person is not detected above this IoU with a person in front
_MATCH_IOU = 0.3  # minimum IoU of a pose's box with the person's ground-truth box


def benchmark_tracking(
    estimator: PoseEstimator, frames: int, people: int, detect_every: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Tracks synthetic people who cross each other, with and without smoothing.

    With the error vector e of a predicted keypoint and the frame-to-frame displacement v of the ground truth:

        jitter = root mean square of |e_t - e_(t-1)|, in pixels per frame
        lag    = sum (raw - smoothed) v / sum v v, in frames

    Args:
        estimator: predicts the poses.
        frames: length of the video, at 30 frames per second.
        people: number of people in the video.
        detect_every: detection interval of the tracker in frames.
        seed: seed of the video.

    Returns:
        The result in plain types.
    """
    video_frames = list(generate_video(seed, frames, people))
    raw, ids = _track_video(
        video_frames,
        PoseTracker(estimator, detector := SimulatedDetector(video_frames), detect_every, False),
        detector,
    )
    smoothed, _ = _track_video(
        video_frames, PoseTracker(estimator, detector := SimulatedDetector(video_frames), detect_every, True), detector
    )
    gt = np.stack([frame.keypoints for frame in video_frames])
    displacement = np.diff(gt, axis=0)
    offset = (raw - smoothed)[1:]
    valid = ~np.isnan(offset)
    return {
        "seed": seed,
        "frames": frames,
        "people": people,
        "found": float((ids > 0).mean()),
        "id_switches": sum(_count_id_switches(ids[:, person]) for person in range(people)),
        "error_px": float(np.nanmedian(np.linalg.norm(raw - gt, axis=-1))),
        "jitter_px": {"raw": _jitter(raw - gt), "smoothed": _jitter(smoothed - gt)},
        "lag_frames": float(np.sum((offset * displacement)[valid]) / np.sum(np.square(displacement)[valid])),
    }


def benchmark_video(estimator: PoseEstimator, frames: int, people: int, rounds: int) -> dict[str, Any]:
    """Times a video from file to visualized file, interleaved with pose estimation only on the same frames in memory.

    The detector is simulated, so its cost is not included.

    Args:
        estimator: predicts the poses.
        frames: length of the video.
        people: number of people in the video.
        rounds: number of measurements of each.

    Returns:
        The result in plain types.
    """
    video_frames = list(generate_video(0, frames, people))
    total, poses_only, results = [], [], []
    with TemporaryDirectory() as folder:
        video = Path(folder) / "input.mp4"
        writer = VideoWriter(video, RATE)
        for number, frame in enumerate(video_frames):
            writer.write(frame.image, number / RATE)
        writer.close()
        for _ in range(rounds):
            results.append(_run(video, Path(folder), estimator, video_frames))
            total.append(results[-1].seconds)
            detector = SimulatedDetector(video_frames)
            start = time.perf_counter()
            _track_video(video_frames, PoseTracker(estimator, detector), detector)
            poses_only.append(time.perf_counter() - start)
    median = sorted(results, key=lambda result: result.seconds)[len(results) // 2]
    return {
        "frames": frames,
        "people": people,
        "rounds": rounds,
        "frames_per_second": median.frames_per_second,
        "stages_ms": {name: 1000 * seconds / frames for name, seconds in median.stages.items()},
        "of_poses_alone": ratio(total, poses_only),
    }


def format_tracking(report: dict[str, Any]) -> str:
    """Formats the result of `benchmark_tracking`."""
    jitter = report["jitter_px"]
    return (
        f"{report['people']} people crossing in {report['frames']} frames (seed {report['seed']}): tracked in "
        f"{report['found']:.0%}, {report['id_switches']} id switches; median error {report['error_px']:.1f} px; "
        f"smoothing leaves {jitter['smoothed'] / jitter['raw']:.2f} of the jitter "
        f"({jitter['raw']:.1f} to {jitter['smoothed']:.1f} px per frame), lag {report['lag_frames']:.1f} frames"
    )


def format_video(report: dict[str, Any]) -> str:
    """Formats the result of `benchmark_video`."""
    stages = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in report["stages_ms"].items())
    ratio_to_poses = report["of_poses_alone"]
    return (
        f"{report['people']} people in {report['frames']} frames: {report['frames_per_second']:.1f} frames/s "
        f"({stages}); {ratio_to_poses['median']:.2f} of the time of pose estimation only (quartiles "
        f"{ratio_to_poses['quartile_low']:.2f} to {ratio_to_poses['quartile_high']:.2f})"
    )


@dataclass
class SimulatedDetector:
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


class _SynchronizedTracker:
    """A tracker that tells its simulated detector the current frame."""

    def __init__(self, tracker: PoseTracker, detector: SimulatedDetector) -> None:
        self._tracker, self._detector = tracker, detector

    def __call__(self, image_bgr: NDArray[np.uint8], time: float) -> Poses:
        self._detector.frame = min(round(time * RATE), len(self._detector.video_frames) - 1)
        return self._tracker(image_bgr, time)


def _run(video: Path, folder: Path, estimator: PoseEstimator, video_frames: Sequence[SyntheticFrame]) -> VideoResult:
    detector = SimulatedDetector(video_frames)
    tracker = _SynchronizedTracker(PoseTracker(estimator, detector), detector)
    return run_video(FrameSource(video), tracker, folder / "poses.mp4", folder / "poses.jsonl")


def _track_video(
    video_frames: Sequence[SyntheticFrame], tracker: PoseTracker, detector: SimulatedDetector
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the keypoints (T, P, K, 2) and track ids (T, P) of the people of a video, NaN and 0 if not tracked.

    A pose with the person's previous id has precedence if it overlaps the person's box; remaining poses are assigned by
    descending IoU (CLEAR MOT, Bernardin and Stiefelhagen, 2008).
    """
    track = _SynchronizedTracker(tracker, detector)
    keypoints = np.full((len(video_frames), *video_frames[0].keypoints.shape), np.nan)
    ids = np.zeros(keypoints.shape[:2], dtype=np.int64)
    last = np.zeros(keypoints.shape[1], dtype=np.int64)
    for number, frame in enumerate(video_frames):
        poses = track(frame.image, number / RATE)
        assert poses.track_ids is not None
        iou = box_iou(frame.boxes, poses.boxes)
        rank = iou + (poses.track_ids == last[:, None])  # poses with the previous id have precedence
        rank[iou < _MATCH_IOU] = -1
        while rank.size and rank.max() >= 0:
            person, pose = np.unravel_index(rank.argmax(), rank.shape)
            keypoints[number, person], ids[number, person] = poses.keypoints[pose], poses.track_ids[pose]
            last[person] = poses.track_ids[pose]
            rank[person], rank[:, pose] = -1, -1
    return keypoints, ids


def _count_id_switches(ids: NDArray[np.int64]) -> int:
    """Counts the changes of a person's track id, ignoring frames without one."""
    return int(np.count_nonzero(np.diff(ids[ids > 0])))


def _jitter(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.nanmean(np.square(np.diff(errors, axis=0)).sum(axis=-1))))

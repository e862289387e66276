"""Videos: whether persons keep their ids, what smoothing brings and costs, and how fast frames go through."""

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
from posedy.inference.tracking import PoseTracker, TrackedPoses
from posedy.inference.video_io import FrameSource, VideoRecording
from posedy.inference.video_pipeline import VideoResult, run_video
from tools.lab.benchmarks.ratios import ratio
from tools.lab.synthetic.film import FilmFrame, draw_film

RATE = 30.0
_MISSED, _JITTER = 0.08, 0.03  # of the simulated detector: share of persons, share of a box's sides
_HIDDEN = 0.6  # IoU with somebody nearer from which it does not see a person
_OWN = 0.3  # IoU with the truth's box from which a pose is of that person


def benchmark_tracking(
    estimator: PoseEstimator, frames: int, people: int, every: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Follows drawn people who cross each other, with and without smoothing.

    With e the distance of a predicted keypoint from the truth, as a vector, and v the truth's motion from frame to
    frame:

        jitter = root mean square of |e_t - e_(t-1)|, in pixels a frame
        lag    = sum (raw - smoothed) v / sum v v, in frames

    Args:
        estimator: of the poses.
        frames: of the film, at 30 a second.
        people: in it.
        every: the simulated detector is asked at every N-th frame.
        seed: of the film.

    Returns:
        The numbers, in plain types.
    """
    film = list(draw_film(seed, frames, people))
    raw, ids = _followed(film, PoseTracker(estimator, detector := _SimulatedDetector(film), every, False), detector)
    smoothed, _ = _followed(film, PoseTracker(estimator, detector := _SimulatedDetector(film), every, True), detector)
    truth = np.stack([frame.keypoints for frame in film])
    motion = np.diff(truth, axis=0)
    behind = (raw - smoothed)[1:]
    seen = ~np.isnan(behind)
    return {
        "seed": seed,
        "frames": frames,
        "people": people,
        "found": float((ids > 0).mean()),
        "id_switches": sum(_switches(ids[:, person]) for person in range(people)),
        "error_px": float(np.nanmedian(np.linalg.norm(raw - truth, axis=-1))),
        "jitter_px": {"raw": _jitter(raw - truth), "smoothed": _jitter(smoothed - truth)},
        "lag_frames": float(np.sum((behind * motion)[seen]) / np.sum(np.square(motion)[seen])),
    }


def benchmark_video(estimator: PoseEstimator, frames: int, people: int, rounds: int) -> dict[str, Any]:
    """Times a video from file to drawn file beside the poses alone of the same frames in memory, in turns.

    The detector is simulated, and costs nothing.

    Args:
        estimator: of the poses.
        frames: of the video.
        people: in it.
        rounds: how often each is timed.

    Returns:
        The numbers, in plain types.
    """
    film = list(draw_film(0, frames, people))
    whole, alone, outcomes = [], [], []
    with TemporaryDirectory() as folder:
        video = Path(folder) / "film.mp4"
        recording = VideoRecording(video, RATE)
        for number, frame in enumerate(film):
            recording.write(frame.image, number / RATE)
        recording.close()
        for _ in range(rounds):
            outcomes.append(_run(video, Path(folder), estimator, film))
            whole.append(outcomes[-1].seconds)
            detector = _SimulatedDetector(film)
            began = time.perf_counter()
            _followed(film, PoseTracker(estimator, detector), detector)
            alone.append(time.perf_counter() - began)
    middle = sorted(outcomes, key=lambda outcome: outcome.seconds)[len(outcomes) // 2]
    return {
        "frames": frames,
        "people": people,
        "rounds": rounds,
        "frames_per_second": middle.frames_per_second,
        "stages_ms": {name: 1000 * seconds / frames for name, seconds in middle.stages.items()},
        "of_poses_alone": ratio(whole, alone),
    }


def format_tracking(numbers: dict[str, Any]) -> str:
    """The numbers as a line of text."""
    jitter = numbers["jitter_px"]
    return (
        f"{numbers['people']} people crossing in {numbers['frames']} frames (film {numbers['seed']}): found in "
        f"{numbers['found']:.0%}, {numbers['id_switches']} switches of ids; keypoints {numbers['error_px']:.1f} px off "
        f"(median); smoothing leaves {jitter['smoothed'] / jitter['raw']:.2f} of the jitter "
        f"({jitter['raw']:.1f} to {jitter['smoothed']:.1f} px a frame) and lags {numbers['lag_frames']:.1f} frames"
    )


def format_video(numbers: dict[str, Any]) -> str:
    """The numbers as a line of text."""
    stages = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in numbers["stages_ms"].items())
    share = numbers["of_poses_alone"]
    return (
        f"{numbers['people']} on {numbers['frames']} frames: {numbers['frames_per_second']:.1f} frames/s ({stages}); "
        f"{share['median']:.2f} of the time of the poses alone (quartiles {share['quartile_low']:.2f} to "
        f"{share['quartile_high']:.2f})"
    )


@dataclass
class _SimulatedDetector:
    """Sees those of a film's people who are not hidden, misses some, and is not exact; `frame` says where it is."""

    film: Sequence[FilmFrame]
    frame: int = 0

    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng(self.frame)
        boxes = np.asarray(self.film[self.frame].boxes)
        hidden = np.triu(box_iou(boxes, boxes), k=1).max(axis=1) > _HIDDEN  # those after it stand nearer
        seen = ~hidden & (rng.random(len(boxes)) >= _MISSED)
        sizes = (boxes[:, 2:] - boxes[:, :2])[:, [0, 1, 0, 1]]
        noised = boxes + sizes * rng.normal(0, _JITTER, boxes.shape)
        return noised[seen].astype(np.float32), np.full(int(seen.sum()), 0.9, dtype=np.float32)


class _InStep:
    """A tracker whose detector knows which frame it is."""

    def __init__(self, tracker: PoseTracker, detector: _SimulatedDetector) -> None:
        self._tracker, self._detector = tracker, detector

    def __call__(self, image_bgr: NDArray[np.uint8], time: float) -> TrackedPoses:
        self._detector.frame = min(round(time * RATE), len(self._detector.film) - 1)
        return self._tracker(image_bgr, time)


def _run(video: Path, folder: Path, estimator: PoseEstimator, film: Sequence[FilmFrame]) -> VideoResult:
    detector = _SimulatedDetector(film)
    tracker = _InStep(PoseTracker(estimator, detector), detector)
    return run_video(FrameSource(video), tracker, folder / "drawn.mp4", folder / "drawn.jsonl")


def _followed(
    film: Sequence[FilmFrame], tracker: PoseTracker, detector: _SimulatedDetector
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Keypoints (T, P, K, 2), NaN where not found, and ids (T, P), 0 there, of the people of a film.

    A person keeps the pose with the id of the last time as long as that is in the right place; the others get those
    that are nearest (CLEAR MOT, Bernardin and Stiefelhagen, 2008).
    """
    in_step = _InStep(tracker, detector)
    keypoints = np.full((len(film), *film[0].keypoints.shape), np.nan)
    ids = np.zeros(keypoints.shape[:2], dtype=np.int64)
    last = np.zeros(keypoints.shape[1], dtype=np.int64)
    for number, frame in enumerate(film):
        found = in_step(frame.image, number / RATE)
        iou = box_iou(frame.boxes, found.poses.boxes)
        rank = iou + (found.ids == last[:, None])  # who has the id of the last time comes first
        rank[iou < _OWN] = -1
        while rank.size and rank.max() >= 0:
            person, pose = np.unravel_index(rank.argmax(), rank.shape)
            keypoints[number, person], ids[number, person] = found.poses.keypoints[pose], found.ids[pose]
            last[person] = found.ids[pose]
            rank[person], rank[:, pose] = -1, -1
    return keypoints, ids


def _switches(ids: NDArray[np.int64]) -> int:
    """How often the id of a person changes, frames without one left out."""
    return int(np.count_nonzero(np.diff(ids[ids > 0])))


def _jitter(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.nanmean(np.square(np.diff(errors, axis=0)).sum(axis=-1))))

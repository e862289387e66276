"""Tracking benchmark: posedy's tracker and those of the package `trackers` on synthetic videos."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.geometry import box_iou
from posedy.inference.association import TrackAssociator
from posedy.skeleton import COCO17
from tools.lab.benchmarks.tracking_inputs import (
    DETECT_EVERY,
    KINDS,
    PEOPLE,
    RATE,
    Detections,
    Recording,
    generate_kind,
    record,
    record_detections,
)

LIBRARY = {"ByteTrack": "ByteTrackTracker", "OC-SORT": "OCSORTTracker", "SORT": "SORTTracker", "C-BIoU": "CBIoUTracker"}
"""Trackers of the package `trackers` and their classes."""
# found by random search on videos of other seeds, as --tune does (ByteTrack: 40 trials, OC-SORT: 24)
TUNED: dict[str, dict[str, float]] = {
    "ByteTrack": {
        "lost_track_buffer": 80,
        "track_activation_threshold": 0.68,
        "minimum_iou_threshold": 0.39,
        "high_conf_det_threshold": 0.46,
        "minimum_consecutive_frames": 1,
    },
    "OC-SORT": {
        "lost_track_buffer": 77,
        "minimum_iou_threshold": 0.41,
        "minimum_consecutive_frames": 3,
        "direction_consistency_weight": 0.44,
        "high_conf_det_threshold": 0.42,
        "delta_t": 1,
    },
}
METRICS = ("HOTA", "AssA", "IDF1", "MOTA", "IDSW")
TUNING_SEEDS = (100, 101)

_MIN_IOU = 0.5  # of a track's box with the ground truth, for MOTA and IDF1

Tracker = Callable[[Detections, float], NDArray[np.int64]]
"""Returns the track ids (P,) of the detections of the next frame at a time in seconds; -1 for none."""


def benchmark_trackers(
    estimator: Any,
    frames: int,
    seeds: Sequence[int],
    tuned: dict[str, dict[str, float]],
    kinds: Sequence[str] = tuple(KINDS),
    log: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Evaluates all trackers on the same videos, detections and poses.

    Args:
        estimator: a `PoseEstimator`; None for poses simulated from the ground truth.
        frames: length of each video, at 30 frames per second.
        seeds: seeds of the videos.
        tuned: parameters of the library's trackers, which are also evaluated with their defaults.
        kinds: names of `KINDS`.
        log: receives a line for each video.

    Returns:
        The metrics of each tracker on each video, in plain types.

    Raises:
        ImportError: if the package `trackers` is not installed.
    """
    _import_trackers()
    videos = []
    for kind in kinds:
        for seed in seeds:
            recording = record(estimator, generate_kind(kind, seed, frames), seed)
            videos.append({"kind": kind, "seed": seed, "trackers": evaluate_trackers(recording, tuned)})
            log(f"{kind}, seed {seed}")
    poses = "simulated" if estimator is None else "predicted"
    return {"frames": frames, "people": PEOPLE, "seeds": list(seeds), "poses": poses, "tuned": tuned, "videos": videos}


def evaluate_trackers(recording: Recording, tuned: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Evaluates all trackers on one recording: metrics and milliseconds per frame, by tracker and input."""
    every_frame = "detector at every frame"
    between = f"detector at every {DETECT_EVERY}th frame, boxes of poses between"
    result = {
        f"posedy, association alone; {every_frame}": _evaluate(recording, "poses", _posedy_tracker()),
        f"posedy; {every_frame}": _evaluate(recording, "tracked 1", _posedy_tracker()),
        f"posedy; {between}": _evaluate(recording, f"tracked {DETECT_EVERY}", _posedy_tracker()),
    }
    for inputs, label in (("detections", every_frame), (f"tracked {DETECT_EVERY}", between)):
        for name in LIBRARY:
            result[f"{name}; {label}"] = _evaluate(recording, inputs, library_tracker(name))
            if name in tuned:
                tracker = library_tracker(name, **tuned[name])
                result[f"{name}, tuned; {label}"] = _evaluate(recording, inputs, tracker)
    return result


def tune_trackers(trials: int, frames: int) -> dict[str, dict[str, float]]:
    """Finds the parameters of the library's trackers with the best mean HOTA, by random search on `TUNING_SEEDS`.

    The ranges are those of the library; `lost_track_buffer` ends at 90 frames for all trackers, the 3 s of posedy. All
    detections are used, at every frame.
    """
    # blur does not change detections
    kinds = [kind for kind in KINDS if "exposure" not in KINDS[kind]]
    recordings = [record_detections(generate_kind(kind, seed, frames), seed) for kind in kinds for seed in TUNING_SEEDS]
    return {name: _tune(name, recordings, trials) for name in LIBRARY}


def _tune(name: str, recordings: Sequence[Recording], trials: int) -> dict[str, float]:
    space = {**_tracker_class(name).search_space, "lost_track_buffer": {"type": "randint", "range": [10, 91]}}
    rng = np.random.default_rng(0)
    best: tuple[float, dict[str, float]] = (-1.0, {})
    for _ in range(trials):
        options: dict[str, float] = {}
        for option, spec in space.items():
            low, high = spec["range"]
            is_integer = spec["type"] == "randint"
            options[option] = int(rng.integers(low, high)) if is_integer else round(float(rng.uniform(low, high)), 2)
        scores = [_evaluate(each, "detections", library_tracker(name, **options))["HOTA"] for each in recordings]
        best = max(best, (float(np.mean(scores)), options), key=lambda item: item[0])
    return best[1]


def track_metrics(
    gt_ids: list[NDArray], gt_boxes: list[NDArray], ids: list[NDArray], boxes: list[NDArray]
) -> dict[str, float]:
    """Computes CLEAR MOT and identity metrics, both at IoU 0.5, and HOTA by `trackers.eval`.

    Args:
        gt_ids: ids (G,) of the people in each frame.
        gt_boxes: boxes (G, 4) of the people in each frame.
        ids: track ids (P,) in each frame.
        boxes: boxes (P, 4) of the tracks in each frame.
    """
    from trackers.eval import compute_clear_metrics, compute_hota_metrics, compute_identity_metrics

    iou = [box_iou(gt, tracked) for gt, tracked in zip(gt_boxes, boxes, strict=True)]
    clear = compute_clear_metrics(gt_ids, ids, iou, threshold=_MIN_IOU)
    identity = compute_identity_metrics(gt_ids, ids, iou, threshold=_MIN_IOU)
    merged = {**clear, **identity, **compute_hota_metrics(gt_ids, ids, iou)}
    return {metric: float(merged[metric]) for metric in METRICS}


def format_trackers(report: dict[str, Any]) -> str:
    """Formats the result of `benchmark_trackers` as tables in Markdown: over all videos, and HOTA by kind."""
    videos = report["videos"]
    kinds = list(dict.fromkeys(video["kind"] for video in videos))
    columns = ("HOTA", "AssA", "IDF1", "MOTA")
    lines = [
        f"{report['people']} people, {report['frames']} frames, seeds {', '.join(map(str, report['seeds']))}, "
        f"{report['poses']} poses; mean of {len(videos)} videos (lowest to highest), sum of id switches",
        "",
        f"| tracker; boxes | {' | '.join(columns)} | id switches | ms per frame | {' | '.join(kinds)} |",
        "|---" * (3 + len(columns) + len(kinds)) + "|",
    ]
    for name in videos[0]["trackers"]:
        rows = [video["trackers"][name] for video in videos]
        cells = [_mean_and_range([row[column] for row in rows]) for column in columns]
        cells.append(f"{sum(row['IDSW'] for row in rows):.0f}")
        cells.append(f"{np.mean([row['ms'] for row in rows]):.2f}")
        for kind in kinds:
            of_kind = [video["trackers"][name] for video in videos if video["kind"] == kind]
            hota, switches = np.mean([row["HOTA"] for row in of_kind]), sum(row["IDSW"] for row in of_kind)
            cells.append(f"{hota:.3f}, {switches:.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Columns of kinds: mean HOTA, id switches."])


def library_tracker(name: str, **options: float) -> Tracker:
    """Creates a tracker of the package `trackers`, one of `LIBRARY`."""
    import supervision

    tracker = _tracker_class(name)(frame_rate=RATE, **options)

    def track(detections: Detections, time: float) -> NDArray[np.int64]:
        rows = np.arange(len(detections.boxes))
        given = supervision.Detections(xyxy=detections.boxes, confidence=detections.scores, data={"row": rows})
        tracked = tracker.update(given)
        ids = np.full(len(rows), -1)
        if len(tracked):
            ids[tracked.data["row"]] = tracked.tracker_id
        return ids

    return track


def _posedy_tracker() -> Tracker:
    associator = TrackAssociator(np.asarray(COCO17.sigmas))

    def track(detections: Detections, time: float) -> NDArray[np.int64]:
        poses, colors = detections.poses, detections.colors
        assert poses is not None
        assert colors is not None
        return associator.update(poses.keypoints, poses.boxes, colors, time)

    return track


def _evaluate(recording: Recording, name: str, tracker: Tracker) -> dict[str, float]:
    ids, boxes, seconds = [], [], []
    for number, detections in enumerate(recording.inputs[name]):
        start = time.perf_counter()
        each = tracker(detections, number / RATE)
        seconds.append(time.perf_counter() - start + detections.color_seconds)
        ids.append(each[each >= 0])
        boxes.append(detections.boxes[each >= 0])
    metrics = track_metrics(recording.gt_ids, recording.gt_boxes, ids, boxes)
    return {**metrics, "ms": 1000 * float(np.median(seconds))}


def _import_trackers() -> Any:
    try:
        import trackers
    except ImportError as error:
        raise ImportError(
            f"the tracking benchmark needs the package trackers ({error}): pip install trackers"
        ) from error
    return trackers


def _tracker_class(name: str) -> Any:
    return getattr(_import_trackers(), LIBRARY[name])


def _mean_and_range(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"

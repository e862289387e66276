"""Prediction on videos and cameras, with drawn videos and keypoints written to files."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.files import check_writable
from posedy.inference.detectors import Detector, create_detector, detector_thresholds
from posedy.inference.estimator import PoseEstimator
from posedy.inference.predict import drawing_names
from posedy.inference.track_outputs import TrackOutputs
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import FrameSource
from posedy.inference.video_pipeline import ShowFrame, VideoResult, run_video
from posedy.poses import format_count

_CLOSE_KEYS = (27, ord("q"))


def predict_videos(
    sources: Sequence[Path | str | int],
    estimator: PoseEstimator,
    detector: str | Detector,
    out: Path,
    *,
    detect_every: int = 10,
    smooth: bool = True,
    keypoint_threshold: float = DRAW_THRESHOLD,
    box_threshold: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    stride: int = 1,
    tracks: TrackOutputs | None = None,
    show: bool = False,
    report: Callable[[str], None] = print,
) -> list[Path | str | int]:
    """Tracks the poses of videos and writes `out`/NAME.mp4 with drawings and `out`/NAME.jsonl with keypoints.

    A video that fails is reported and skipped. Ctrl-C stops after the current frame and keeps what has been written.

    Args:
        sources: video files, URLs of videos and streams, or numbers of cameras, see `FrameSource`.
        estimator: predicts the keypoints.
        detector: a name of `list_detectors()`, or an object with `detect`.
        out: the folder, created if needed.
        detect_every: detection interval in frames.
        smooth: smooth keypoints over time.
        keypoint_threshold: keypoints with scores up to this one are drawn faintly.
        box_threshold: minimum score of boxes of new persons, see `PoseTracker`; None is the detector's own.
        start: time in seconds of the first frame.
        end: time in seconds before which the last frame is; None is the end of the video.
        stride: every N-th frame, from the first one.
        tracks: what is made from the tracks of each video; with offline smoothing `smooth` should be False. None is
            nothing.
        show: show the frames in a window, if one can be opened; Escape or q closes it and stops.
        report: called with lines of text: the network, and the frames and times of each video.

    Returns:
        The sources that failed.

    Raises:
        OSError: if `out` cannot be written, or the detector's weights cannot be read or downloaded.
        TypeError, ValueError: if the detector is invalid.
    """
    failures: list[Path | str | int] = []
    window = _open_window() if show else None
    if show and window is None:
        report("no window can be opened (no display, or OpenCV without GUI support): frames are written to files only")
    videos = check_video_outputs(sources, out)
    lowest = detector_thresholds(detector).with_box_threshold(box_threshold).track_keep
    detector = create_detector(detector, str(estimator.device), threshold=lowest)
    originals = {source.resolve() for source in sources if isinstance(source, Path)}
    report(estimator.description)
    for source, video in zip(sources, videos, strict=True):
        lines = video.with_suffix(".jsonl")
        try:
            if video.resolve() in originals:
                raise ValueError(f"the drawn video {video} would overwrite an input video: choose another --out")
            tracker = PoseTracker(estimator, detector, detect_every, smooth, keypoint_threshold, box_threshold)
            frames = FrameSource(source, start=start, end=end, stride=stride)
            drawing = None if tracks is not None and tracks.draws(source) else video
            result = run_video(frames, tracker, drawing, lines, threshold=keypoint_threshold, show=window)
            report(_format_video_result(source, result, video, lines))
            if tracks is not None:
                tracks.write(
                    source,
                    video,
                    estimator.skeleton,
                    threshold=keypoint_threshold,
                    start=start,
                    stride=stride,
                    report=report,
                )
        except (OSError, ValueError) as error:
            failures.append(source)
            report(f"{source}: FAILED: {error}")
            continue
        if result.interrupted:
            break
    if window is not None:
        cv2.destroyAllWindows()
    if failures:
        report(f"FAILED: {len(failures)} of {len(sources)} videos")
    return failures


def check_video_outputs(sources: Sequence[Path | str | int], out: Path) -> list[Path]:
    """Checks, before networks are loaded, that the files of videos can be written.

    Args:
        sources: video files, URLs of videos and streams, or numbers of cameras, see `FrameSource`.
        out: the folder.

    Returns:
        The file NAME.mp4 of each drawn video, next to NAME.jsonl.

    Raises:
        OSError: if `out` is no folder or cannot be written, or a folder has the name of a file to write.
    """
    inputs = [_input_name(source) for source in sources]
    videos = [out / name for name in drawing_names(inputs, ".mp4")]
    for video in videos:
        check_writable(video)
        check_writable(video.with_suffix(".jsonl"))
    return videos


def _input_name(source: Path | str | int) -> Path:
    """Returns the name from which those of the outputs are made."""
    if isinstance(source, int):
        return Path(f"camera-{source}")
    if isinstance(source, Path):
        return source
    parts = urlsplit(source)
    return Path(Path(parts.path).name or parts.hostname or "stream")


def _format_video_result(source: Path | str | int, result: VideoResult, video: Path, lines: Path) -> str:
    stages = ", ".join(f"{name} {rate:.1f} frames/s" for name, rate in result.stage_rates.items())
    problems = f", {format_count(result.damaged, 'damaged frame')} skipped" if result.damaged else ""
    if result.missing and not result.interrupted:
        problems += f", {format_count(result.missing, 'frame')} of the file's header missing"
    problems += "".join(f", {note}" for note in result.notes)
    interrupted = ", interrupted" if result.interrupted else ""
    return (
        f"{source}: {format_count(result.frames, 'frame')}{problems} in {result.seconds:.1f} s, "
        f"{result.frames_per_second:.1f} frames/s ({stages}; bottleneck: {result.bottleneck}){interrupted} -> {video}, "
        f"{lines}"
    )


def _open_window() -> ShowFrame | None:
    """Opens a window and returns the function that shows a frame in it, or None if no window can be opened."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None
    try:
        cv2.namedWindow("posedy", cv2.WINDOW_NORMAL)
    except cv2.error:
        return None

    def show(frame: NDArray[np.uint8]) -> bool:
        cv2.imshow("posedy", frame)
        return cv2.waitKey(1) not in _CLOSE_KEYS

    return show

"""Prediction on videos and cameras, with drawn videos and keypoints written to files."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
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
from posedy.inference.video_pipeline import ShowFrame, VideoResult, frame_progress, run_video
from posedy.poses import format_count
from posedy.remedies import find_remedy

_logger = logging.getLogger("posedy")

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

    A video that fails is reported and skipped. Ctrl-C stops after the current frame, keeps what has been written, and
    leaves the following videos out, whose number is reported; before the first frame nothing is written. On a terminal
    a line on standard error shows the progress of each video.

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
        The sources that failed or, after Ctrl-C or the closing of the window, were not processed to their end. Cameras
        and live streams have none.

    Raises:
        OSError: if `out` cannot be written, or the detector's weights cannot be read or downloaded.
        TypeError, ValueError: if the detector is invalid, or two videos would be written to the same file.
    """
    failures: list[Path | str | int] = []
    unfinished: list[Path | str | int] = []
    window = _open_window() if show else None
    if show and window is None:
        report("no window can be opened (no display, or OpenCV without GUI support): frames are written to files only")
    videos = check_video_outputs(sources, out, tracks)
    lowest = detector_thresholds(detector).with_box_threshold(box_threshold).track_keep
    detector = create_detector(detector, str(estimator.device), threshold=lowest)
    originals = {source.resolve() for source in sources if isinstance(source, Path)}
    report(estimator.description)
    for number, (source, video) in enumerate(zip(sources, videos, strict=True), start=1):
        lines = video.with_suffix(".jsonl")
        try:
            if video.resolve() in originals:
                raise ValueError(f"the drawn video {video} would overwrite an input video: choose another --out")
            tracker = PoseTracker(estimator, detector, detect_every, smooth, keypoint_threshold, box_threshold)
            frames = FrameSource(source, start=start, end=end, stride=stride)
            with ExitStack() as stack:
                drawing: Path | None = video
                keypoints = lines
                if tracks is not None and tracks.draws(source):
                    # earlier files stay until the video has been smoothed and drawn
                    out.mkdir(parents=True, exist_ok=True)
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=out))
                    drawing, keypoints = None, Path(folder) / "raw.jsonl"
                with frame_progress(_input_name(source).name, frames.count) as count_frame:
                    result = run_video(
                        *(frames, lambda frame, track=tracker: track(frame.image, frame.time), drawing, keypoints),
                        threshold=keypoint_threshold,
                        show=window,
                        on_frame=count_frame,
                    )
                is_interrupted = result.interrupted
                report(_format_video_result(source, result, [] if drawing is None else [video, lines]))
                if tracks is not None and result.frames:
                    is_interrupted |= tracks.write(
                        *(source, video, estimator.skeleton),
                        raw=keypoints,
                        threshold=keypoint_threshold,
                        start=start,
                        stride=stride,
                        report=report,
                    )
        except Exception as error:  # of one video, of which others know nothing
            failures.append(source)
            report(f"{source}: FAILED: {_describe_error(error)}")
            _logger.debug("%s", source, exc_info=True)
            continue
        if is_interrupted:
            skipped = sources[number:]
            unfinished = [*([] if frames.is_live else [source]), *skipped]
            if skipped:
                report(f"interrupted: {len(skipped)} of {len(sources)} videos were not processed")
            break
    if window is not None:
        cv2.destroyAllWindows()
    if failures:
        report(f"FAILED: {len(failures)} of {len(sources)} videos")
    return [*failures, *unfinished]


def _describe_error(error: Exception) -> str:
    """Returns the message of an expected error, and the remedy or the type and message of another one."""
    if isinstance(error, OSError | ValueError) and not isinstance(error, UnicodeError):
        return str(error)
    return find_remedy(error) or f"{type(error).__name__}: {error}; run again with --debug for the traceback"


def check_video_outputs(
    sources: Sequence[Path | str | int],
    out: Path,
    tracks: TrackOutputs | None = None,
    drawings: Sequence[Path] = (),
) -> list[Path]:
    """Checks, before networks are loaded, that the files of videos can be written.

    Args:
        sources: video files, URLs of videos and streams, or numbers of cameras, see `FrameSource`.
        out: the folder.
        tracks: what is made from the tracks of each video; None is nothing.
        drawings: files of other inputs in the folder.

    Returns:
        The file NAME.mp4 of each drawn video, next to NAME.jsonl.

    Raises:
        OSError: if `out` is no folder or cannot be written, or a folder has the name of a file to write.
        ValueError: if files of two inputs would have the same name.
    """
    inputs = [_input_name(source) for source in sources]
    videos = [out / name for name in drawing_names(inputs, ".mp4")]
    owners = {path.name.casefold(): "the drawing of an image" for path in drawings}
    for source, video in zip(sources, videos, strict=True):
        for path in (video, video.with_suffix(".jsonl"), *(tracks.paths(video) if tracks is not None else ())):
            other = owners.setdefault(path.name.casefold(), str(source))
            if other != str(source):
                raise ValueError(
                    f"{path} would be written for {source} and for {other}: rename one of them, or predict them with "
                    "different --out"
                )
        check_writable(video)
        check_writable(video.with_suffix(".jsonl"))
    if tracks is not None:
        tracks.check(videos)
    return videos


def _input_name(source: Path | str | int) -> Path:
    """Returns the name from which those of the outputs are made."""
    if isinstance(source, int):
        return Path(f"camera-{source}")
    if isinstance(source, Path):
        return source
    parts = urlsplit(source)
    return Path(Path(parts.path).name or parts.hostname or "stream")


def _format_video_result(source: Path | str | int, result: VideoResult, files: Sequence[Path]) -> str:
    if result.interrupted and not result.frames:
        return f"{source}: interrupted before the first frame, so that nothing was written"
    stages = ", ".join(f"{name} {rate:.1f} frames/s" for name, rate in result.stage_rates.items())
    problems = f", {format_count(result.damaged, 'damaged frame')} skipped" if result.damaged else ""
    if result.missing and not result.interrupted:
        problems += f", {format_count(result.missing, 'frame')} of the file's header missing"
    if result.dropped:
        problems += f", {format_count(result.dropped, 'late frame')} dropped"
    problems += "".join(f", {note}" for note in result.notes)
    interrupted = ", interrupted" if result.interrupted else ""
    return (
        f"{source}: {format_count(result.frames, 'frame')}{problems} in {result.seconds:.1f} s, "
        f"{result.frames_per_second:.1f} frames/s ({stages}; bottleneck: {result.bottleneck}){interrupted}"
        f"{' -> ' if files else ''}{', '.join(map(str, files))}"
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

"""Videos and cameras from the command line."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.files import check_can_write
from posedy.inference.annotate import drawing_names
from posedy.inference.box_threshold import BOX_THRESHOLD
from posedy.inference.detectors import Detector
from posedy.inference.estimator import PoseEstimator
from posedy.inference.video.frames import FrameSource
from posedy.inference.video.pipeline import Show, VideoOutcome, run_video
from posedy.inference.video.tracking import PoseTracker

_KEYS_TO_END = (27, ord("q"))


def annotate_videos(
    sources: Sequence[Path | int],
    estimator: PoseEstimator,
    detector: Detector,
    out: Path,
    *,
    every: int = 10,
    smooth: bool = True,
    threshold: float = DRAW_THRESHOLD,
    box_threshold: float = BOX_THRESHOLD,
    show: bool = False,
    report: Callable[[str], None] = print,
) -> list[Path | int]:
    """Writes `out`/NAME.mp4 with the poses drawn and `out`/NAME.jsonl with the keypoints of each frame.

    A video that cannot be done is reported, and the others are done; Ctrl-C ends all of them, and what was done stays.

    Args:
        sources: video files, or the numbers of cameras.
        estimator: of the poses.
        detector: of the persons.
        out: the folder, made if needed.
        every: the detector is asked at every N-th frame.
        smooth: whether keypoints are smoothed over time.
        threshold: keypoints with scores up to this one are drawn faint.
        box_threshold: boxes of the detector with lower scores are not used.
        show: whether to show a window, if there can be one; Escape or q ends it.
        report: takes lines of text.

    Returns:
        The sources that could not be done.

    Raises:
        OSError: if nothing can be written into `out`.
    """
    failures: list[Path | int] = []
    window = _window() if show else None
    if show and window is None:
        report("no window can be opened here (no display, or OpenCV without windows): drawn frames go to files only")
    names = drawing_names(
        [source if isinstance(source, Path) else Path(f"camera-{source}") for source in sources], ".mp4"
    )
    check_can_write(out / names[0])
    originals = {source.resolve() for source in sources if isinstance(source, Path)}
    for source, name in zip(sources, names, strict=True):
        video, lines = out / name, (out / name).with_suffix(".jsonl")
        try:
            if video.resolve() in originals:
                raise ValueError(f"the drawn video {video} would take the place of a video: choose another --out")
            tracker = PoseTracker(estimator, detector, every, smooth, threshold, box_threshold)
            outcome = run_video(FrameSource(source), tracker, video, lines, threshold=threshold, show=window)
        except (OSError, ValueError) as error:
            failures.append(source)
            report(f"{source}: NOT DONE: {error}")
            continue
        report(_told(source, outcome, video, lines))
        if outcome.interrupted:
            break
    if window is not None:
        cv2.destroyAllWindows()
    return failures


def _told(source: Path | int, outcome: VideoOutcome, video: Path, lines: Path) -> str:
    frames = max(outcome.frames, 1)
    stages = ", ".join(f"{name} {1000 * spent / frames:.1f} ms" for name, spent in outcome.stages.items())
    damaged = f", {outcome.damaged} damaged ones left out" if outcome.damaged else ""
    if outcome.missing and not outcome.interrupted:
        damaged += f", {outcome.missing} that the file promises are not there"
    stopped = ", stopped" if outcome.interrupted else ""
    return (
        f"{source}: {outcome.frames} frames{damaged} in {outcome.seconds:.1f} s, {outcome.frames_per_second:.1f} a "
        f"second (each: {stages}){stopped} -> {video}, {lines}"
    )


def _window() -> Show | None:
    """Shows frames in a window; None where there can be none."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None
    try:
        cv2.namedWindow("posedy", cv2.WINDOW_NORMAL)
    except cv2.error:
        return None

    def show(picture: NDArray[np.uint8]) -> bool:
        cv2.imshow("posedy", picture)
        return cv2.waitKey(1) not in _KEYS_TO_END

    return show

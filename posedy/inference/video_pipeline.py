"""From frames to drawn frames: reading, finding poses and writing at the same time."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD, label
from posedy.inference.threads import ReadAhead, Worker
from posedy.inference.tracking import TrackedPoses
from posedy.inference.video_io import Frame, FrameSource, KeypointLines, VideoRecording

_WAITING = 4  # frames between two threads
_RATE_OVER = 30  # frames over which the rate on the picture is measured

Track = Callable[[NDArray[np.uint8], float], TrackedPoses]
"""Finds the poses of the next frame (H, W, 3) BGR at a time in seconds, such as a `PoseTracker`."""

Show = Callable[[NDArray[np.uint8]], bool]
"""Shows a drawn frame; false ends the video."""


@dataclass
class VideoResult:
    """What came of a video.

    Attributes:
        frames: how many were done.
        damaged: how many could not be read.
        missing: how many the file's header promises beyond the last one that could be read.
        seconds: in all.
        stages: seconds that each stage worked; they overlap.
        interrupted: whether Ctrl-C, or the window, ended it.
    """

    frames: int = 0
    damaged: int = 0
    missing: int = 0
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "poses": 0.0, "draw and write": 0.0})
    interrupted: bool = False

    @property
    def frames_per_second(self) -> float:
        """Over the whole run."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def run_video(
    source: FrameSource,
    tracker: Track,
    video: Path | None = None,
    lines: Path | None = None,
    *,
    threshold: float = DRAW_THRESHOLD,
    show: Show | None = None,
    found: Callable[[Frame, TrackedPoses], None] | None = None,
) -> VideoResult:
    """Finds and draws the poses of all frames; whatever ends it, what was done is in the files.

    Args:
        source: of the frames; it is closed at the end.
        tracker: finds poses.
        video: NAME.mp4 or NAME.webm for the drawn frames, see `VideoRecording`.
        lines: a file for the keypoints, a JSON object for each frame.
        threshold: keypoints with scores up to this one are drawn faint.
        show: shows drawn frames.
        found: is told the poses of each frame.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if no frame can be read.
    """
    outcome = VideoResult()
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.callback(source.close)
        recording = VideoRecording(video, source.rate) if video is not None else None
        keypoints = KeypointLines(lines) if lines is not None else None
        for file in (recording, keypoints):
            if file is not None:
                stack.callback(file.close)
        sink = _Sink(recording, keypoints, threshold, show is not None, outcome)
        writer = Worker(sink.write, _WAITING)
        stack.callback(writer.close)
        frames = ReadAhead(_timed(source, outcome), _WAITING)
        stack.callback(frames.close)
        try:
            for frame in frames:
                with _Clock(outcome, "poses"):
                    poses = tracker(frame.image, frame.time)
                outcome.frames += 1
                if found is not None:
                    found(frame, poses)
                writer.put((frame, poses))
                # windows belong to this thread: OpenCV's wait for it, or break, in others
                if show is not None and (picture := sink.take_picture()) is not None and not show(picture):
                    outcome.interrupted = True
                    break
        except KeyboardInterrupt:
            outcome.interrupted = True
    outcome.damaged, outcome.missing = source.damaged, source.missing
    if not outcome.frames and not outcome.interrupted:
        raise ValueError(f"{source.name} has no frame that can be read")
    outcome.seconds = time.perf_counter() - began
    return outcome


class _Sink:
    """Draws and writes what was found in a frame, and keeps the last picture to be shown."""

    def __init__(
        self,
        recording: VideoRecording | None,
        keypoints: KeypointLines | None,
        threshold: float,
        shown: bool,
        outcome: VideoResult,
    ) -> None:
        self.recording, self.keypoints, self.threshold, self.shown = recording, keypoints, threshold, shown
        self.outcome = outcome
        self.pictures: deque[NDArray[np.uint8]] = deque(maxlen=1)
        self.times: list[float] = []

    def take_picture(self) -> NDArray[np.uint8] | None:
        """The last drawn frame, once."""
        try:
            return self.pictures.pop()
        except IndexError:
            return None

    def write(self, item: tuple[Frame, TrackedPoses]) -> None:
        frame, found = item
        with _Clock(self.outcome, "draw and write"):
            if self.keypoints is not None:
                record = {"frame": frame.number, "time": round(frame.time, 4), "persons": found.to_records()}
                self.keypoints.write(record)
            if self.recording is None and not self.shown:
                return
            picture = self._drawn(frame, found)
            if self.recording is not None:
                self.recording.write(picture, frame.time)
            if self.shown:
                self.pictures.append(picture)

    def _drawn(self, frame: Frame, found: TrackedPoses) -> NDArray[np.uint8]:
        picture = found.poses.draw(frame.image, self.threshold)
        for id_, box in zip(found.ids, found.poses.boxes, strict=True):
            label(picture, (float(box[0]), float(box[1])), str(id_))
        self.times = [*self.times[-_RATE_OVER:], time.perf_counter()]
        if len(self.times) > 1:
            rate = (len(self.times) - 1) / (self.times[-1] - self.times[0])
            label(picture, (0, 0), f"{rate:.1f} frames/s")
        return picture


class _Clock:
    """Adds the time of a block to a stage."""

    def __init__(self, outcome: VideoResult, stage: str) -> None:
        self.outcome, self.stage = outcome, stage

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.outcome.stages[self.stage] += time.perf_counter() - self.began


def _timed(source: FrameSource, outcome: VideoResult) -> Iterator[Frame]:
    iterator = iter(source)
    while True:
        with _Clock(outcome, "read"):
            frame = next(iterator, None)
        if frame is None:
            return
        yield frame

"""Video pipeline: reading, pose tracking and writing run concurrently."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posedy.drawing import DRAW_THRESHOLD, draw_label, draw_person_label
from posedy.inference.interrupt_guard import InterruptGuard
from posedy.inference.threads import FRAME_QUEUE_SIZE, Prefetcher, Worker
from posedy.inference.video_io import Frame, FrameSource
from posedy.inference.video_writer import JsonLinesWriter, VideoWriter
from posedy.poses import Poses

_RATE_FRAMES = 30  # frames over which the displayed frame rate is averaged

ShowFrame = Callable[[NDArray[np.uint8]], bool]
"""Function that displays a drawn frame; it returns False to stop the video."""


@dataclass
class VideoResult:
    """Summary of a processed video.

    Attributes:
        frames: number of processed frames.
        damaged: number of unreadable frames.
        missing: number of frames in the file's header beyond the last readable one.
        dropped: number of frames of a live source that came too fast.
        notes: lines of text about sound that was left out of the drawn video.
        seconds: total time.
        stages: seconds spent in each stage; stages overlap.
        interrupted: whether Ctrl-C or the window stopped the video.
    """

    frames: int = 0
    damaged: int = 0
    missing: int = 0
    dropped: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "poses": 0.0, "draw and write": 0.0})
    interrupted: bool = False

    @property
    def frames_per_second(self) -> float:
        """Mean frame rate of the whole video."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def stage_rates(self) -> dict[str, float]:
        """Frames per second that each stage would reach alone."""
        return {name: self.frames / spent for name, spent in self.stages.items() if spent > 0}

    @property
    def bottleneck(self) -> str:
        """The stage that took the longest, which limits the frame rate since stages overlap."""
        return max(self.stages, key=lambda name: self.stages[name])


def run_video(
    source: FrameSource,
    find_poses: Callable[[Frame], Poses],
    video_path: Path | None = None,
    keypoints_path: Path | None = None,
    *,
    threshold: float = DRAW_THRESHOLD,
    show: ShowFrame | None = None,
    on_frame: Callable[[Frame, Poses], None] | None = None,
) -> VideoResult:
    """Draws and writes the poses that a function finds for each frame, for `posedy predict`.

    After Ctrl-C the files hold all frames up to then, even if it is pressed again; without a frame, and after an
    error, no file is written, and earlier ones stay.

    Args:
        source: frames; closed at the end.
        find_poses: returns the poses of a frame, such as of a `PoseTracker`; called with the frames in their order.
        video_path: NAME.mp4 or NAME.webm for the drawn frames, with the sound of the source, see `VideoWriter`.
        keypoints_path: JSON Lines file for the keypoints, one object per frame.
        threshold: keypoints with scores up to this value are drawn faint.
        show: displays drawn frames, with the frame rate, which the drawn video does not have.
        on_frame: called with each frame and its poses.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if no frame can be read.
    """
    result = VideoResult()
    began = time.perf_counter()
    with _prefetched(source, result) as frames, InterruptGuard() as guard, ExitStack() as stack:
        keypoints = JsonLinesWriter(keypoints_path) if keypoints_path is not None else None
        if keypoints is not None:
            stack.push(_CloseOrDiscard(keypoints, result))
        video = VideoWriter(video_path, source.rate, source.path) if video_path is not None else None
        if video is not None:
            stack.push(_CloseOrDiscard(video, result))
        output = _Output(video, keypoints, threshold, show is not None, result)
        writer = Worker(output.write, FRAME_QUEUE_SIZE)
        stack.callback(writer.close)
        try:
            for frame in frames:
                with _StageTimer(result, "poses"):
                    poses = find_poses(frame)
                if on_frame is not None:
                    on_frame(frame, poses)
                writer.put((frame, poses))
                result.frames += 1
                # OpenCV's windows work in the main thread only
                if show is not None and (drawing := output.take_drawing()) is not None and not show(drawing):
                    result.interrupted = True
                    break
                if guard.is_interrupted:  # Python dropped the KeyboardInterrupt, as in a finalizer
                    break
            guard.close()
        except KeyboardInterrupt:
            guard.close()
            result.interrupted = True
            with suppress(OSError):  # Ctrl-C also ends the program that reads the output
                tqdm.write("stopping ...", file=sys.stderr)
    result.interrupted |= guard.is_interrupted
    result.damaged, result.missing, result.dropped = source.damaged, source.missing, frames.dropped
    if video is not None:
        is_lost = source.has_sound and source.path is None  # a second connection may get another part of a stream
        result.notes = [*video.notes, *(["sound left out (read from a URL)"] if is_lost else [])]
    result.seconds = time.perf_counter() - began
    return result


@contextmanager
def _prefetched(source: FrameSource, result: VideoResult) -> Iterator[Prefetcher[Frame]]:
    """Reads a source in a background thread, and closes it at the end of the block."""
    frames = Prefetcher(_timed(source, result), FRAME_QUEUE_SIZE, drops=source.is_live)
    try:
        yield frames
    finally:
        try:
            frames.close()
        except KeyboardInterrupt:  # the thread waits for a stream, which must stay open as long
            result.interrupted = True
        else:
            source.close()


@contextmanager
def frame_progress(name: str, count: int | None) -> Iterator[Callable[[Frame, Poses], None]]:
    """Shows one line on standard error during the block, if that is a terminal: frames, their rate and the time left.

    Args:
        name: name of the video.
        count: number of its frames, if known.

    Yields:
        A function to call with each frame.
    """
    with tqdm(total=count, desc=name, unit=" frames", leave=False, disable=None, dynamic_ncols=True) as bar:

        def count_frame(frame: Frame, poses: Poses) -> None:
            bar.update()

        yield count_frame


class _CloseOrDiscard:
    """Exit of a block that closes a file, or discards it after an error or without a frame: earlier results stay."""

    def __init__(self, file: VideoWriter | JsonLinesWriter, result: VideoResult) -> None:
        self._file, self._result = file, result

    def __call__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is None and self._result.frames:
            self._file.close()
        else:
            self._file.discard()


class _Output:
    """Output stage: draws and writes the poses of frames, and keeps the latest drawing for display."""

    def __init__(
        self,
        video: VideoWriter | None,
        keypoints: JsonLinesWriter | None,
        threshold: float,
        keeps_drawing: bool,
        result: VideoResult,
    ) -> None:
        self.video, self.keypoints, self.threshold, self.keeps_drawing = video, keypoints, threshold, keeps_drawing
        self.result = result
        self.drawings: deque[NDArray[np.uint8]] = deque(maxlen=1)
        self.times: list[float] = []

    def take_drawing(self) -> NDArray[np.uint8] | None:
        """Returns the latest drawn frame; None if it was already taken."""
        try:
            return self.drawings.pop()
        except IndexError:
            return None

    def write(self, item: tuple[Frame, Poses]) -> None:
        frame, poses = item
        with _StageTimer(self.result, "draw and write"):
            if self.keypoints is not None:
                record = {"frame": frame.number, "time": round(frame.time, 4), "persons": poses.to_records()}
                self.keypoints.write(record)
            if self.video is None and not self.keeps_drawing:
                return
            drawing = self._draw(frame, poses)
            if self.video is not None:
                self.video.write(drawing, frame.time)
            if self.keeps_drawing:
                self.drawings.append(self._with_rate(drawing))

    def _draw(self, frame: Frame, poses: Poses) -> NDArray[np.uint8]:
        drawing = poses.draw(frame.image, self.threshold)
        for pose in poses:
            if pose.track_id is not None:
                draw_person_label(drawing, str(pose.track_id), pose.keypoints, pose.scores, pose.box, self.threshold)
        return drawing

    def _with_rate(self, drawing: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns a copy of a drawing with the present frame rate; the video writer may still read the drawing."""
        drawing = drawing.copy()
        self.times = [*self.times[-_RATE_FRAMES:], time.perf_counter()]
        if len(self.times) > 1:
            rate = (len(self.times) - 1) / (self.times[-1] - self.times[0])
            draw_label(drawing, (0, 0), f"{rate:.1f} frames/s")
        return drawing


class _StageTimer:
    """Context manager that adds the duration of a block to a stage."""

    def __init__(self, result: VideoResult, stage: str) -> None:
        self.result, self.stage = result, stage

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.result.stages[self.stage] += time.perf_counter() - self.began


def _timed(source: FrameSource, result: VideoResult) -> Iterator[Frame]:
    iterator = iter(source)
    while True:
        with _StageTimer(result, "read"):
            frame = next(iterator, None)
        if frame is None:
            return
        yield frame

"""What `posedy predict` does with the tracks of a finished video: offline smoothing, and files of other formats."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posedy.drawing import DRAW_THRESHOLD
from posedy.files import check_writable
from posedy.inference.contact_sheet import write_contact_sheet
from posedy.inference.keypoint_angles import angle_files, write_angles
from posedy.inference.track_files import check_track_files, track_files, write_track_files
from posedy.inference.track_table import TrackTable
from posedy.inference.video_io import Frame, FrameSource
from posedy.inference.video_pipeline import VideoResult, frame_progress, run_video
from posedy.inference.video_writer import WholeFile
from posedy.poses import Poses, format_count
from posedy.skeleton import Skeleton


@dataclass(frozen=True)
class TrackOutputs:
    """Settings of the optional outputs of a video: smoothed tracks, other file formats and plots.

    Attributes:
        smooth: whether to smooth the tracks offline (`smooth_tracks`); NAME.jsonl is replaced, and NAME.mp4 is drawn
            afterwards if the source is a file, which is read a second time.
        formats: some of `TRACK_FORMATS`, see `write_track_files`.
        plots: whether to write NAME-frames.jpg, see `write_contact_sheet`, and NAME-angles.csv and NAME-angles.png, see
            `write_angles`.
    """

    smooth: bool = False
    formats: Sequence[str] = ()
    plots: bool = False

    def draws(self, source: Path | str | int) -> bool:
        """Returns whether `write` draws the video of a source: if it is smoothed and can be read again."""
        return self.smooth and isinstance(source, Path)

    def check(self, videos: Iterable[Path]) -> None:
        """Checks, before networks are loaded, that the files of each NAME.mp4 can be written.

        Raises:
            OSError: if a file cannot be written.
        """
        for video in videos:
            check_track_files(video.with_suffix(".jsonl"), self.formats)
            for path in self._plots_of(video):
                check_writable(path)

    def paths(self, video: Path) -> list[Path]:
        """Returns the files and folders that `write` makes besides NAME.jsonl and NAME.mp4."""
        return [*track_files(video.with_suffix(".jsonl"), self.formats), *self._plots_of(video)]

    def write(
        self,
        source: Path | str | int,
        video: Path,
        skeleton: Skeleton,
        *,
        raw: Path | None = None,
        threshold: float = DRAW_THRESHOLD,
        start: float = 0.0,
        stride: int = 1,
        report: Callable[[str], None] = print,
    ) -> bool:
        """Writes the optional outputs of a processed video: smoothed tracks, other file formats and plots.

        NAME.jsonl is replaced only after the video has been drawn, so that an error leaves no files of two runs.

        Args:
            source: the video file, stream or camera.
            video: NAME.mp4, next to NAME.jsonl.
            skeleton: the skeleton of the keypoints.
            raw: the file with the keypoints; None for NAME.jsonl.
            threshold: keypoints with scores up to this one are drawn faintly.
            start: time in seconds of the first frame that was read from the source.
            stride: every N-th frame was read.
            report: called with lines of text.

        Returns:
            Whether Ctrl-C interrupted the drawing; the other outputs are made nevertheless.

        Raises:
            OSError, ValueError: if a file cannot be read or written.
        """
        lines = video.with_suffix(".jsonl")
        table = TrackTable.read(raw or lines, skeleton)
        is_interrupted, is_drawn = False, True
        if self.smooth:
            from posedy.inference.offline_smoothing import smooth_tracks  # scipy is imported for it only

            note = f"{video} shows the keypoints before smoothing, as {source} cannot be read again"
            try:
                smoothed = smooth_tracks(table)
                with ExitStack() as stack:
                    file = WholeFile(lines)
                    stack.callback(file.discard)  # does nothing after commit
                    with file.named_errors():
                        smoothed.write(file.temporary)
                    table = TrackTable.read(file.temporary, skeleton)  # rounded, as other readers of the file get them
                    if self.draws(source):
                        result = _draw(source, table, video, threshold, start, stride)
                        is_interrupted, is_drawn = result.interrupted, result.frames > 0
                        note = _describe_drawing(result, table, video)
                    file.commit()
            except (OSError, ValueError, KeyboardInterrupt):
                if raw is not None and raw != lines and not video.exists():
                    # they took long, and no earlier video contradicts them
                    raw.replace(lines)
                    report(f"{source}: not smoothed, the keypoints before smoothing -> {lines}")
                raise
            count = format_count(int(smoothed.filled.sum()), "keypoint")
            report(f"{source}: smoothed offline, {count} filled -> {lines}; {note}")
        paths = write_track_files(table, lines, self.formats)
        if "trc" in self.formats and not len(table):
            report(f"{source}: no TRC file: nobody was tracked")
        if self.plots:
            if is_drawn:
                write_contact_sheet(video, _sheet_of(video))
                paths.append(_sheet_of(video))
            angle_paths = write_angles(table, lines)
            paths += angle_paths
            if not angle_paths:
                report(f"{source}: no angles: the skeleton has no shoulder, elbow, hip and knee of one side by name")
        if paths:
            report(f"{source}: tracks -> {', '.join(map(str, paths))}")
        return is_interrupted

    def _plots_of(self, video: Path) -> list[Path]:
        return [_sheet_of(video), *angle_files(video.with_suffix(".jsonl"))] if self.plots else []


def _sheet_of(video: Path) -> Path:
    return video.with_name(f"{video.stem}-frames.jpg")


def _draw(
    source: Path | str | int, table: TrackTable, video: Path, threshold: float, start: float, stride: int
) -> VideoResult:
    """Reads the frames of a table again and draws their poses."""
    rows_at = {number: rows for number, _, rows in table.rows_by_frame()}
    nobody = np.zeros(0, dtype=np.int64)

    def find_poses(frame: Frame) -> Poses:
        return table.poses_of(rows_at.get(frame.number, nobody))

    # the table ends earlier than the video after Ctrl-C
    end = float(table.times[-1]) + 0.5 / table.rate
    frames = FrameSource(source, start=start, end=end, stride=stride)
    with frame_progress(f"{video.name}: drawing", len(table.frames)) as count_frame:
        return run_video(frames, find_poses, video, threshold=threshold, on_frame=count_frame)


def _describe_drawing(result: VideoResult, table: TrackTable, video: Path) -> str:
    """Describes the drawing of a video, after Ctrl-C also how much of it there is."""
    if result.interrupted and not result.frames:
        return f"interrupted before the first frame was drawn, so that {video} was not written"
    part = ""
    if result.interrupted:
        part = f"interrupted, {result.frames} of {format_count(len(table.frames), 'frame')} "
    return ", ".join([f"{part}drawn in {result.seconds:.1f} s -> {video}", *result.notes])

"""What `posedy predict` does with the tracks of a finished video: offline smoothing, and files of other formats."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.files import check_writable
from posedy.inference.contact_sheet import write_contact_sheet
from posedy.inference.keypoint_angles import check_angle_files, write_angles
from posedy.inference.track_files import check_track_files, write_track_files
from posedy.inference.track_table import TrackTable
from posedy.inference.video_io import FrameSource
from posedy.inference.video_pipeline import run_video
from posedy.poses import Poses, format_count
from posedy.skeleton import Skeleton


@dataclass(frozen=True)
class TrackOutputs:
    """The choice of what is made from NAME.jsonl of a video.

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
            if self.plots:
                check_angle_files(video.with_suffix(".jsonl"))
                check_writable(_sheet_of(video))

    def write(
        self,
        source: Path | str | int,
        video: Path,
        skeleton: Skeleton,
        *,
        threshold: float = DRAW_THRESHOLD,
        start: float = 0.0,
        stride: int = 1,
        report: Callable[[str], None] = print,
    ) -> None:
        """Makes the outputs of a finished video.

        Args:
            source: the video file, stream or camera.
            video: NAME.mp4, next to NAME.jsonl.
            skeleton: the skeleton of the keypoints.
            threshold: keypoints with scores up to this one are drawn faintly.
            start: time in seconds of the first frame that was read from the source.
            stride: every N-th frame was read.
            report: called with lines of text.

        Raises:
            OSError, ValueError: if a file cannot be read or written.
        """
        lines = video.with_suffix(".jsonl")
        table = TrackTable.read(lines, skeleton)
        if self.smooth:
            from posedy.inference.offline_smoothing import smooth_tracks  # scipy is imported for it only

            smoothed = smooth_tracks(table)
            smoothed.write(lines)
            count = format_count(int(smoothed.filled.sum()), "keypoint")
            table = TrackTable.read(lines, skeleton)  # rounded, as other readers of the file get them
            note = f"{video} shows the keypoints before smoothing, as {source} cannot be read again"
            if self.draws(source) and len(table.frames):
                notes = _draw(source, table, video, threshold, start, stride)
                note = ", ".join([f"drawn -> {video}", *notes])
            report(f"{source}: smoothed offline, {count} filled -> {lines}; {note}")
        paths = write_track_files(table, lines, self.formats)
        if self.plots:
            write_contact_sheet(video, _sheet_of(video))
            angle_paths = write_angles(table, lines)
            paths += [_sheet_of(video), *angle_paths]
            if not angle_paths:
                report(f"{source}: no angles: the skeleton has no shoulder, elbow, hip and knee of one side by name")
        if paths:
            report(f"{source}: tracks -> {', '.join(map(str, paths))}")


def _sheet_of(video: Path) -> Path:
    return video.with_name(f"{video.stem}-frames.jpg")


def _draw(
    source: Path | str | int, table: TrackTable, video: Path, threshold: float, start: float, stride: int
) -> list[str]:
    """Reads the frames of a table again and draws their poses; returns the notes about sound."""
    rows_at = {round(time, 4): rows for _, time, rows in table.rows_by_frame()}
    nobody = np.zeros(0, dtype=np.int64)

    def find_poses(frame: NDArray[np.uint8], time: float) -> Poses:
        return table.poses_of(rows_at.get(round(time, 4), nobody))

    # the table ends earlier than the video after Ctrl-C
    end = float(table.times[-1]) + 0.5 / table.rate
    frames = FrameSource(source, start=start, end=end, stride=stride)
    return run_video(frames, find_poses, video, threshold=threshold).notes

"""Angles at elbows, shoulders, hips and knees over time: tables and plots of tracks."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD, LEFT, RIGHT
from posedy.files import named_write_errors, write_bytes_atomically
from posedy.inference.track_table import TrackTable

_SIDES = ("left", "right")
_LINES: dict[str, tuple[str, str, str]] = {
    "elbow": ("shoulder", "elbow", "wrist"),
    "shoulder": ("elbow", "shoulder", "hip"),
    "hip": ("shoulder", "hip", "knee"),
    "knee": ("hip", "knee", "ankle"),
}
_MAX_TRACKS = 6


def compute_angles(table: TrackTable, min_score: float = DRAW_THRESHOLD) -> dict[str, NDArray[np.float64]]:
    """Computes the angles at elbows, shoulders, hips and knees in the plane of the image, in degrees.

    The angle at a keypoint b between the lines to a and c is atan2(|u x v|, u . v) with u = a - b and v = c - b: 180
    for a straight limb, and never more. It is that of the projection, not the anatomical one, unless the limb moves in
    parallel to the image.

        elbow      shoulder - elbow - wrist
        shoulder   elbow - shoulder - hip
        hip        shoulder - hip - knee
        knee       hip - knee - ankle

    Args:
        table: the tracks, of a skeleton with COCO's names; angles of names that it does not have are left out.
        min_score: an angle is undefined if one of its three keypoints has a score up to this one.

    Returns:
        The angles (R,) by name, such as left_elbow; NaN where undefined.
    """
    names = table.skeleton.keypoints
    angles = {}
    for part, line in _LINES.items():
        for side in _SIDES:
            keypoints = [f"{side}_{name}" for name in line]
            if not set(keypoints) <= set(names):
                continue
            indices = [names.index(name) for name in keypoints]
            a, b, c = (table.keypoints[:, index] for index in indices)
            u, v = a - b, c - b
            cross, dot = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0], (u * v).sum(axis=1)
            is_defined = (
                (table.scores[:, indices] > min_score).all(axis=1) & (u != 0).any(axis=1) & (v != 0).any(axis=1)
            )
            angles[f"{side}_{part}"] = np.where(is_defined, np.degrees(np.arctan2(np.abs(cross), dot)), np.nan)
    return angles


def write_angles(table: TrackTable, lines: Path) -> list[Path]:
    """Writes the angles of tracks over time, next to NAME.jsonl.

    NAME-angles.csv has the columns frame, time, track_id and one per angle, empty where undefined; NAME-angles.png is
    their plot, with a row for each of the six longest tracks.

    Args:
        table: the tracks.
        lines: NAME.jsonl.

    Returns:
        The files; none if the skeleton has none of the angles.

    Raises:
        OSError: if a file cannot be written.
    """
    angles = compute_angles(table)
    if not angles:
        return []
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("frame", "time", "track_id", *angles))
    for number, time, rows in table.rows_by_frame():
        for row in rows:
            values = (angle[row] for angle in angles.values())
            cells = ("" if np.isnan(value) else round(float(value), 1) for value in values)
            writer.writerow((number, round(time, 4), int(table.track_ids[row]), *cells))
    paths = angle_files(lines)
    contents = text.getvalue().encode(), plot_angles(table, angles, lines.stem)
    for path, content in zip(paths, contents, strict=True):
        with named_write_errors(path):
            write_bytes_atomically(path, content)
    return list(paths)


def angle_files(lines: Path) -> tuple[Path, Path]:
    """Returns the table and the plot of `write_angles` next to NAME.jsonl."""
    return lines.with_name(f"{lines.stem}-angles.csv"), lines.with_name(f"{lines.stem}-angles.png")


def plot_angles(table: TrackTable, angles: dict[str, NDArray[np.float64]], title: str) -> bytes:
    """Plots angles over time, left ones orange and right ones blue as in drawings; returns a PNG file.

    Args:
        table: the tracks.
        angles: those of `compute_angles`, at least one.
        title: the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tracks = sorted(table.tracks(), key=lambda track: -len(track[1]))
    shown = sorted(tracks[:_MAX_TRACKS], key=lambda track: track[0])
    parts = [part for part in _LINES if any(f"{side}_{part}" in angles for side in _SIDES)]
    count = max(len(shown), 1)
    width, height = 3.6 * len(parts) + 0.6, 1.9 * count + 1.1
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    # matplotlib's automatic layout takes twice the time
    figure.subplots_adjust(0.8 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.7 / height, 0.15, 0.18)
    left_out = f", the {_MAX_TRACKS} longest of {len(tracks)} tracks" if len(tracks) > _MAX_TRACKS else ""
    title = title.encode(errors="replace").decode()  # names of files may have bytes that are no UTF-8
    figure.suptitle(f"{title}: angles in the plane of the image{left_out}", fontsize=11, parse_math=False)
    grid = figure.subplots(count, len(parts), sharex=True, sharey="col", squeeze=False)
    colors = {"left": np.array(LEFT) / 255, "right": np.array(RIGHT) / 255}
    for axes_row, (track_id, rows) in zip(grid, shown, strict=False):
        axes_row[0].set_ylabel(f"track {track_id}\ndegrees")
        # absent frames interrupt the line
        frames = table.row_frames[rows]
        span = np.arange(frames[0], frames[-1] + 1)
        for axes, part in zip(axes_row, parts, strict=True):
            for side in _SIDES:
                if (name := f"{side}_{part}") in angles:
                    values = np.full(len(span), np.nan)
                    values[frames - frames[0]] = angles[name][rows]
                    style = "-" if np.isfinite(values).sum() > 1 else "o"
                    axes.plot(table.times[span], values, style, color=colors[side], linewidth=1.2, label=side)
    for axes, part in zip(grid[0], parts, strict=True):
        axes.set_title(part, fontsize=10)
    for axes in grid.flat:
        axes.grid(alpha=0.3)
    for axes in grid[-1]:
        axes.set_xlabel("time in s")
    if shown:
        grid[0, 0].legend(fontsize=8, loc="lower left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

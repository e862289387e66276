"""Files of tracks for other programs: CSV, OpenPose JSON, TRC and Parquet, made from a `TrackTable`."""

import csv
import importlib.util
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import DRAW_THRESHOLD
from posedy.files import (
    atomic_write,
    check_writable,
    named_write_errors,
    write_bytes_atomically,
    write_json_atomically,
)
from posedy.inference.track_table import TrackTable
from posedy.registration import nearest_name
from posedy.skeleton import COCO17

_LONG_COLUMNS = ("frame", "time", "track_id", "keypoint", "x", "y", "score", "filled")
# two names: the keypoint is in the middle of these; None: it is not in COCO's skeleton
_BODY_25: tuple[tuple[str, ...] | None, ...] = (
    *(("nose",), ("left_shoulder", "right_shoulder"), ("right_shoulder",), ("right_elbow",), ("right_wrist",)),
    *(("left_shoulder",), ("left_elbow",), ("left_wrist",), ("left_hip", "right_hip"), ("right_hip",)),
    *(("right_knee",), ("right_ankle",), ("left_hip",), ("left_knee",), ("left_ankle",), ("right_eye",)),
    *(("left_eye",), ("right_ear",), ("left_ear",), None, None, None, None, None, None),
)
_POSE2SIM_NAMES = {
    "nose": "Nose",
    **{
        f"{side}_{part}": f"{side[0].upper()}{part.capitalize()}"
        for side in ("left", "right")
        for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    },
}
_OPENPOSE_EMPTY = (
    *("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d"),
    *("pose_keypoints_3d", "face_keypoints_3d", "hand_left_keypoints_3d", "hand_right_keypoints_3d"),
)


def write_csv(table: TrackTable, path: str | Path) -> None:
    """Writes a CSV file with a row for each keypoint of each person of each frame.

    The columns are frame, time, track_id, keypoint, x, y, score and filled. Pixels are rounded to 0.01, scores and
    times to 0.0001; `filled` is 1 for keypoints that were interpolated over time and 0 for others.

    Raises:
        OSError: if the file cannot be written.
    """
    _write_rows(path, _LONG_COLUMNS, _long_rows(table))


def write_wide_csv(table: TrackTable, path: str | Path) -> None:
    """Writes a CSV file with a row for each person of each frame.

    The columns are frame, time, track_id, and NAME_x, NAME_y, NAME_score and NAME_filled of each keypoint. Numbers are
    rounded as in `write_csv`.

    Raises:
        OSError: if the file cannot be written.
    """
    names = [f"{name}_{part}" for name in table.skeleton.keypoints for part in ("x", "y", "score", "filled")]
    rows = (
        (number, round(time, 4), int(table.track_ids[row]), *chain.from_iterable(_points(table, row)))
        for number, time, rows in table.rows_by_frame()
        for row in rows
    )
    _write_rows(path, ("frame", "time", "track_id", *names), rows)


def write_openpose(table: TrackTable, folder: str | Path, name: str) -> None:
    """Writes a file FOLDER/NAME_000000000000_keypoints.json for each frame, as OpenPose does.

    A skeleton with COCO's 17 names is written in the order of BODY_25: the neck is in the middle of the shoulders and
    the mid hip in the middle of the hips, with the lower score of the two, and the six keypoints of the feet are 0 with
    score 0. Other skeletons keep their own order. `person_id` is the track id. Files of earlier frames, with the same
    name and other numbers, are deleted, once all files could be written.

    Raises:
        OSError: if a file cannot be written.
    """
    layout = _openpose_layout(table.skeleton.keypoints)
    with _replaced_files(Path(folder), re.escape(name) + "_[0-9]{12}_keypoints[.]json") as temporary:
        for number, _, rows in table.rows_by_frame():
            people = []
            for row in rows:
                points = _openpose_points(table.keypoints[row], table.scores[row], layout)
                person: dict[str, list] = {"person_id": [int(table.track_ids[row])], "pose_keypoints_2d": points}
                people.append(person | {key: [] for key in _OPENPOSE_EMPTY})
            path = temporary / f"{name}_{number:012d}_keypoints.json"
            write_json_atomically(path, {"version": 1.3, "people": people})


def write_trc(
    table: TrackTable,
    track_id: int,
    path: str | Path,
    meters_per_pixel: float | None = None,
    min_score: float = DRAW_THRESHOLD,
    marker_names: Literal["pose2sim", "coco"] = "pose2sim",
) -> None:
    """Writes a track as a TRC file of markers, as OpenSim and Pose2Sim read them.

    The x axis is the image's, the y axis points up with its origin at the top of the image (y is minus the image's y),
    and z is 0. A row for each frame from the track's first to its last one; keypoints with scores up to `min_score`
    are empty, and so are frames in which the person is absent. DataRate is `table.rate`; CameraRate and
    OrigDataRate are those of all frames of the video, which are more with a stride.

    Args:
        table: the tracks.
        track_id: the id of the track.
        path: the file.
        meters_per_pixel: the scale, for units of m; None keeps pixels and writes px as units. OpenSim needs m.
        min_score: keypoints with scores up to this one are left out.
        marker_names: the names of COCO's keypoints; pose2sim, those of Pose2Sim's setups for OpenSim, such as LKnee and
            Nose, or coco, such as left_knee and nose. Other keypoints keep their names.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if there is no such track, the scale is not positive, or there are no such names.
    """
    if marker_names not in ("pose2sim", "coco"):
        raise ValueError(f"expected pose2sim or coco as marker_names, got {marker_names!r}")
    rows = np.flatnonzero(table.track_ids == track_id)
    if not len(rows):
        raise ValueError(f"no track {track_id}: the ids are {np.unique(table.track_ids).tolist()}")
    if meters_per_pixel is not None and not (math.isfinite(meters_per_pixel) and meters_per_pixel > 0):
        raise ValueError(f"expected a scale of more than 0 m per pixel, got {meters_per_pixel}")
    scale = 1.0 if meters_per_pixel is None else meters_per_pixel
    digits = 3 if meters_per_pixel is None else 6
    first, last = (int(table.row_frames[row]) for row in (rows[0], rows[-1]))
    names: Sequence[str] = table.skeleton.keypoints
    if marker_names == "pose2sim":
        names = [_POSE2SIM_NAMES.get(name, name) for name in names]
    stride = float(np.median(np.diff(table.frames))) if len(table.frames) > 1 else 1.0
    rate, camera_rate = f"{table.rate:.5g}", f"{table.rate * stride:.5g}"
    count, camera_count = last - first + 1, int(table.frames[last] - table.frames[first]) + 1
    unit = "px" if meters_per_pixel is None else "m"
    header = ("DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units", "OrigDataRate")
    lines = [
        ["PathFileType", "4", "(X/Y/Z)", Path(path).name],
        [*header, "OrigDataStartFrame", "OrigNumFrames"],
        [
            rate,
            camera_rate,
            str(count),
            str(len(names)),
            unit,
            camera_rate,
            str(table.frames[first]),
            str(camera_count),
        ],
        ["Frame#", "Time", *(cell for name in names for cell in (_one_word(name), "", ""))],
        ["", "", *(f"{axis}{index}" for index in range(1, len(names) + 1) for axis in "XYZ")],
    ]
    row_at = dict(zip(table.row_frames[rows].tolist(), rows.tolist(), strict=True))
    for frame in range(first, last + 1):
        cells = [""] * (3 * len(names))
        row = row_at.get(frame)
        if row is not None:
            for index in np.flatnonzero(table.scores[row] > min_score):
                x, y = scale * table.keypoints[row, index]
                cells[3 * index : 3 * index + 3] = [f"{x:.{digits}f}", f"{-y:.{digits}f}", f"{0:.{digits}f}"]
        lines.append([str(table.frames[frame]), f"{table.times[frame]:.4f}", *cells])
    write_bytes_atomically(path, "".join("\t".join(line) + "\n" for line in lines).encode())


def write_parquet(table: TrackTable, path: str | Path) -> None:
    """Writes a Parquet file with a row for each keypoint of each person of each frame; nothing is rounded.

    The columns are those of `write_csv`.

    Raises:
        ImportError: if pyarrow is not installed.
        OSError: if the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    K = table.skeleton.num_keypoints
    frames = table.frames[table.row_frames], table.times[table.row_frames], table.track_ids
    columns: list[Any] = [np.repeat(column, K) for column in frames]
    columns += [
        pa.array(list(table.skeleton.keypoints) * len(table), pa.string()),
        *(table.keypoints[..., axis].reshape(-1) for axis in (0, 1)),
        table.scores.reshape(-1),
        table.filled.reshape(-1),
    ]
    with atomic_write(path) as temporary:
        parquet.write_table(pa.table(dict(zip(_LONG_COLUMNS, columns, strict=True))), temporary)


def _write_tracks_as_openpose(table: TrackTable, folder: Path) -> None:
    write_openpose(table, folder, folder.name.removesuffix("-openpose"))


def _write_tracks_as_trc(table: TrackTable, folder: Path) -> None:
    """Writes a TRC file FOLDER/track_ID.trc for each track, and deletes those of other ids."""
    with _replaced_files(folder, "track_[0-9]+[.]trc") as temporary:
        for track_id, _ in table.tracks():
            write_trc(table, track_id, temporary / f"track_{track_id}.trc")


_Writer = Callable[[TrackTable, Path], None]
# the end of the output's name after NAME, and the function that writes it
_FORMATS: dict[str, tuple[str, _Writer]] = {
    "csv": (".csv", write_csv),
    "wide-csv": ("-wide.csv", write_wide_csv),
    "openpose": ("-openpose", _write_tracks_as_openpose),
    "trc": ("-trc", _write_tracks_as_trc),
    "parquet": (".parquet", write_parquet),
}
TRACK_FORMATS = tuple(_FORMATS)
"""Formats of `write_track_files`."""


def parse_track_formats(text: str) -> list[str]:
    """Parses the names of formats, separated by commas.

    Raises:
        ValueError: if there is no name, a name is unknown, with the nearest one, or what the format needs is not
            installed.
    """
    names = [name.strip().lower() for name in text.split(",")]
    formats = list(dict.fromkeys(name for name in names if name))  # a comma at the end does no harm
    if not formats:
        raise ValueError(f"expected formats separated by commas, got {text!r}. The formats are {', '.join(_FORMATS)}")
    _check_formats(formats)
    if "parquet" in formats and importlib.util.find_spec("pyarrow") is None:
        raise ValueError("the format parquet needs pyarrow: pip install pyarrow, or choose csv")
    return formats


def _check_formats(formats: Iterable[str]) -> None:
    """Raises ValueError for an unknown format, with the nearest name."""
    for name in formats:
        if name not in _FORMATS:
            raise ValueError(
                f"unknown format {name!r}: did you mean {nearest_name(name, _FORMATS)}? The formats are "
                f"{', '.join(_FORMATS)}"
            )


def track_files(lines: Path, formats: Sequence[str]) -> list[Path]:
    """Returns the files and folders of `write_track_files` next to NAME.jsonl, one for each of some formats."""
    return [_output_of(lines, name) for name in formats]


def check_track_files(lines: Path, formats: Sequence[str]) -> None:
    """Checks, before a video is processed, that `write_track_files` can write its files.

    Args:
        lines: NAME.jsonl, which may not exist yet.
        formats: some of `TRACK_FORMATS`.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if a format is unknown.
    """
    _check_formats(formats)
    for name in formats:
        path = _output_of(lines, name)
        if "." in _FORMATS[name][0]:
            check_writable(path)
        elif path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path} is a file: the format {name} needs a folder of this name; move the file")


def write_track_files(table: TrackTable, lines: Path, formats: Sequence[str]) -> list[Path]:
    """Writes the tracks of a video in other formats, next to its file NAME.jsonl.

    Args:
        table: the tracks.
        lines: NAME.jsonl, whose name the files get: NAME.csv, NAME-wide.csv, the folder NAME-openpose/ with a file for
            each frame, the folder NAME-trc/ with a file for each track, and NAME.parquet.
        formats: some of `TRACK_FORMATS`.

    Returns:
        The files and folders, without NAME-trc/ if nobody was tracked.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if a format is unknown, with the nearest name.
    """
    _check_formats(formats)
    paths = track_files(lines, formats)
    for name, path in zip(formats, paths, strict=True):
        with named_write_errors(path):
            _FORMATS[name][1](table, path)
    return [path for name, path in zip(formats, paths, strict=True) if name != "trc" or len(table)]


def _output_of(lines: Path, name: str) -> Path:
    return lines.with_name(lines.stem + _FORMATS[name][0])


def _points(table: TrackTable, row: int) -> list[tuple[float, float, float, int]]:
    """Returns x, y, score and filled of the K keypoints of a row."""
    return [
        (round(x, 2), round(y, 2), round(score, 4), int(filled))
        for (x, y), score, filled in zip(
            table.keypoints[row].tolist(), table.scores[row].tolist(), table.filled[row].tolist(), strict=True
        )
    ]


def _long_rows(table: TrackTable) -> Iterator[tuple[Any, ...]]:
    for number, time, rows in table.rows_by_frame():
        for row in rows:
            for name, point in zip(table.skeleton.keypoints, _points(table, row), strict=True):
                yield number, round(time, 4), int(table.track_ids[row]), name, *point


def _write_rows(path: str | Path, columns: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _openpose_layout(names: Sequence[str]) -> list[tuple[int, ...]]:
    """Returns the indices of the keypoints that each point of a file is the middle of."""
    if not set(COCO17.keypoints) <= set(names):
        return [(index,) for index in range(len(names))]
    return [tuple(names.index(name) for name in point or ()) for point in _BODY_25]


def _openpose_points(
    keypoints: NDArray[np.float64], scores: NDArray[np.float64], layout: Sequence[tuple[int, ...]]
) -> list[float]:
    values: list[float] = []
    for indices in layout:
        score = scores[list(indices)].min() if indices else 0.0
        x, y = keypoints[list(indices)].mean(axis=0) if score > 0 else (0.0, 0.0)
        values += [round(float(x), 3), round(float(y), 3), round(max(float(score), 0.0), 4)]
    return values


def _one_word(name: str) -> str:
    """Returns a marker's name without tabs and line breaks."""
    return "_".join(name.split())


@contextmanager
def _replaced_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yields a temporary folder whose files replace those with names that fully match a pattern in another folder.

    After an error the other folder is unchanged.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:
            yield Path(temporary)
            written = {path.name for path in Path(temporary).iterdir()}
            for name in written:
                (Path(temporary) / name).replace(folder / name)
        for path in folder.iterdir():
            if path.name not in written and re.fullmatch(pattern, path.name):
                path.unlink()
    finally:
        if is_new:
            with suppress(OSError):  # it has files
                folder.rmdir()

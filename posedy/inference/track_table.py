"""Tables of tracks: the poses of all frames of a video as arrays, read from and written to NAME.jsonl."""

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.files import atomic_write, read_bytes
from posedy.poses import Poses
from posedy.skeleton import COCO17, Skeleton, numbered_skeleton, pair_names

_LONGEST_STEP = 1.75  # in typical ones; longer ones are gaps
_DEFAULT_RATE = 30.0
_RATE_TOLERANCE = 0.01  # relative difference of a given rate and the one of the frames
_TIME_STEP = 1e-6  # seconds between frames whose times are equal in a file, where they are rounded to 0.0001
_KINDS = {"float64": "iuf", "int64": "iu", "bool": "b"}  # kinds of numbers that each type takes without a loss


@dataclass(frozen=True, eq=False)
class TrackTable:
    """The poses of the persons of a video: F frames, and R rows, one for each person of each frame.

    Numbers of other types, such as keypoints in whole pixels, are converted.

    Attributes:
        skeleton: the skeleton of the K keypoints.
        frames: (F,) int64 increasing frame numbers.
        times: (F,) float64 increasing times in seconds.
        row_frames: (R,) int64 increasing indices into `frames`.
        track_ids: (R,) int64; no id occurs twice in a frame.
        keypoints: (R, K, 2) float64 in image pixels.
        scores: (R, K) float64, the confidence of each keypoint.
        filled: (R, K) bool, keypoints that were not measured but interpolated over time.
        boxes: (R, 4) float64 xyxy in image pixels.
        box_scores: (R,) float64.
        pose_scores: (R,) float64.

    Raises:
        TypeError: if an array has the wrong type, such as ids that are no integers.
        ValueError: if shapes do not match, a number is not finite, frames or times do not increase, or an id occurs
            twice.
    """

    skeleton: Skeleton
    frames: NDArray[np.int64]
    times: NDArray[np.float64]
    row_frames: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    keypoints: NDArray[np.float64]
    scores: NDArray[np.float64]
    filled: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    box_scores: NDArray[np.float64]
    pose_scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("frames", "row_frames", "track_ids"):
            self._convert(name, "int64")
        for name in ("times", "keypoints", "scores", "boxes", "box_scores", "pose_scores"):
            self._convert(name, "float64")
        self._convert("filled", "bool")
        F, R, K = len(self.frames), len(self.track_ids), self.skeleton.num_keypoints
        shapes = {
            **{"frames": (F,), "times": (F,), "row_frames": (R,), "track_ids": (R,), "keypoints": (R, K, 2)},
            **{"scores": (R, K), "filled": (R, K), "boxes": (R, 4), "box_scores": (R,), "pose_scores": (R,)},
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite numbers, got one that is not finite")
        for name in ("frames", "times"):
            array = getattr(self, name)
            for later in np.flatnonzero(np.diff(array) <= 0)[:1]:
                raise ValueError(f"{name}: expected increasing numbers, got {array[later + 1]} after {array[later]}")
        if R and (self.row_frames.min() < 0 or self.row_frames.max() >= F or (np.diff(self.row_frames) < 0).any()):
            raise ValueError(f"row_frames: expected increasing indices from 0 to {F - 1}")
        order = np.lexsort((self.track_ids, self.row_frames))
        for repeated in order[1:][(np.diff(self.row_frames[order]) == 0) & (np.diff(self.track_ids[order]) == 0)][:1]:
            frame = self.frames[self.row_frames[repeated]]
            raise ValueError(f"track {self.track_ids[repeated]} occurs twice in frame {frame}")

    def _convert(self, name: str, dtype: str) -> None:
        """Converts an array to its type."""
        array = np.asarray(getattr(self, name))
        if array.size and array.dtype.kind not in _KINDS[dtype]:  # an empty list has the type float64
            raise TypeError(f"{name}: expected an array of {dtype}, got {array.dtype}")
        object.__setattr__(self, name, array.astype(dtype, copy=False))  # a frozen dataclass

    def __len__(self) -> int:
        return len(self.track_ids)

    def __repr__(self) -> str:
        return f"TrackTable({len(self.frames)} frames, {len(self)} poses, {len(np.unique(self.track_ids))} tracks)"

    @property
    def rate(self) -> float:
        """The frame rate in frames per second, without gaps in the recording; 30 with fewer than two frames."""
        steps = np.diff(self.times)
        if not len(steps):
            return _DEFAULT_RATE
        typical = np.sort(steps)[(len(steps) - 1) // 2]  # the lower median, which is one of the steps
        # times in files are rounded, and some recordings alternate between two steps: the mean is more exact
        is_regular = (steps >= typical / _LONGEST_STEP) & (steps <= _LONGEST_STEP * typical)
        return float(1 / steps[is_regular].mean())

    def tracks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yields the id of each track, in ascending order, and the indices of its rows in the order of frames."""
        for track_id in np.unique(self.track_ids):
            yield int(track_id), np.flatnonzero(self.track_ids == track_id)

    def rows_by_frame(self) -> Iterator[tuple[int, float, NDArray[np.int64]]]:
        """Yields the number, the time and the indices of the rows of each frame, of frames without persons, too."""
        ends = np.searchsorted(self.row_frames, np.arange(len(self.frames)), side="right").tolist()
        begin = 0
        for number, time, end in zip(self.frames.tolist(), self.times.tolist(), ends, strict=True):
            yield number, time, np.arange(begin, end)
            begin = end

    def poses(self) -> Iterator[Poses]:
        """Yields the poses of each frame, of frames without persons, too."""
        return (replace(self.poses_of(rows), time=time, frame=number) for number, time, rows in self.rows_by_frame())

    def poses_of(self, rows: NDArray[np.int64]) -> Poses:
        """Returns the poses of some rows, given by their indices."""
        return Poses(
            self.keypoints[rows].astype(np.float32),
            self.scores[rows].astype(np.float32),
            self.boxes[rows].astype(np.float32),
            self.box_scores[rows].astype(np.float32),
            self.skeleton,
            track_ids=self.track_ids[rows],
        )

    @classmethod
    def from_poses(
        cls, poses: Iterable[Poses], times: Iterable[float] | None = None, rate: float | None = None
    ) -> "TrackTable":
        """Creates a table of the poses of successive frames, such as those of `PoseEstimator.track`.

        Frames have the times and numbers of the poses. Poses without numbers, as of a `PoseTracker`, are numbered from
        0, and poses without times have a constant rate.

        Args:
            poses: the poses of each frame, with track ids.
            times: the time of each frame in seconds, in place of those of the poses; None for those of the poses.
            rate: frames per second of poses without times; None for 30.

        Raises:
            TypeError: if `poses` are not those of frames.
            ValueError: if there are no frames, poses have no track ids, only some have a time or a number, the number
                of times is not that of frames, times do not increase, or the rate is not positive, contradicts the
                times of the poses by more than 1 %, or is given together with `times`.
        """
        frames = list(poses)
        for each in frames:
            if not isinstance(each, Poses):
                raise TypeError(f"expected the posedy.Poses of each frame, got {each!r:.100}")
        if not frames:
            raise ValueError("expected the poses of at least one frame, got none")
        if any(each.track_ids is None for each in frames):
            raise ValueError("expected poses with track ids, as those of PoseEstimator.track or PoseTracker")
        numbers = _given_in_all("frame", [each.frame for each in frames]) or list(range(len(frames)))
        if times is not None and rate is not None:
            raise ValueError(f"expected times or a rate, got both, with a rate of {rate}: leave one of them out")
        seconds = _given_in_all("time", [each.time for each in frames]) if times is None else list(times)
        if rate is not None:
            _check_rate(rate, numbers, seconds)
        if seconds is None:
            seconds = [number / (rate or _DEFAULT_RATE) for number in numbers]
        if len(seconds) != len(frames):
            raise ValueError(f"expected the times of {len(frames)} frames, got {len(seconds)}")
        skeleton = frames[0].skeleton
        scores = np.concatenate([each.scores for each in frames]).astype(np.float64)
        return cls(
            skeleton,
            np.array(numbers, dtype=np.int64),
            np.array(seconds, dtype=np.float64),
            np.repeat(np.arange(len(frames)), [len(each) for each in frames]),
            np.concatenate([np.asarray(each.track_ids, dtype=np.int64) for each in frames]),
            np.concatenate([each.keypoints for each in frames]).astype(np.float64),
            scores,
            np.zeros(scores.shape, np.bool_),
            np.concatenate([each.boxes for each in frames]).astype(np.float64),
            np.concatenate([each.box_scores for each in frames]).astype(np.float64),
            np.concatenate([each.pose_scores for each in frames]),
        )

    @classmethod
    def read(cls, path: str | Path, skeleton: Skeleton | None = None) -> "TrackTable":
        """Reads a file NAME.jsonl of `posedy predict`.

        Args:
            path: the file.
            skeleton: the skeleton; None for one with the names of the first person's keypoints, which is COCO's if the
                names are, or no person is in the file.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is not such a file; the message names the line.
        """
        path = Path(path)
        names = None if skeleton is None else skeleton.keypoints
        frames: list[tuple[float, float]] = []
        persons: list[tuple[float, ...]] = []  # index of the frame, id, scores, box
        points: list[NDArray[np.float64]] = []  # (K, 4) x, y, score, filled
        for number, line in enumerate(io.BytesIO(read_bytes(path)), start=1):
            record = _parse_line(path, number, line)
            for person in record["persons"]:
                names = names or tuple(person["keypoints"])
                points.append(
                    _parse_keypoints(f"{path}, line {number}: person {person['id']}", person["keypoints"], names)
                )
                scores = person["box_score"], person["score"]
                persons.append((len(frames), person["id"], *scores, *person["box_xyxy"]))
            frames.append((record["frame"], record["time"]))
        skeleton = skeleton or (COCO17 if names is None else _skeleton_of(names))
        timed = np.array(frames, np.float64).reshape(-1, 2)
        for later in np.flatnonzero(np.diff(timed[:, 1]) == 0) + 1:
            timed[later, 1] = timed[later - 1, 1] + _TIME_STEP
        rows = np.array(persons, np.float64).reshape(-1, 8)
        xysf = np.array(points, np.float64).reshape(-1, skeleton.num_keypoints, 4)
        integers = rows[:, :2].astype(np.int64)
        try:
            return cls(
                *(skeleton, timed[:, 0].astype(np.int64), timed[:, 1], integers[:, 0], integers[:, 1]),
                *(xysf[..., :2], xysf[..., 2], xysf[..., 3] > 0),
                *(rows[:, 4:], rows[:, 2], rows[:, 3]),
            )
        except ValueError as error:
            raise ValueError(f"{path} has no valid tracks: {error}") from error

    def write(self, path: str | Path) -> None:
        """Writes the table as NAME.jsonl, atomically, in the format of `posedy predict`.

        Keypoints that were filled have `"filled": true` as well.

        Raises:
            OSError: if the file cannot be written.
        """
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, allow_nan=False) + "\n" for record in self.to_records())

    def to_records(self) -> Iterator[dict[str, Any]]:
        """Yields the line of each frame as a dictionary; pixels are rounded to 0.01, scores and times to 0.0001."""
        for (number, time, rows), poses in zip(self.rows_by_frame(), self.poses(), strict=True):
            persons = poses.to_records()
            for row, person in zip(rows, persons, strict=True):
                person["score"] = round(float(self.pose_scores[row]), 4)
                for keypoint in np.flatnonzero(self.filled[row]):
                    person["keypoints"][self.skeleton.keypoints[keypoint]]["filled"] = True
            yield {"frame": number, "time": round(time, 4), "persons": persons}


def _given_in_all(name: str, values: list[Any]) -> list[Any] | None:
    """Returns the values of an attribute of all poses, None if all are None; ValueError if only some are."""
    count = sum(value is not None for value in values)
    if 0 < count < len(values):
        raise ValueError(
            f"expected poses with a {name} in all {len(values)} frames or in none, got {count}: set it with "
            f"dataclasses.replace(poses, {name}=...)"
        )
    return values if count else None


def _check_rate(rate: float, numbers: list[int], seconds: list[float] | None) -> None:
    """Raises ValueError unless a rate is positive and that of frames at some times."""
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"expected a rate of more than 0 frames per second, got {rate}")
    if seconds is not None and seconds[-1] > seconds[0] and numbers[-1] > numbers[0]:
        mean = (numbers[-1] - numbers[0]) / (seconds[-1] - seconds[0])
        if abs(rate / mean - 1) > _RATE_TOLERANCE:
            raise ValueError(
                f"the rate of {rate:g} frames per second contradicts the times of the poses, which have {mean:.4g}: "
                "leave it out, or give other times as times=[...]"
            )


def _skeleton_of(names: tuple[str, ...]) -> Skeleton:
    """Returns a skeleton without limbs for keypoint names, or COCO's."""
    if names == COCO17.keypoints:
        return COCO17
    return Skeleton(names, pair_names(names), (), numbered_skeleton(len(names)).sigmas)


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Parses a line of NAME.jsonl and checks its keys and numbers; ValueError names the line."""
    place = f"{path}, line {number}"
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}): delete it if the file was cut off") from error
    if not isinstance(record, dict) or not record.keys() >= {"frame", "time", "persons"}:
        raise ValueError(
            f"{place}: expected an object with frame, time and persons, as posedy predict writes for videos"
        )
    _check_numbers(place, record, ("frame", "time"))
    _check_integer(place, "frame", record["frame"])
    if not isinstance(record["persons"], list):
        raise ValueError(f"{place}: expected a list of persons, got {record['persons']!r:.60}")
    for person in record["persons"]:
        if not isinstance(person, Mapping) or not isinstance(person.get("keypoints"), Mapping):
            raise ValueError(f"{place}: expected persons with keypoints by name, got {person!r:.60}")
        _check_numbers(place, person, ("id", "score", "box_score"))
        _check_integer(place, "id", person["id"])
        box = person.get("box_xyxy")
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError(f"{place}: person {person['id']}: expected four numbers as box_xyxy, got {box!r:.60}")
        _check_numbers(f"{place}: person {person['id']}: box_xyxy", dict(enumerate(box)), range(4))
    return record


def _parse_keypoints(place: str, keypoints: Mapping[str, Any], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Returns x, y, score and filled of the keypoints with the given names: (K, 4)."""
    for name in keypoints.keys() ^ set(names):
        raise ValueError(
            f"{place} has not the {len(names)} keypoints of the first person or the skeleton: {name!r} is in one of "
            "them only"
        )
    values = []
    for name in names:
        point = keypoints[name]
        if not isinstance(point, Mapping):
            raise ValueError(f"{place}: keypoint {name!r}: expected an object with x, y and score, got {point!r:.60}")
        _check_numbers(f"{place}: keypoint {name!r}", point, ("x", "y", "score"))
        values.append((point["x"], point["y"], point["score"], point.get("filled") is True))
    return np.array(values, dtype=np.float64)


def _check_integer(place: str, key: str, value: float) -> None:
    if value != int(value):
        raise ValueError(f"{place}: expected an integer as {key}, got {value}")


def _check_numbers(place: str, record: Mapping[Any, Any], keys: Iterable[Any]) -> None:
    for key in keys:
        value = record.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{place}: expected a finite number as {key}, got {value!r:.60}")

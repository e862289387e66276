import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posedy.inference.track_table import TrackTable
from posedy.poses import Poses
from posedy.skeleton import COCO17, Skeleton

DOTS = Skeleton(("red", "green, blue"), (), (), (0.05, 0.05))


def make_poses(ids: list[int], seed: int = 0, skeleton: Skeleton = COCO17) -> Poses:
    rng = np.random.default_rng(seed)
    K = skeleton.num_keypoints
    keypoints = rng.uniform(0, 300, (len(ids), K, 2)).astype(np.float32)
    scores = rng.uniform(0, 1, (len(ids), K)).astype(np.float32)
    boxes = np.tile(np.array([0, 0, 200, 300], np.float32), (len(ids), 1))
    return Poses(keypoints, scores, boxes, np.full(len(ids), 0.9, np.float32), skeleton, track_ids=np.array(ids, int))


@pytest.fixture
def table() -> TrackTable:
    """Frames with two persons, none, and one."""
    return TrackTable.from_poses([make_poses([4, 1], 0), make_poses([], 1), make_poses([1], 2)], times=[0, 0.04, 0.1])


@pytest.mark.parametrize("skeleton", [COCO17, DOTS])
def test_a_written_table_is_read_back(skeleton: Skeleton, tmp_path: Path) -> None:
    table = TrackTable.from_poses([make_poses([4, 1], 0, skeleton), make_poses([], 1, skeleton)], rate=25)
    table.filled[1, 0] = True
    path = tmp_path / "video.jsonl"
    table.write(path)
    lines = path.read_text()
    assert '"filled": true' in lines
    again = TrackTable.read(path)
    assert again.skeleton.keypoints == skeleton.keypoints
    np.testing.assert_allclose(again.keypoints, table.keypoints, atol=0.005001)
    np.testing.assert_array_equal(again.filled, table.filled)
    assert again.track_ids.tolist() == [4, 1]
    again.write(path)
    assert path.read_text() == lines


def test_lines_are_those_of_the_poses(table: TrackTable) -> None:
    poses = make_poses([4, 1], 0)
    assert next(table.to_records()) == {"frame": 0, "time": 0.0, "persons": poses.to_records()}
    assert [len(each) for each in table.poses()] == [2, 0, 1]
    np.testing.assert_array_equal(next(table.poses()).keypoints, poses.keypoints)
    assert [(track_id, rows.tolist()) for track_id, rows in table.tracks()] == [(1, [1, 2]), (4, [0])]


@pytest.mark.parametrize(
    ("times", "rate"),
    [
        *((np.round(np.arange(90) / 29.97, 4), 29.97), ([0, 0.1, 0.2, 5.0, 5.1], 10), ([3.0], 30), ([], 30)),
        ([0, 1 / 30, 3 / 30], 30),  # a frame is missing
        ([*np.arange(20) / 30, 19 / 30 + 0.001], 30),  # two frames at almost the same time
        (np.round(np.arange(101).repeat(2) / 12 + np.tile([0, 2 / 60], 101), 4)[:201], 24),  # film in a file of 60 Hz
    ],
)
def test_rate_is_that_of_the_frames(times, rate: float) -> None:
    none = make_poses([])
    if len(times):
        assert TrackTable.from_poses([none] * len(times), times).rate == pytest.approx(rate, rel=1e-4)
    with pytest.raises(ValueError, match="track ids"):
        TrackTable.from_poses([Poses(none.keypoints, none.scores, none.boxes, none.box_scores, COCO17)])


def test_times_and_numbers_are_those_of_the_poses() -> None:
    """Frame 2 is damaged, and the frame rate is 25."""
    numbers = [0, 1, 3, 4]
    poses = [replace(make_poses([1], number), time=number / 25, frame=number) for number in numbers]
    for rate in (None, 25, 25.1):
        table = TrackTable.from_poses(poses, rate=rate)
        assert table.frames.tolist() == numbers
        assert table.times.tolist() == [number / 25 for number in numbers]
    assert TrackTable.from_poses(poses, times=[0, 1, 2, 3]).times.tolist() == [0, 1, 2, 3]
    again = TrackTable.from_poses(table.poses())
    assert (again.times.tolist(), again.frames.tolist()) == (table.times.tolist(), numbers)
    without_numbers = [replace(each, frame=None) for each in poses[:2]]
    assert TrackTable.from_poses(without_numbers).frames.tolist() == [0, 1]
    without_times = [replace(each, time=None) for each in poses]
    assert TrackTable.from_poses(without_times, rate=10).times.tolist() == [0, 0.1, 0.3, 0.4]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rate": 30}, "30.*25"),
        ({"rate": 0}, "rate.*0"),
        ({"rate": -25.0}, "rate.*-25"),
        ({"rate": float("nan")}, "rate.*nan"),
        ({"rate": float("inf")}, "rate.*inf"),
        ({"rate": 25, "times": [0, 1, 2]}, "both"),
        ({"times": [0, 0, 1]}, "times.*0.0 after 0.0"),
        ({"times": [0, 2, 1]}, "times.*1.0 after 2.0"),
        ({"times": [0, 1]}, "3 frames, got 2"),
    ],
)
def test_contradicting_times_are_rejected(options: dict, expected: str) -> None:
    poses = [replace(make_poses([1], number), time=number / 25) for number in range(3)]
    with pytest.raises(ValueError, match=expected):
        TrackTable.from_poses(poses, **options)


@pytest.mark.parametrize("name", ["time", "frame"])
def test_times_of_some_poses_are_rejected(name: str) -> None:
    poses = [make_poses([1]), replace(make_poses([1]), **{name: 1})]
    with pytest.raises(ValueError, match=f"{name} in all 2 frames or in none, got 1"):
        TrackTable.from_poses(poses)


def test_numbers_of_other_types_are_converted(table: TrackTable) -> None:
    whole = replace(table, keypoints=table.keypoints.astype(np.int64), frames=[3, 4, 5])
    assert (whole.keypoints.dtype, whole.frames.dtype) == (np.float64, np.int64)
    for name, array in (("track_ids", table.track_ids + 0.5), ("filled", table.scores), ("keypoints", ["a"])):
        with pytest.raises(TypeError, match=name):
            replace(table, **{name: array})


def test_times_that_are_equal_after_rounding_are_read(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.04001, 0.04002, 0.08]
    path = tmp_path / "video.jsonl"
    TrackTable.from_poses([make_poses([1])] * 5, times).write(path)
    assert path.read_text().count('"time": 0.04,') == 3
    assert TrackTable.read(path).times == pytest.approx(times, abs=1e-4)


def person(**changes: object) -> dict:
    points = {name: {"x": 1.0, "y": 2.0, "score": 0.5} for name in ("a", "b")}
    return {"id": 1, "score": 0.5, "box_xyxy": [0, 0, 9, 9], "box_score": 1.0, "keypoints": points} | changes


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"frame": 1, "ti', ["line 2", "JSON"]),
        ("[]", ["line 2", "persons"]),
        (json.dumps({"frame": 1, "time": 1.0, "persons": {}}), ["line 2", "list of persons"]),
        (json.dumps({"frame": 0, "time": 1.0, "persons": []}), ["frames", "0 after 0"]),
        (json.dumps({"frame": 1, "time": -1.0, "persons": []}), ["times", "-1.0 after 0.0"]),
        (json.dumps({"frame": 1.5, "time": 1.0, "persons": []}), ["line 2", "integer", "frame"]),
        ('{"frame": 1, "time": NaN, "persons": []}', ["line 2", "time"]),
        (json.dumps({"frame": 1, "time": 1.0, "persons": [person(id=None)]}), ["line 2", "id"]),
        (json.dumps({"frame": 1, "time": 1.0, "persons": [person(box_xyxy=[1, 2])]}), ["line 2", "box_xyxy"]),
        (json.dumps({"frame": 1, "time": 1.0, "persons": [person(), person()]}), ["track 1", "frame 1"]),
        (
            json.dumps({"frame": 1, "time": 1.0, "persons": [person(keypoints={"a": {"x": 1}, "b": 7})]}),
            ["line 2", "'a'", "y"],
        ),
        (json.dumps({"frame": 1, "time": 1.0, "persons": [person(keypoints={})]}), ["line 2", "person 1"]),
    ],
)
def test_invalid_lines_are_named(line: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "video.jsonl"
    path.write_text(json.dumps({"frame": 0, "time": 0.0, "persons": [person()]}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=str(path)) as caught:
        TrackTable.read(path)
    assert all(part in str(caught.value) for part in expected), caught.value

import csv
import io
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posedy.inference.keypoint_angles import compute_angles, write_angles
from posedy.inference.track_table import TrackTable
from posedy.poses import Poses
from posedy.skeleton import COCO17, Skeleton

NAMES = COCO17.keypoints


def make_table(degrees: list[float], track_ids: list[int] | None = None) -> TrackTable:
    """A table with a frame for each angle of the left knee; other keypoints are at random positions."""
    poses = []
    for number, angle in enumerate(np.radians(degrees)):
        keypoints = np.random.default_rng(number).uniform(0, 300, (1, 17, 2)).astype(np.float32)
        hip, knee = np.array([120.0, 80.0]), np.array([100.0, 130.0])
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        keypoints[0, 11], keypoints[0, 13], keypoints[0, 15] = hip, knee, knee + 1.3 * rotation @ (hip - knee)
        ids = np.array([1 if track_ids is None else track_ids[number]])
        scores, boxes = np.full((1, 17), 0.9, np.float32), np.array([[0, 0, 200, 300]], np.float32)
        poses.append(Poses(keypoints, scores, boxes, np.ones(1, np.float32), COCO17, track_ids=ids))
    return TrackTable.from_poses(poses)


def test_angles_are_those_between_the_limbs() -> None:
    table = make_table([0, 30, -90, 135, 180, 200])
    angles = compute_angles(table)
    parts = ("elbow", "shoulder", "hip", "knee")
    assert list(angles) == [f"{side}_{part}" for part in parts for side in ("left", "right")]
    np.testing.assert_allclose(angles["left_knee"], [0, 30, 90, 135, 180, 160], atol=1e-3)
    a, b, c = (table.keypoints[:, NAMES.index(f"right_{name}")] for name in ("shoulder", "elbow", "wrist"))
    cosine = ((a - b) * (c - b)).sum(1) / np.linalg.norm(a - b, axis=1) / np.linalg.norm(c - b, axis=1)
    np.testing.assert_allclose(angles["right_elbow"], np.degrees(np.arccos(cosine)))


def test_angles_need_three_confident_keypoints_at_different_places() -> None:
    table = make_table([90, 90, 90])
    table.scores[0, NAMES.index("left_ankle")] = 0.2
    table.keypoints[1, NAMES.index("left_ankle")] = table.keypoints[1, NAMES.index("left_knee")]
    angles = compute_angles(table)
    assert np.isnan(angles["left_knee"]).tolist() == [True, True, False]
    assert np.isfinite(angles["right_knee"]).all()


def test_files_have_the_angles_of_all_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posedy.inference.keypoint_angles._MAX_TRACKS", 1)
    table = make_table([90, 60, 30], [1, 1, 2])
    table.scores[1, NAMES.index("left_hip")] = 0
    paths = write_angles(table, tmp_path / "clip.jsonl")
    assert [path.name for path in paths] == ["clip-angles.csv", "clip-angles.png"]
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert [row["left_knee"] for row in rows[:3]] == ["90.0", "", "30.0"]
    assert [row["track_id"] for row in rows] == ["1", "1", "2"]
    assert Image.open(paths[1]).width > 1000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("name", [pytest.param(b"$^$", marks=pytest.mark.slow), b"$\\frac{$", b"caf\xe9"])
def test_names_of_videos_may_have_any_character(name: bytes, tmp_path: Path) -> None:
    paths = write_angles(make_table([90]), tmp_path / f"{os.fsdecode(name)}.jsonl")
    assert Image.open(paths[1]).width > 1000


def test_videos_without_persons_or_angles(tmp_path: Path) -> None:
    table = make_table([90])
    none = np.zeros(0, np.int64)
    empty = TrackTable.from_poses([table.poses_of(none)])
    paths = write_angles(empty, tmp_path / "a.jsonl")
    assert paths[0].read_text().count("\n") == 1
    assert paths[1].stat().st_size > 1000
    other = Skeleton(tuple(f"k{index}" for index in range(17)), (), (), COCO17.sigmas)
    assert write_angles(replace(table, skeleton=other), tmp_path / "b.jsonl") == []
    assert list(tmp_path.glob("b*")) == []


@pytest.mark.parametrize("missing", ["left_wrist", "left_hip"])
def test_angles_of_absent_names_are_left_out(missing: str) -> None:
    names = tuple("tail" if name == missing else name for name in NAMES)
    other = Skeleton(names, (), (), COCO17.sigmas)
    angles = compute_angles(replace(make_table([90]), skeleton=other))
    assert "left_elbow" in angles if missing == "left_hip" else "left_elbow" not in angles
    assert "right_knee" in angles

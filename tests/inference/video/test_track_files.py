import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posedy.inference.track_files import (
    check_track_files,
    parse_track_formats,
    write_csv,
    write_openpose,
    write_parquet,
    write_track_files,
    write_trc,
    write_wide_csv,
)
from posedy.inference.track_table import TrackTable
from posedy.poses import Poses
from posedy.skeleton import COCO17, Skeleton


def make_table(frames: list[list[int]], skeleton: Skeleton = COCO17, rate: float = 25.0) -> TrackTable:
    """A table of frames with persons of the given ids, whose keypoints are random."""
    rng, K = np.random.default_rng(0), skeleton.num_keypoints
    poses = []
    for ids in frames:
        keypoints = rng.uniform(0, 300, (len(ids), K, 2)).astype(np.float32)
        boxes = np.tile(np.array([0, 0, 200, 300], np.float32), (len(ids), 1))
        scores = rng.uniform(0.3, 1, (len(ids), K)).astype(np.float32)
        ones = np.ones(len(ids), np.float32)
        poses.append(Poses(keypoints, scores, boxes, ones, skeleton, track_ids=np.array(ids, dtype=np.int64)))
    return TrackTable.from_poses(poses, rate=rate)


@pytest.fixture
def table() -> TrackTable:
    table = make_table([[2, 1], [], [1], [1, 2]])
    table.filled[0, 3] = True
    return table


def test_csv_has_a_row_for_each_keypoint(table: TrackTable, tmp_path: Path) -> None:
    write_csv(table, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 17
    assert rows[3]["keypoint"] == "left_ear"
    assert [row["filled"] for row in rows[:5]] == ["0", "0", "0", "1", "0"]
    xy = np.array([(row["x"], row["y"]) for row in rows], float).reshape(5, 17, 2)
    np.testing.assert_allclose(xy, table.keypoints, atol=0.005001)
    assert [row["track_id"] for row in rows[::17]] == ["2", "1", "1", "1", "2"]
    assert [row["time"] for row in rows[::17]] == ["0.0", "0.0", "0.08", "0.12", "0.12"]


def test_csv_is_read_by_pandas(table: TrackTable, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    write_csv(table, tmp_path / "a.csv")
    long = pd.read_csv(tmp_path / "a.csv")
    wrist = long[(long.track_id == 1) & (long.keypoint == "left_wrist")].set_index("time")
    np.testing.assert_allclose(wrist[["x", "y"]], table.keypoints[table.track_ids == 1, 9], atol=0.005001)
    write_wide_csv(table, tmp_path / "b.csv")
    wide = pd.read_csv(tmp_path / "b.csv")
    assert wide.shape == (5, 3 + 4 * 17)
    np.testing.assert_allclose(wide.right_ankle_score, table.scores[:, 16], atol=0.00005001)
    assert wide.left_ear_filled.tolist() == [1, 0, 0, 0, 0]


def test_keypoint_names_with_commas_are_quoted(tmp_path: Path) -> None:
    write_csv(make_table([[1]], Skeleton(('a, "b"',), (), (), (0.05,))), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["keypoint"] for row in csv.DictReader(file)] == ['a, "b"']


def test_openpose_files_are_in_the_order_of_body_25(table: TrackTable, tmp_path: Path) -> None:
    write_openpose(table, tmp_path / "o", "clip")
    files = sorted((tmp_path / "o").iterdir())
    assert [file.name for file in files] == [f"clip_{frame:012d}_keypoints.json" for frame in range(4)]
    first, second = (json.loads(file.read_text()) for file in files[:2])
    assert second == {"version": 1.3, "people": []}
    assert [person["person_id"] for person in first["people"]] == [[2], [1]]
    points = np.array(first["people"][0]["pose_keypoints_2d"]).reshape(25, 3)
    # BODY_25 in OpenPose's documentation: 4 RWrist, 7 LWrist, 15 REye, 18 LEar
    np.testing.assert_allclose(points[[0, 4, 7, 15, 18], :2], table.keypoints[0, [0, 10, 9, 2, 3]], atol=0.001)
    np.testing.assert_allclose(points[1, :2], table.keypoints[0, [5, 6]].mean(axis=0), atol=0.001)
    np.testing.assert_allclose(points[8, :2], table.keypoints[0, [11, 12]].mean(axis=0), atol=0.001)
    assert points[8, 2] == pytest.approx(table.scores[0, [11, 12]].min(), abs=1e-4)
    assert not points[19:].any()
    assert first["people"][0]["hand_left_keypoints_2d"] == []


def test_openpose_files_of_other_skeletons_keep_their_order(tmp_path: Path) -> None:
    table = make_table([[1]], Skeleton(("tail", "nose"), (), (), (0.05, 0.05)))
    table.scores[0, 1] = 0
    stale = tmp_path / "a_000000000007_keypoints.json"
    stale.touch()
    (tmp_path / "a_notes.json").touch()
    write_openpose(table, tmp_path, "a")
    points = json.loads((tmp_path / "a_000000000000_keypoints.json").read_text())["people"][0]["pose_keypoints_2d"]
    np.testing.assert_allclose(points[:2], table.keypoints[0, 0], atol=0.001)
    assert points[3:] == [0, 0, 0]
    assert not stale.exists()
    assert (tmp_path / "a_notes.json").exists()


def read_trc(path: Path) -> tuple[dict[str, str], list[str], np.ndarray]:
    """Reads the header, the names of markers, and the numbers (frames, 2 + 3 M) of a TRC file."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0][:3] == ["PathFileType", "4", "(X/Y/Z)"]
    header = dict(zip(lines[1], lines[2], strict=True))
    names = lines[3][2::3]
    assert lines[3][:2] == ["Frame#", "Time"]
    assert lines[4][2:] == [f"{axis}{marker + 1}" for marker in range(len(names)) for axis in "XYZ"]
    return header, names, np.array([[float(cell or "nan") for cell in line] for line in lines[5:]])


def test_trc_files_have_the_frames_of_a_track(table: TrackTable, tmp_path: Path) -> None:
    table.scores[2, 4] = 0.1
    write_trc(table, 1, tmp_path / "a.trc")
    header, names, numbers = read_trc(tmp_path / "a.trc")
    assert header["NumFrames"] == header["OrigNumFrames"] == "4"
    assert (header["NumMarkers"], header["Units"], header["DataRate"]) == ("17", "px", "25")
    assert header["CameraRate"] == header["OrigDataRate"] == "25"
    # the markers of Pose2Sim's setups for OpenSim
    assert " ".join(names) == (
        "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee RKnee LAnkle RAnkle"
    )
    np.testing.assert_allclose(numbers[:, :2], [[0, 0], [1, 0.04], [2, 0.08], [3, 0.12]])
    xyz = numbers[:, 2:].reshape(4, 17, 3)
    rows = np.flatnonzero(table.track_ids == 1)
    expected = table.keypoints[rows] * [1, -1]
    expected[1, 4] = np.nan  # a low score
    np.testing.assert_allclose(xyz[[0, 2, 3], :, :2], expected, atol=0.0005001)
    assert np.isnan(xyz[1]).all()  # absent
    assert np.nanmax(np.abs(xyz[..., 2])) == 0


def test_trc_files_may_have_the_names_of_coco_and_rates_tell_the_stride(tmp_path: Path) -> None:
    table = make_table([[1]] * 5)
    table = replace(table, frames=3 * table.frames)
    write_trc(table, 1, tmp_path / "a.trc", marker_names="coco")
    header, names, _ = read_trc(tmp_path / "a.trc")
    assert names == list(COCO17.keypoints)
    assert (header["DataRate"], header["CameraRate"], header["OrigDataRate"]) == ("25", "75", "75")
    assert (header["NumFrames"], header["OrigNumFrames"]) == ("5", "13")
    other = make_table([[1]], Skeleton(("tail", "nose"), (), (), (0.05, 0.05)))
    write_trc(other, 1, tmp_path / "a.trc")
    assert read_trc(tmp_path / "a.trc")[1] == ["tail", "Nose"]
    with pytest.raises(ValueError, match=r"pose2sim or coco.*'opensim'"):
        write_trc(table, 1, tmp_path / "a.trc", marker_names="opensim")


def test_only_files_of_the_format_are_deleted(tmp_path: Path) -> None:
    """Files of users with similar names stay; names of videos may have characters of patterns."""
    lines = tmp_path / "a[1]*?.jsonl"
    write_track_files(make_table([[1, 2], [1]]), lines, ["trc", "openpose"])
    trc, openpose = tmp_path / "a[1]*?-trc", tmp_path / "a[1]*?-openpose"
    (trc / "track_1_filtered.trc").touch()
    (openpose / "a1_000000000001_keypoints.json").touch()
    write_track_files(make_table([[1]]), lines, ["trc", "openpose"])
    assert {path.name for path in trc.iterdir()} == {"track_1.trc", "track_1_filtered.trc"}
    names = {path.name for path in openpose.iterdir()}
    assert names == {"a[1]*?_000000000000_keypoints.json", "a1_000000000001_keypoints.json"}


@pytest.mark.parametrize("name", ["csv", "wide-csv", "openpose", "trc"])
def test_a_full_disk_names_the_file_and_leaves_earlier_ones(name: str, tmp_path: Path) -> None:
    """A limit of the size of files, which the system reports as it does a full disk."""
    resource = pytest.importorskip("resource")
    lines = tmp_path / "a.jsonl"
    (path,) = write_track_files(make_table([[1]]), lines, [name])
    earlier = contents_of(tmp_path)
    table = make_table([[1, 2]] * 3 + [[1, *range(2, 60)]] * 5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match=f"{path.name} cannot be written"):
            write_track_files(table, lines, [name])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents_of(tmp_path) == earlier


def contents_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_trc_files_may_be_in_meters(table: TrackTable, tmp_path: Path) -> None:
    write_trc(table, 2, tmp_path / "a.trc", meters_per_pixel=0.01)
    header, _, numbers = read_trc(tmp_path / "a.trc")
    assert header["Units"] == "m"
    np.testing.assert_allclose(numbers[0, 2:4], 0.01 * table.keypoints[0, 0] * [1, -1], atol=1e-6)
    with pytest.raises(ValueError, match="track 7"):
        write_trc(table, 7, tmp_path / "a.trc")
    with pytest.raises(ValueError, match="-1"):
        write_trc(table, 1, tmp_path / "a.trc", meters_per_pixel=-1)


def test_parquet_has_the_rows_of_the_csv(table: TrackTable, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    write_parquet(table, tmp_path / "a.parquet")
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == 5 * 17
    assert rows[3]["keypoint"] == "left_ear"
    assert rows[3]["filled"] is True
    assert rows[-1] | {"x": 0, "y": 0, "score": 0} == {
        **{"frame": 3, "time": 0.12, "track_id": 2, "keypoint": "right_ankle"},
        **{"x": 0, "y": 0, "score": 0, "filled": False},
    }


@pytest.mark.parametrize("frames", [[], [[]], [[3]]])
def test_every_format_takes_short_videos(frames: list[list[int]], tmp_path: Path) -> None:
    formats = parse_track_formats(" csv,wide-csv, OpenPose,trc,csv")
    table = make_table(frames or [[]])
    check_track_files(tmp_path / "x.y.jsonl", formats)
    paths = write_track_files(table, tmp_path / "x.y.jsonl", formats)
    names = ["x.y.csv", "x.y-wide.csv", "x.y-openpose", "x.y-trc"]
    assert [path.name for path in paths] == (names if frames == [[3]] else names[:3])  # nobody has no TRC file
    assert all(path.exists() for path in paths)
    assert (tmp_path / "x.y-trc").exists() == (frames == [[3]])
    assert [file.name for file in tmp_path.glob("x.y-trc/*")] == (["track_3.trc"] if frames == [[3]] else [])
    check_track_files(tmp_path / "x.y.jsonl", formats)  # the folders exist now


def test_formats_are_checked_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_track_formats("csv,") == ["csv"]
    for text, message in (("trc,cvs", "'cvs'.*csv"), (",", "','.*wide-csv")):
        with pytest.raises(ValueError, match=message):
            parse_track_formats(text)
    for function in (
        lambda: check_track_files(tmp_path / "a.jsonl", ["foo", "csv"]),
        lambda: write_track_files(make_table([[]]), tmp_path / "a.jsonl", ["csv", "paquet"]),
    ):
        with pytest.raises(ValueError, match=r"unknown format '(foo|paquet)': did you mean (openpose|parquet|csv|trc)"):
            function()
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pyarrow"):
        parse_track_formats("parquet")
    (tmp_path / "a-trc").touch()
    with pytest.raises(NotADirectoryError, match="a-trc"):
        check_track_files(tmp_path / "a.jsonl", ["trc"])
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a\.csv"):
        check_track_files(tmp_path / "a.jsonl", ["csv"])

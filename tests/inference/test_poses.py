import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from posedy.data.coco_results import check_results
from posedy.drawing import LEFT, RIGHT
from posedy.poses import Pose, Poses
from posedy.skeleton import COCO17


@pytest.fixture
def poses() -> Poses:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (3, 2))
    return Poses(
        keypoints=rng.uniform(0, 100, (3, 17, 2)).astype(np.float32),
        scores=rng.uniform(0, 1, (3, 17)).astype(np.float32),
        boxes=np.concatenate([corners, corners + 40], axis=1).astype(np.float32),
        box_scores=np.array([1, 0.5, 0.25], dtype=np.float32),
        skeleton=COCO17,
    )


def no_poses() -> Poses:
    empty = np.zeros((0, 17, 2), np.float32)
    return Poses(empty, empty[..., 0], np.zeros((0, 4), np.float32), np.zeros(0, np.float32), COCO17)


@pytest.fixture
def tracked(poses: Poses) -> Poses:
    """The poses with track ids."""
    return replace(poses, track_ids=np.array([7, 3, 12]))


def assert_equal(pose: Pose, poses: Poses, index: int) -> None:
    np.testing.assert_array_equal(pose.keypoints, poses.keypoints[index])
    np.testing.assert_array_equal(pose.scores, poses.scores[index])
    np.testing.assert_array_equal(pose.box, poses.boxes[index])
    assert (pose.box_score, pose.score) == (poses.box_scores[index], poses.pose_scores[index])
    assert pose.track_id == (None if poses.track_ids is None else poses.track_ids[index])
    assert pose.skeleton is poses.skeleton
    assert (type(pose.box_score), type(pose.score)) == (float, float)


def test_length(poses: Poses) -> None:
    assert len(poses) == 3
    assert len(no_poses()) == 0


@pytest.mark.parametrize("name", ["poses", "tracked"])
def test_iteration_and_indexing_return_each_pose(name: str, request: pytest.FixtureRequest) -> None:
    poses: Poses = request.getfixturevalue(name)
    for index, pose in enumerate(poses):
        assert_equal(pose, poses, index)
        assert_equal(poses[index], poses, index)
        assert_equal(poses[np.int64(index)], poses, index)
    assert_equal(poses[-1], poses, 2)
    assert list(no_poses()) == []
    for index in (3, -4):
        with pytest.raises(IndexError):
            poses[index]


@pytest.mark.parametrize("name", ["poses", "tracked"])
@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (slice(0, 0), []),
        ([2, 0], [2, 0]),
        ([], []),
        ([True, False, True], [0, 2]),
        (np.array([False, False, True]), [2]),
        (np.array([1, 1]), [1, 1]),
    ],
)
def test_slices_indices_and_masks_return_poses(
    name: str, index: Any, expected: list[int], request: pytest.FixtureRequest
) -> None:
    poses: Poses = request.getfixturevalue(name)
    poses = replace(poses, channels="rgb")
    selected = poses[index]
    assert isinstance(selected, Poses)
    assert len(selected) == len(expected)
    assert selected.channels == "rgb"
    for pose, source in zip(selected, expected, strict=True):
        assert_equal(pose, poses, source)


def test_time_and_frame_are_kept_but_in_no_record(tracked: Poses) -> None:
    assert (tracked.time, tracked.frame) == (None, None)
    timed = replace(tracked, time=0.24, frame=6)
    for selected in (timed[1:], timed[[0]], timed[:0], replace(timed, channels="rgb")):
        assert (selected.time, selected.frame) == (0.24, 6)
    assert timed.to_records() == tracked.to_records()
    assert timed.to_csv() == tracked.to_csv()
    assert "0.24" in repr(timed)


def test_a_mask_of_another_length_is_rejected(poses: Poses) -> None:
    with pytest.raises(IndexError):
        poses[np.array([True, False])]


def test_track_ids_are_in_records_and_csv(poses: Poses, tracked: Poses) -> None:
    assert [record["id"] for record in tracked.to_records()] == [7, 3, 12]
    assert next(iter(tracked.to_records()[0])) == "id"
    assert all("id" not in record for record in poses.to_records())
    rows = list(csv.DictReader(io.StringIO(tracked.to_csv())))
    assert [int(row["track_id"]) for row in rows[::17]] == [7, 3, 12]
    assert [int(row["person"]) for row in rows[::17]] == [0, 1, 2]
    assert "track_id" not in poses.to_csv()
    empty = replace(no_poses(), track_ids=np.zeros(0, np.int64))
    assert empty.to_csv() == "track_id,person,person_score,keypoint,x,y,score\n"


@pytest.mark.parametrize("name", ["poses", "tracked"])
def test_the_dataframe_equals_the_csv(name: str, request: pytest.FixtureRequest) -> None:
    pd = pytest.importorskip("pandas")
    poses: Poses = request.getfixturevalue(name)
    pd.testing.assert_frame_equal(poses.to_dataframe(), pd.read_csv(io.StringIO(poses.to_csv())))
    assert list(poses[:0].to_dataframe().columns) == list(poses.to_dataframe().columns)


def test_to_dataframe_needs_pandas(tracked: Poses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pandas"):
        tracked.to_dataframe()


def test_the_dataframe_has_a_row_for_each_keypoint(tracked: Poses, monkeypatch: pytest.MonkeyPatch) -> None:
    class DataFrame:
        @classmethod
        def from_records(cls, rows: list[tuple[Any, ...]], columns: list[str]) -> list[dict[str, Any]]:
            return [dict(zip(columns, row, strict=True)) for row in rows]

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=DataFrame))
    rows: Any = tracked.to_dataframe()
    assert len(rows) == 3 * 17
    assert rows == [
        {name: type(rows[0][name])(value) for name, value in row.items()}
        for row in csv.DictReader(io.StringIO(tracked.to_csv()))
    ]


def test_to_supervision_uses_the_names_of_its_version(poses: Poses, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(xy: Any, keypoint_confidence: Any = None, detection_confidence: Any = None) -> dict[str, Any]:
        return {"xy": xy, "keypoints": keypoint_confidence, "detections": detection_confidence}

    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(KeyPoints=create))
    result = poses.to_supervision()
    np.testing.assert_array_equal(result["keypoints"], poses.scores)
    np.testing.assert_allclose(result["detections"], poses.pose_scores, rtol=1e-6)


def test_to_supervision_passes_keypoints_and_scores(poses: Poses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(KeyPoints=lambda **arguments: arguments))
    result = poses.to_supervision()
    assert sorted(result) == ["confidence", "xy"]
    np.testing.assert_array_equal(result["xy"], poses.keypoints)
    np.testing.assert_array_equal(result["confidence"], poses.scores)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError):
        poses.to_supervision()


def test_to_coco_returns_valid_rescored_results(poses: Poses) -> None:
    results = poses.to_coco(42)
    check_results(results, num_keypoints=17)
    for index, result in enumerate(results):
        confident = [score for score in poses.scores[index].tolist() if score > 0.2]
        assert result["score"] == pytest.approx(poses.box_scores[index] * sum(confident) / len(confident))
        assert result["image_id"] == 42
        np.testing.assert_array_equal(np.reshape(result["keypoints"], (17, 3))[:, :2], poses.keypoints[index])
    assert json.loads(json.dumps(results)) == results
    assert no_poses().to_coco(42) == []
    assert {result["category_id"] for result in poses.to_coco(42, category_id=3)} == {3}
    for some in (poses, no_poses()):
        with pytest.raises(TypeError, match=r"image_id.*1\.7"):
            some.to_coco(1.7)  # type: ignore[arg-type]


def test_the_csv_has_a_row_for_each_keypoint(poses: Poses) -> None:
    rows = list(csv.DictReader(io.StringIO(poses.to_csv())))
    assert len(rows) == 3 * 17
    for row, (person, keypoint) in zip(rows, np.ndindex(3, 17), strict=True):
        assert (int(row["person"]), row["keypoint"]) == (person, COCO17.keypoints[keypoint])
        np.testing.assert_allclose([float(row["x"]), float(row["y"])], poses.keypoints[person, keypoint], atol=0.006)
        assert float(row["score"]) == pytest.approx(poses.scores[person, keypoint], abs=6e-5)
        assert float(row["person_score"]) == pytest.approx(poses.pose_scores[person], abs=6e-5)
    assert no_poses().to_csv() == "person,person_score,keypoint,x,y,score\n"


def test_the_csv_quotes_names_of_keypoints(poses: Poses) -> None:
    names = ("left, upper", 'the "tip"', "two\nlines", "carriage\rreturn", *COCO17.keypoints[4:])
    text = replace(poses, skeleton=replace(COCO17, keypoints=names)).to_csv()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["keypoint"] for row in rows] == list(names) * 3
    assert [row["score"] for row in rows] == [row["score"] for row in csv.DictReader(io.StringIO(poses.to_csv()))]


def test_records_contain_keypoints_by_name(poses: Poses) -> None:
    records = json.loads(json.dumps(poses.to_records()))
    assert len(records) == 3
    for index, record in enumerate(records):
        assert list(record["keypoints"]) == list(COCO17.keypoints)
        points = [(point["x"], point["y"]) for point in record["keypoints"].values()]
        np.testing.assert_allclose(points, poses.keypoints[index], atol=0.006)
        np.testing.assert_allclose([p["score"] for p in record["keypoints"].values()], poses.scores[index], atol=6e-5)
        np.testing.assert_allclose(record["box_xyxy"], poses.boxes[index], atol=0.006)
        assert record["box_score"] == pytest.approx(poses.box_scores[index], abs=6e-5)
        assert record["score"] == pytest.approx(poses.pose_scores[index], abs=6e-5)
    assert no_poses().to_records() == []


def test_draw_returns_a_copy_of_every_kind_of_image(poses: Poses, image: np.ndarray) -> None:
    before = image.copy()
    bgr = image[..., ::-1]
    assert (poses.draw(bgr) != bgr).any()
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(no_poses().draw(bgr), bgr)
    assert poses.draw(image[..., 0]).shape == image.shape
    rgba = np.dstack([image, image[..., :1]])
    np.testing.assert_array_equal(poses.draw(rgba, channels="rgb"), poses.draw(image, channels="rgb"))


@pytest.fixture
def two_sided() -> Poses:
    """A pose whose left keypoints are at x = 20 and whose right ones are at x = 80, in an image 100 pixels wide."""
    x = [20 if name.startswith("left") else 80 if name.startswith("right") else 50 for name in COCO17.keypoints]
    y = np.linspace(5, 90, 17)
    box = np.array([[0, 0, 100, 100]], np.float32)
    keypoints = np.stack([x, y], axis=-1)[None].astype(np.float32)
    return Poses(keypoints, np.ones((1, 17), np.float32), box, np.ones(1, np.float32), COCO17)


def rgb_of_sides(image: np.ndarray, order: str) -> list[tuple[int, ...]]:
    """The colors, as RGB, of the left and of the right hip."""
    rgb = image if order == "rgb" else image[..., ::-1]
    rows = [round(float(np.linspace(5, 90, 17)[COCO17.keypoints.index(f"{side}_hip")])) for side in ("left", "right")]
    return [tuple(rgb[row, column].tolist()) for row, column in zip(rows, (20, 80), strict=True)]


def test_left_and_right_keep_their_colors_in_every_kind_of_image(two_sided: Poses, tmp_path: Path) -> None:
    black = np.zeros((100, 100, 3), np.uint8)
    drawn = two_sided.draw(black)
    assert rgb_of_sides(drawn, "bgr") == [LEFT, RIGHT]
    rgb = two_sided.draw(black, channels="rgb")
    assert rgb_of_sides(rgb, "rgb") == [LEFT, RIGHT]
    assert not np.shares_memory(rgb, black)
    in_rgb = replace(two_sided, channels="rgb")
    assert rgb_of_sides(in_rgb.draw(black), "rgb") == [LEFT, RIGHT]
    assert rgb_of_sides(in_rgb.draw(black, channels="bgr"), "bgr") == [LEFT, RIGHT]
    pil = Image.fromarray(black)
    pil.save(tmp_path / "black.png")
    for poses in (two_sided, in_rgb):
        as_pil = poses.draw(pil)
        assert isinstance(as_pil, Image.Image)
        assert rgb_of_sides(np.asarray(as_pil), "rgb") == [LEFT, RIGHT]
        assert rgb_of_sides(poses.draw(tmp_path / "black.png"), "bgr") == [LEFT, RIGHT]


def test_draw_rejects_unknown_channels(two_sided: Poses) -> None:
    with pytest.raises(ValueError, match="gbr"):
        two_sided.draw(np.zeros((100, 100, 3), np.uint8), channels="gbr")  # type: ignore[call-overload]


def test_draw_uses_threshold_and_boxes(poses: Poses, image: np.ndarray) -> None:
    drawn = poses.draw(image)
    assert (poses.draw(image, boxes=True) != drawn).any()
    assert (poses.draw(image, threshold=2) != drawn).any()


@pytest.mark.parametrize(
    "index", [True, 1.0, None, ..., "a", [[0, 1]], np.array(True), [0.5], [True, False], 3, -4, [3]]
)
def test_invalid_indices_are_rejected(poses: Poses, index: Any) -> None:
    with pytest.raises(IndexError):
        poses[index]


def test_an_array_without_dimensions_is_an_index(poses: Poses) -> None:
    pose = poses[np.array(1)]  # type: ignore[call-overload]
    assert isinstance(pose, Pose)
    assert (pose.keypoints == poses.keypoints[1]).all()


def test_tables_without_persons_have_the_same_types(poses: Poses) -> None:
    pytest.importorskip("pandas")
    numeric = [name for name in poses.to_dataframe().columns if name != "keypoint"]
    assert (poses[[]].to_dataframe()[numeric].dtypes == poses.to_dataframe()[numeric].dtypes).all()


def test_a_url_to_draw_on_is_named(poses: Poses) -> None:
    with pytest.raises(ValueError, match=r"http://example\.org/a\.jpg"):
        poses.draw("http://example.org/a.jpg")


def test_csv_is_written_to_a_file(poses: Poses, tmp_path: Path) -> None:
    text = poses.to_csv(tmp_path / "poses.csv")
    assert (tmp_path / "poses.csv").read_bytes().decode() == text == poses.to_csv()

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posedy.data.coco_results import check_results
from posedy.drawing import LEFT, RIGHT
from posedy.inference.poses import Poses
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


def test_len(poses: Poses) -> None:
    assert len(poses) == 3
    assert len(no_poses()) == 0


def test_to_coco_gives_valid_rescored_results(poses: Poses) -> None:
    results = poses.to_coco(42)
    check_results(results, num_keypoints=17)
    for index, result in enumerate(results):
        certain = [score for score in poses.scores[index].tolist() if score > 0.2]
        assert result["score"] == pytest.approx(poses.box_scores[index] * sum(certain) / len(certain))
        assert result["image_id"] == 42
        np.testing.assert_array_equal(np.reshape(result["keypoints"], (17, 3))[:, :2], poses.keypoints[index])
    assert json.loads(json.dumps(results)) == results
    assert no_poses().to_coco(42) == []
    assert {result["category_id"] for result in poses.to_coco(42, category_id=3)} == {3}


def test_csv_has_a_line_for_each_keypoint(poses: Poses) -> None:
    rows = list(csv.DictReader(io.StringIO(poses.to_csv())))
    assert len(rows) == 3 * 17
    for row, (person, keypoint) in zip(rows, np.ndindex(3, 17), strict=True):
        assert (int(row["person"]), row["keypoint"]) == (person, COCO17.keypoints[keypoint])
        np.testing.assert_allclose([float(row["x"]), float(row["y"])], poses.keypoints[person, keypoint], atol=0.006)
        assert float(row["score"]) == pytest.approx(poses.scores[person, keypoint], abs=6e-5)
        assert float(row["person_score"]) == pytest.approx(poses.pose_scores[person], abs=6e-5)
    assert no_poses().to_csv() == "person,person_score,keypoint,x,y,score\n"


def test_csv_quotes_the_names_of_keypoints(poses: Poses) -> None:
    names = ("left, upper", 'the "tip"', "two\nlines", "carriage\rreturn", *COCO17.keypoints[4:])
    text = replace(poses, skeleton=replace(COCO17, keypoints=names)).to_csv()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["keypoint"] for row in rows] == list(names) * 3
    assert [row["score"] for row in rows] == [row["score"] for row in csv.DictReader(io.StringIO(poses.to_csv()))]


def test_records_name_the_keypoints(poses: Poses) -> None:
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


def test_draw_takes_every_kind_of_image_and_changes_none(poses: Poses, photo: np.ndarray) -> None:
    before = photo.copy()
    bgr = photo[..., ::-1]
    assert (poses.draw(bgr) != bgr).any()
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(no_poses().draw(bgr), bgr)
    assert poses.draw(photo[..., 0]).shape == photo.shape
    rgba = np.dstack([photo, photo[..., :1]])
    np.testing.assert_array_equal(poses.draw(rgba, channels="rgb"), poses.draw(photo, channels="rgb"))


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


def test_left_and_right_have_their_colors_in_every_kind_of_image(two_sided: Poses, tmp_path: Path) -> None:
    black = np.zeros((100, 100, 3), np.uint8)
    drawn = two_sided.draw(black)
    assert rgb_of_sides(drawn, "bgr") == [LEFT, RIGHT]
    rgb = two_sided.draw(black, channels="rgb")
    assert rgb_of_sides(rgb, "rgb") == [LEFT, RIGHT]
    assert not np.shares_memory(rgb, black)
    remembered = replace(two_sided, channels="rgb")
    assert rgb_of_sides(remembered.draw(black), "rgb") == [LEFT, RIGHT]
    assert rgb_of_sides(remembered.draw(black, channels="bgr"), "bgr") == [LEFT, RIGHT]
    image = Image.fromarray(black)
    image.save(tmp_path / "black.png")
    for poses in (two_sided, remembered):
        as_pil = poses.draw(image)
        assert isinstance(as_pil, Image.Image)
        assert rgb_of_sides(np.asarray(as_pil), "rgb") == [LEFT, RIGHT]
        assert rgb_of_sides(poses.draw(tmp_path / "black.png"), "bgr") == [LEFT, RIGHT]


def test_draw_rejects_unknown_channels(two_sided: Poses) -> None:
    with pytest.raises(ValueError, match="gbr"):
        two_sided.draw(np.zeros((100, 100, 3), np.uint8), channels="gbr")  # type: ignore[call-overload]


def test_draw_passes_threshold_and_boxes_on(poses: Poses, photo: np.ndarray) -> None:
    drawn = poses.draw(photo)
    assert (poses.draw(photo, boxes=True) != drawn).any()
    assert (poses.draw(photo, threshold=2) != drawn).any()

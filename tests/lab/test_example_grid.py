"""The grid of example images: rows of equal height, poses at the persons, a small file."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.examples import example_images
from posedy.poses import Poses
from posedy.skeleton import Skeleton
from tools.lab.example_grid import MAX_BYTES, WIDTH, draw_row, encode_jpeg, split_rows

GRID = Path(__file__).parents[2] / "docs/images/people.jpg"


def poses_at(x: float, y: float) -> Poses:
    return Poses(
        keypoints=np.array([[[x, y]]], np.float32),
        scores=np.ones((1, 1), np.float32),
        boxes=np.array([[x - 9, y - 9, x + 9, y + 9]], np.float32),
        box_scores=np.ones(1, np.float32),
        track_ids=None,
        skeleton=Skeleton(("nose",), flip_pairs=(), limbs=(), sigmas=(0.1,)),
        channels="rgb",
    )


def test_rows_are_almost_equally_high() -> None:
    assert split_rows([1.0, 1.0, 1.5, 1.5]) == ([0, 2], [1, 3])
    rows = split_rows([2.0, 1.0, 1.0, 2.0, 0.5, 0.5])
    assert rows == ([0, 1, 4], [2, 3, 5]) or rows == ([0, 1, 5], [2, 3, 4])


def test_poses_are_drawn_at_the_same_place_of_the_resized_image() -> None:
    black = np.zeros((80, 120, 3), np.uint8)
    row = draw_row([black, np.zeros((160, 80, 3), np.uint8)], [poses_at(89.5, 19.5), poses_at(39.5, 119.5)], 400)
    height = row.shape[0]
    assert row.shape == (round(394 / (1.5 + 0.5)), 400, 3)
    first = round(1.5 * height)
    assert np.all(row[:, first : first + 6] == 255)
    row[:, first : first + 6] = 0
    for columns, x, y in ((slice(0, first), 0.75, 0.25), (slice(first + 6, None), 0.5, 0.75)):
        drawn = np.argwhere(row[:, columns].any(axis=-1))
        center = (drawn.min(axis=0) + drawn.max(axis=0) + 1) / 2
        assert center == pytest.approx([y * height, x * row[:, columns].shape[1]], abs=1)


def test_the_file_has_the_best_quality_that_fits() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    large, small = encode_jpeg(image, 10**6), encode_jpeg(image, 3000)
    assert len(small) <= 3000 < len(large)
    difference = np.abs(cv2.imdecode(np.frombuffer(large, np.uint8), 1)[..., ::-1].astype(int) - image).mean()
    assert difference < np.abs(cv2.imdecode(np.frombuffer(large, np.uint8), 1).astype(int) - image).mean()
    with pytest.raises(ValueError, match="100"):
        encode_jpeg(image, 100)


def test_the_grid_of_the_documentation_is_small_and_has_two_rows_of_three_images() -> None:
    assert len(example_images()) == 6
    assert GRID.stat().st_size <= MAX_BYTES
    image = cv2.imread(str(GRID))
    assert image is not None
    assert image.shape[1] == WIDTH

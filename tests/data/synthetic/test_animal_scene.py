"""Annotations of animals agree with the photo they were made with."""

import numpy as np
import pytest

from posedy.data.synthetic.animal_scene import draw_animals
from posedy.data.synthetic.annotation import Photo


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return [draw_animals(np.random.default_rng(seed)) for seed in range(60)]


def test_boxes_and_keypoints_lie_inside_and_belong_together(photos: list[Photo]) -> None:
    for photo in photos:
        height, width = photo.picture.shape[:2]
        assert photo.picture.dtype == np.uint8
        assert len(photo.from_behind) == len(photo.annotations)
        for record in photo.annotations:
            x, y, w, h = record["bbox"]
            assert min(x, y) >= 0
            assert x + w <= width
            assert y + h <= height
            assert 0 < record["area"] <= w * h
            assert record["iscrowd"] == 0
            keypoints = np.array(record["keypoints"]).reshape(12, 3)
            flags = keypoints[:, 2]
            assert record["num_keypoints"] == np.count_nonzero(flags)
            assert (keypoints[flags == 0] == 0).all()
            labelled, seen = keypoints[flags > 0, :2], keypoints[flags == 2, :2]
            assert (labelled >= 0).all()
            assert (labelled <= [width - 1, height - 1]).all()
            assert (seen >= np.array([x, y]) - 2).all()
            assert (seen <= np.array([x + w, y + h]) + 2).all()


def test_photos_show_one_to_three_animals_mostly_seen_well(photos: list[Photo]) -> None:
    counts = [len(photo.annotations) for photo in photos]
    assert set(counts) == {1, 2, 3}
    records = [record for photo in photos for record in photo.annotations]
    assert np.mean([record["num_keypoints"] >= 10 for record in records]) > 0.75
    flags = np.array([record["keypoints"][2::3] for record in records])
    assert 0.1 < (flags == 1).sum() / (flags > 0).sum() < 0.4
    widths = [record["bbox"][2] for record in records]
    assert min(widths) < 110 < 180 < max(widths)


def test_the_generator_alone_decides(photos: list[Photo]) -> None:
    again = draw_animals(np.random.default_rng(7))
    np.testing.assert_array_equal(again.picture, photos[7].picture)
    assert again.annotations == photos[7].annotations

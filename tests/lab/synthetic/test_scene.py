"""Annotations agree with the photo they were made with."""

import numpy as np
import pytest

from tools.lab.synthetic.annotation import Photo
from tools.lab.synthetic.scene import draw_photo


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return [draw_photo(np.random.default_rng(seed), seed % 5 == 0, seed % 4 == 0) for seed in range(40)]


def test_boxes_and_keypoints_lie_inside_and_belong_together(photos: list[Photo]) -> None:
    for photo in photos:
        height, width = photo.picture.shape[:2]
        assert photo.picture.dtype == np.uint8
        for record in photo.annotations:
            x, y, w, h = record["bbox"]
            assert min(x, y) >= 0
            assert x + w <= width
            assert y + h <= height
            assert 0 < record["area"] <= w * h
            keypoints = np.array(record["keypoints"]).reshape(17, 3)
            flags = keypoints[:, 2]
            assert record["num_keypoints"] == np.count_nonzero(flags)
            assert (keypoints[flags == 0] == 0).all()
            labeled, seen = keypoints[flags > 0, :2], keypoints[flags == 2, :2]
            assert (labeled >= 0).all()
            assert (labeled <= [width - 1, height - 1]).all()
            assert (seen >= np.array([x, y]) - 2).all()
            assert (seen <= np.array([x + w, y + h]) + 2).all()


def test_photos_show_people_of_many_sizes_and_both_orientations(photos: list[Photo]) -> None:
    heights = [record["bbox"][3] for photo in photos for record in photo.annotations if record["num_keypoints"]]
    assert min(heights) < 80
    assert max(heights) > 160
    assert {photo.picture.shape[0] > photo.picture.shape[1] for photo in photos} == {False, True}


def test_a_seen_person_differs_from_what_is_around(photos: list[Photo]) -> None:
    """Keypoints that count as seen lie on the person's clothes or skin, so the box is not flat."""
    for photo in photos:
        for record in photo.annotations:
            x, y, w, h = (round(side) for side in record["bbox"])
            assert photo.picture[y : y + h, x : x + w].std(axis=(0, 1)).max() > 8


def test_a_crowd_and_far_people_are_drawn_on_demand() -> None:
    with_both = draw_photo(np.random.default_rng(3), with_crowd=True, with_far_people=True)
    crowds = [record for record in with_both.annotations if record["iscrowd"]]
    assert len(crowds) == 1
    assert sum(crowds[0]["segmentation"]["counts"]) == np.prod(crowds[0]["segmentation"]["size"])
    assert not any(crowds[0]["keypoints"])
    assert any(not record["iscrowd"] and record["num_keypoints"] == 0 for record in with_both.annotations)
    alone = draw_photo(np.random.default_rng(3), with_crowd=False, with_far_people=False)
    assert not any(record["iscrowd"] for record in alone.annotations)

"""Difficulty is counted right, and is what the set promises."""

import numpy as np
import pytest

from tools.lab.synthetic.annotation import Photo
from tools.lab.synthetic.scene import draw_photo
from tools.lab.synthetic.statistics import DrawnStatistics


def person(x: float, flags: list[int], iscrowd: int = 0) -> dict:
    keypoints = [value for flag in flags + [0] * (17 - len(flags)) for value in (x, 5, flag)]
    return {
        "bbox": [x, 0, 10, 20],
        "iscrowd": iscrowd,
        "num_keypoints": sum(flag > 0 for flag in flags),
        "keypoints": keypoints,
    }


def test_counts_of_a_photo() -> None:
    records = [person(0, [2, 2, 1]), person(5, [1, 0, 2]), person(50, [2]), person(2, []), person(3, [], iscrowd=1)]
    photo = Photo(np.zeros((9, 9, 3), np.uint8), records, [True, False, False, True, False])
    counts = DrawnStatistics.of_photo(photo)
    assert counts == DrawnStatistics(
        photos=1,
        persons=3,
        unlabeled=1,
        crowds=1,
        back_views=1,
        with_neighbor=2,
        labeled_keypoints=6,
        occluded_keypoints=2,
    )
    assert (counts + counts).persons == 6
    assert counts.back_view_fraction == pytest.approx(1 / 3)
    assert counts.neighbor_fraction == pytest.approx(2 / 3)
    assert counts.occluded_fraction == pytest.approx(1 / 3)


def test_a_photo_without_people_counts_as_a_photo() -> None:
    counts = DrawnStatistics.of_photo(Photo(np.zeros((9, 9, 3), np.uint8)))
    assert counts == DrawnStatistics(photos=1)
    assert counts.neighbor_fraction == counts.occluded_fraction == 0


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_drawn_people_are_as_hard_as_promised(seed: int) -> None:
    photos = (draw_photo(np.random.default_rng((seed, index)), False, False) for index in range(64))
    counts = sum((DrawnStatistics.of_photo(photo) for photo in photos), DrawnStatistics())
    assert counts.photos == 64
    assert 0.3 <= counts.back_view_fraction <= 0.7
    assert counts.neighbor_fraction >= 0.3
    assert 0.1 <= counts.occluded_fraction <= 0.4

"""Statistics of synthetic datasets."""

import numpy as np
import pytest

from tools.lab.synthetic.annotation import SyntheticImage
from tools.lab.synthetic.scene import generate_image
from tools.lab.synthetic.statistics import DatasetStatistics


def person(x: float, visibility: list[int], iscrowd: int = 0) -> dict:
    keypoints = [value for flag in visibility + [0] * (17 - len(visibility)) for value in (x, 5, flag)]
    return {
        "bbox": [x, 0, 10, 20],
        "iscrowd": iscrowd,
        "num_keypoints": sum(flag > 0 for flag in visibility),
        "keypoints": keypoints,
    }


def test_counts_of_an_image() -> None:
    records = [person(0, [2, 2, 1]), person(5, [1, 0, 2]), person(50, [2]), person(2, []), person(3, [], iscrowd=1)]
    image = SyntheticImage(np.zeros((9, 9, 3), np.uint8), records, [True, False, False, True, False])
    counts = DatasetStatistics.from_image(image)
    assert counts == DatasetStatistics(
        images=1,
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


def test_image_without_people_is_counted() -> None:
    counts = DatasetStatistics.from_image(SyntheticImage(np.zeros((9, 9, 3), np.uint8)))
    assert counts == DatasetStatistics(images=1)
    assert counts.neighbor_fraction == counts.occluded_fraction == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_generated_images_have_the_promised_difficulty(seed: int) -> None:
    images = (generate_image(np.random.default_rng((seed, index)), False, False) for index in range(64))
    counts = sum((DatasetStatistics.from_image(image) for image in images), DatasetStatistics())
    assert counts.images == 64
    assert 0.3 <= counts.back_view_fraction <= 0.7
    assert counts.neighbor_fraction >= 0.3
    assert 0.1 <= counts.occluded_fraction <= 0.4

"""Annotations agree with the generated image."""

import numpy as np
import pytest

from tools.lab.synthetic.annotation import SyntheticImage
from tools.lab.synthetic.scene import generate_image


@pytest.fixture(scope="module")
def images() -> list[SyntheticImage]:
    return [generate_image(np.random.default_rng(seed), seed % 5 == 0, seed % 4 == 0) for seed in range(20)]


def test_boxes_and_keypoints_are_inside_the_image_and_consistent(images: list[SyntheticImage]) -> None:
    for image in images:
        height, width = image.image.shape[:2]
        assert image.image.dtype == np.uint8
        for record in image.annotations:
            x, y, w, h = record["bbox"]
            assert min(x, y) >= 0
            assert x + w <= width
            assert y + h <= height
            assert 0 < record["area"] <= w * h
            keypoints = np.array(record["keypoints"]).reshape(17, 3)
            visibility = keypoints[:, 2]
            assert record["num_keypoints"] == np.count_nonzero(visibility)
            assert (keypoints[visibility == 0] == 0).all()
            labeled, visible = keypoints[visibility > 0, :2], keypoints[visibility == 2, :2]
            assert (labeled >= 0).all()
            assert (labeled <= [width - 1, height - 1]).all()
            assert (visible >= np.array([x, y]) - 2).all()
            assert (visible <= np.array([x + w, y + h]) + 2).all()


def test_people_have_many_sizes_and_images_both_orientations(images: list[SyntheticImage]) -> None:
    heights = [record["bbox"][3] for image in images for record in image.annotations if record["num_keypoints"]]
    assert min(heights) < 80
    assert max(heights) > 160
    assert {image.image.shape[0] > image.image.shape[1] for image in images} == {False, True}


def test_boxes_of_persons_are_not_uniform(images: list[SyntheticImage]) -> None:
    """Visible keypoints lie on clothes or skin, so the box contains several colors."""
    for image in images:
        for record in image.annotations:
            x, y, w, h = (round(side) for side in record["bbox"])
            assert image.image[y : y + h, x : x + w].std(axis=(0, 1)).max() > 8


def test_crowd_and_far_people_are_optional() -> None:
    with_both = generate_image(np.random.default_rng(3), with_crowd=True, with_far_people=True)
    crowds = [record for record in with_both.annotations if record["iscrowd"]]
    assert len(crowds) == 1
    assert sum(crowds[0]["segmentation"]["counts"]) == np.prod(crowds[0]["segmentation"]["size"])
    assert not any(crowds[0]["keypoints"])
    assert any(not record["iscrowd"] and record["num_keypoints"] == 0 for record in with_both.annotations)
    neither = generate_image(np.random.default_rng(3), with_crowd=False, with_far_people=False)
    assert not any(record["iscrowd"] for record in neither.annotations)

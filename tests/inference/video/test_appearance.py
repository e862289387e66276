"""Colors of limbs: what they are, and where they are not known."""

import cv2
import numpy as np

from posedy.inference.association import color_difference, limb_colors

LIMBS = np.array([[0, 1], [1, 2]])
SURE = np.ones((1, 3), dtype=bool)


def test_limbs_have_the_colors_under_them() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30], image[:, 30:] = (200, 30, 10), (20, 20, 240)
    keypoints = np.array([[[5, 5], [25, 35], [25, 5]], [[35, 5], [55, 35], [15, 35]]], dtype=np.float32)
    blue, red = cv2.cvtColor(image[:1, [0, -1]].astype(np.float32) / 255, cv2.COLOR_BGR2LAB)[0]
    found = limb_colors(image, keypoints, np.ones((2, 3), dtype=bool), LIMBS)
    np.testing.assert_allclose(found[0], [blue, blue], atol=1e-3)
    # the other's last limb goes from the right half (two of its points) to the left one
    np.testing.assert_allclose(found[1], [red, (2 * red + blue) / 3], atol=1e-3)


def test_limbs_that_are_unsure_or_outside_have_none() -> None:
    image = np.full((40, 60, 3), 90, np.uint8)
    keypoints = np.array([[[5, 5], [25, 35], [100, 35]]], dtype=np.float32)
    found = limb_colors(image, keypoints, SURE, LIMBS)
    assert np.isnan(found).any(axis=-1).tolist() == [[False, True]]
    found = limb_colors(image, keypoints, np.array([[False, True, True]]), LIMBS)
    assert np.isnan(found).all()


def test_nobody_and_no_limbs_are_no_error() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    assert limb_colors(image, np.zeros((0, 3, 2)), np.zeros((0, 3), dtype=bool), LIMBS).shape == (0, 2, 3)
    assert limb_colors(image, np.zeros((1, 3, 2)), SURE, np.zeros((0, 2), dtype=np.int64)).shape == (1, 0, 3)


def test_the_difference_is_of_limbs_that_both_know() -> None:
    one, other = np.full((3, 3), np.nan), np.full((3, 3), 10.0)
    assert color_difference(one, other) == 0
    one[0], one[1] = [13, 14, 10], [10, 10, 11]
    assert color_difference(one, other) == color_difference(other, one) == 3
    assert color_difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0

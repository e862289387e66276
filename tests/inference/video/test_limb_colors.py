"""Limb colors and their differences."""

import cv2
import numpy as np

from posedy.inference.association import color_difference, limb_colors

LIMBS = np.array([[0, 1], [1, 2]])
CONFIDENT = np.ones((1, 3), dtype=bool)


def test_limb_colors_are_means_along_limbs() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30], image[:, 30:] = (200, 30, 10), (20, 20, 240)
    keypoints = np.array([[[5, 5], [25, 35], [25, 5]], [[35, 5], [55, 35], [15, 35]]], dtype=np.float32)
    blue, red = cv2.cvtColor(image[:1, [0, -1]].astype(np.float32) / 255, cv2.COLOR_BGR2LAB)[0]
    colors = limb_colors(image, keypoints, np.ones((2, 3), dtype=bool), LIMBS)
    np.testing.assert_allclose(colors[0], [blue, blue], atol=1e-3)
    # the last limb of the second person has two samples in the right half and one in the left half
    np.testing.assert_allclose(colors[1], [red, (2 * red + blue) / 3], atol=1e-3)


def test_limb_colors_are_nan_for_unconfident_or_outside_keypoints() -> None:
    image = np.full((40, 60, 3), 90, np.uint8)
    keypoints = np.array([[[5, 5], [25, 35], [100, 35]]], dtype=np.float32)
    colors = limb_colors(image, keypoints, CONFIDENT, LIMBS)
    assert np.isnan(colors).any(axis=-1).tolist() == [[False, True]]
    colors = limb_colors(image, keypoints, np.array([[False, True, True]]), LIMBS)
    assert np.isnan(colors).all()


def test_limb_colors_accepts_zero_persons_and_zero_limbs() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    assert limb_colors(image, np.zeros((0, 3, 2)), np.zeros((0, 3), dtype=bool), LIMBS).shape == (0, 2, 3)
    assert limb_colors(image, np.zeros((1, 3, 2)), CONFIDENT, np.zeros((0, 2), dtype=np.int64)).shape == (1, 0, 3)


def test_color_difference_uses_limbs_known_in_both() -> None:
    first, second = np.full((3, 3), np.nan), np.full((3, 3), 10.0)
    assert color_difference(first, second) == 0
    first[0], first[1] = [13, 14, 10], [10, 10, 11]
    assert color_difference(first, second) == color_difference(second, first) == 3
    assert color_difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0

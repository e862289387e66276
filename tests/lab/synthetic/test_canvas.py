"""Drawing operations fill pixels and labels alike, at the given image coordinates."""

import numpy as np
import pytest

from tools.lab.synthetic.canvas import Canvas, shade


def test_disc_is_centered_on_its_image_pixel() -> None:
    canvas = Canvas(np.zeros((40, 60, 3), np.uint8))
    canvas.disc(np.array([30.0, 17.0]), 8.0, (255, 255, 255), label=3)
    image = canvas.image()[..., 0].astype(float)
    ys, xs = np.mgrid[:40, :60]
    assert (xs * image).sum() / image.sum() == pytest.approx(30, abs=0.15)
    assert (ys * image).sum() / image.sum() == pytest.approx(17, abs=0.15)
    assert image.sum() / 255 == pytest.approx(np.pi * 64, rel=0.08)
    assert canvas.label_at(np.array([30.0, 17.0])) == 3
    assert canvas.label_at(np.array([45.0, 17.0])) == 0


def test_labels_cover_the_same_pixels_as_colors() -> None:
    canvas = Canvas(np.zeros((50, 50, 3), np.uint8))
    canvas.limb(np.array([8.0, 9.0]), np.array([41.0, 37.0]), (6, 4), (200, 150, 100), label=7, outline=0.7)
    np.testing.assert_array_equal(canvas.labels == 7, canvas.pixels.any(axis=-1))


def test_label_outside_the_image_is_0() -> None:
    canvas = Canvas(np.zeros((10, 10, 3), np.uint8))
    canvas.disc(np.array([0.0, 0.0]), 5, (9, 9, 9), label=2)
    assert canvas.label_at(np.array([0.0, 0.0])) == 2
    assert canvas.label_at(np.array([-3.0, 0.0])) == 0
    assert canvas.label_at(np.array([0.0, 30.0])) == 0


def test_shade_is_clipped_to_valid_colors() -> None:
    assert shade((100, 200, 250), 1.5) == (150, 255, 255)


def test_within_selects_only_the_given_part() -> None:
    canvas = Canvas(np.zeros((40, 40, 3), np.uint8))
    canvas.disc(np.array([15.0, 20.0]), 9, (200, 200, 200), label=5)
    canvas.disc(np.array([28.0, 20.0]), 6, (100, 100, 100), label=6)
    square = np.array([[10.0, 14], [38, 14], [38, 26], [10, 26]])
    mask = canvas.within(square, 5)
    assert mask.any()
    assert (canvas.labels[mask] == 5).all()
    ys, xs = np.nonzero((canvas.labels == 5) & ~mask)
    # pixels of the part that are not selected lie outside the square
    assert ((ys <= 28) | (ys >= 53) | (xs <= 20)).all()

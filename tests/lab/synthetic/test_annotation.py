"""A record says what is seen on the canvas, and guesses no more than an annotator would."""

from typing import Any

import numpy as np
import pytest

from tools.lab.synthetic.annotation import annotation_record, inside, visible
from tools.lab.synthetic.canvas import Canvas

LABELS = range(3, 6)


@pytest.fixture
def canvas() -> Canvas:
    """A part 3 at x from 20 to 60, y from 20 to 40, with a part 5 below to y of 50, under somebody else's 6."""
    canvas = Canvas(np.zeros((80, 100, 3), np.uint8))
    for (top, bottom), label in (((20, 40), 3), ((40, 50), 5), ((46, 60), 6)):
        canvas.polygon(np.array([[20.0, top], [60, top], [60, bottom], [20, bottom]]), (9, 9, 9), label)
    return canvas


def record(canvas: Canvas, flags: list[int], x: float = 30.0) -> dict[str, Any]:
    points = np.array([[25.0, 25], [35, 25], [45, 35], [55, 35], [x, 45]])
    made = annotation_record(canvas, LABELS, points, np.array(flags))
    assert made is not None
    return made


def test_area_and_box_are_those_of_the_visible_pixels(canvas: Canvas) -> None:
    mask, area, box = visible(canvas, LABELS)
    assert mask.shape == canvas.labels.shape
    assert area == pytest.approx(40 * 26, rel=0.05)
    np.testing.assert_allclose(box, [20, 20, 40, 26], atol=0.8)
    made = record(canvas, [2, 2, 2, 2, 1])
    assert (made["area"], made["bbox"]) == (area, box)
    assert made["keypoints"][:3] == [25, 25, 2]
    assert made["num_keypoints"] == 5


def test_hidden_keypoints_far_away_are_not_guessed(canvas: Canvas) -> None:
    assert record(canvas, [2, 2, 2, 2, 1], x=63)["keypoints"][-3:] == [63, 45, 1]
    far = record(canvas, [2, 2, 2, 2, 1], x=66)
    assert far["keypoints"][-3:] == [0, 0, 0]
    assert far["num_keypoints"] == 4


def test_who_shows_hardly_anything_has_no_keypoints_or_no_record(canvas: Canvas) -> None:
    few = record(canvas, [2, 2, 2, 1, 1])
    assert few["num_keypoints"] == 0
    assert not any(few["keypoints"])
    assert annotation_record(canvas, range(7, 9), np.ones((5, 2)), np.full(5, 2)) is None


def test_inside_is_up_to_the_last_pixel(canvas: Canvas) -> None:
    points = np.array([[0, 0], [99, 79], [99.5, 79], [-0.5, 3], [3, 79.5]])
    np.testing.assert_array_equal(inside(canvas, points), [True, True, False, False, False])

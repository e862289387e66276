"""Annotation records of what is visible on the canvas."""

from typing import Any

import numpy as np
import pytest

from tools.lab.synthetic.annotation import annotation_record, inside_image, visible_region
from tools.lab.synthetic.canvas import Canvas

LABELS = range(3, 6)


@pytest.fixture
def canvas() -> Canvas:
    """Part 3 at x from 20 to 60, y from 20 to 40, and part 5 below to y = 50, occluded by another person's part 6."""
    canvas = Canvas(np.zeros((80, 100, 3), np.uint8))
    for (top, bottom), label in (((20, 40), 3), ((40, 50), 5), ((46, 60), 6)):
        canvas.polygon(np.array([[20.0, top], [60, top], [60, bottom], [20, bottom]]), (9, 9, 9), label)
    return canvas


def make_record(canvas: Canvas, flags: list[int], x: float = 30.0) -> dict[str, Any]:
    points = np.array([[25.0, 25], [35, 25], [45, 35], [55, 35], [x, 45]])
    record = annotation_record(canvas, LABELS, points, np.array(flags))
    assert record is not None
    return record


def test_area_and_box_are_of_the_visible_pixels(canvas: Canvas) -> None:
    mask, area, box = visible_region(canvas, LABELS)
    assert mask.shape == canvas.labels.shape
    assert area == pytest.approx(40 * 26, rel=0.05)
    np.testing.assert_allclose(box, [20, 20, 40, 26], atol=0.8)
    record = make_record(canvas, [2, 2, 2, 2, 1])
    assert (record["area"], record["bbox"]) == (area, box)
    assert record["keypoints"][:3] == [25, 25, 2]
    assert record["num_keypoints"] == 5


def test_occluded_keypoints_far_from_the_visible_region_are_not_labeled(canvas: Canvas) -> None:
    assert make_record(canvas, [2, 2, 2, 2, 1], x=63)["keypoints"][-3:] == [63, 45, 1]
    far = make_record(canvas, [2, 2, 2, 2, 1], x=66)
    assert far["keypoints"][-3:] == [0, 0, 0]
    assert far["num_keypoints"] == 4


def test_barely_visible_person_has_no_keypoints_or_no_record(canvas: Canvas) -> None:
    few = make_record(canvas, [2, 2, 2, 1, 1])
    assert few["num_keypoints"] == 0
    assert not any(few["keypoints"])
    assert annotation_record(canvas, range(7, 9), np.ones((5, 2)), np.full(5, 2)) is None


def test_inside_image_includes_the_last_pixel(canvas: Canvas) -> None:
    points = np.array([[0, 0], [99, 79], [99.5, 79], [-0.5, 3], [3, 79.5]])
    np.testing.assert_array_equal(inside_image(canvas, points), [True, True, False, False, False])

import numpy as np
import pytest

from posedy.data.box_form import are_fractions, are_outside, describe_misfit
from posedy.geometry import xywh_to_xyxy

SIZE = np.array([640, 480])


@pytest.fixture
def boxes() -> np.ndarray:
    """Boxes (40, 4) x, y, width, height inside an image of 640 x 480 pixels."""
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, SIZE, (2, 40, 2))
    return np.concatenate([np.minimum(first, second), np.abs(first - second) + 1], axis=1)


def unclipped(boxes: np.ndarray) -> np.ndarray:
    return boxes + np.array([-0.04, -0.04, 0.08, 0.08]) * np.tile(SIZE, 2)


def as_centers(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


@pytest.mark.parametrize(
    ("form", "cause"),
    [
        (lambda boxes: boxes, None),
        (unclipped, None),
        (lambda boxes: boxes[:1], None),
        (lambda boxes: boxes[:0], None),
        (lambda boxes: np.minimum(boxes, 90)[:9], None),
        (xywh_to_xyxy, "x1, y1, x2, y2"),
        (as_centers, "center"),
        (lambda boxes: boxes[:, [1, 0, 3, 2]], "y, x, height, width"),
        (lambda boxes: xywh_to_xyxy(boxes)[:, [1, 0, 3, 2]], "y1, x1, y2, x2"),
        (lambda boxes: boxes / np.tile(SIZE, 2) * 100, "percent"),
        (lambda boxes: boxes / np.tile(SIZE, 2) * 1000, "another size"),
        (lambda boxes: boxes * 2, "another size"),
    ],
)
def test_the_form_of_boxes_is_named(boxes: np.ndarray, form, cause: str | None) -> None:
    read = xywh_to_xyxy(form(boxes))
    sizes = np.tile(SIZE, (len(read), 1))
    found = describe_misfit(read, sizes)
    assert (found is None) == (cause is None)
    assert cause is None or cause in str(found)
    assert describe_misfit(read, 0 * sizes) is None


def test_fractions_are_boxes_of_larger_images(boxes: np.ndarray) -> None:
    sizes = np.tile(SIZE, (40, 1))
    fractions = boxes / np.tile(SIZE, 2)
    assert are_fractions(fractions, sizes)
    assert are_fractions(xywh_to_xyxy(fractions), 0 * sizes)
    assert not are_fractions(boxes, sizes)
    assert not are_fractions(boxes[:0], sizes[:0])
    assert not are_fractions(np.array([[0, 0, 1, 1]]), np.array([[1, 1]]))


def test_boxes_that_touch_their_image_from_outside_are_outside() -> None:
    boxes = np.array([[-9, 0, 0, 9], [0, 480, 9, 490], [640, 0, 650, 9], [-9, -9, 1, 1], [639, 479, 700, 700]])
    assert are_outside(boxes, SIZE).tolist() == [True, True, True, False, False]
    assert are_outside(boxes, np.tile(2 * SIZE, (5, 1))).tolist() == [True, False, False, False, False]

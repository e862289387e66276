"""The picture of attention."""

import cv2
import numpy as np
import pytest

from tools.lab.attention.attention_probe import AttentionStatistics
from tools.lab.attention.picture import attention_picture


def layers(count: int, flat: bool) -> list[AttentionStatistics]:
    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        mean = (0.25,) * 4 if flat else tuple(random.dirichlet(np.ones(4)).tolist())
        low, middle, high = (1.0, 1.0, 1.0) if flat else sorted(random.random(3).tolist())
        group = "head" if index > count / 2 else str(2 ** (1 + 4 * index // count))
        name = f"backbone.blocks.{index}.project.0"
        found.append(AttentionStatistics(name, group, middle, low, high, 0.0 if flat else 0.1, max(mean), mean))
    return found


def decoded(png: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(png, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("count", [1, 40])
def test_any_network_gives_a_picture(count: int, flat: bool) -> None:
    """Flat attention has no range to draw, a single layer no line."""
    picture = decoded(attention_picture(layers(count, flat), "title"))
    assert np.ptp(picture) > 200


@pytest.mark.slow
def test_it_is_wider_for_more_layers_and_shows_the_numbers() -> None:
    few, many = (decoded(attention_picture(layers(count, False), "title")) for count in (30, 60))
    assert many.shape[1] > few.shape[1] + 300
    other = decoded(attention_picture(layers(30, True), "title"))
    assert (other[: len(few)] != few[: len(other)]).any()

"""The attention plot."""

import cv2
import numpy as np
import pytest

from tools.lab.attention.attention_probe import AttentionStatistics
from tools.lab.attention.plot import plot_attention


def layers(count: int, flat: bool) -> list[AttentionStatistics]:
    rng = np.random.default_rng(0)
    statistics = []
    for index in range(count):
        mean = (0.25,) * 4 if flat else tuple(rng.dirichlet(np.ones(4)).tolist())
        low, middle, high = (1.0, 1.0, 1.0) if flat else sorted(rng.random(3).tolist())
        group = "head" if index > count / 2 else str(2 ** (1 + 4 * index // count))
        name = f"backbone.blocks.{index}.project.0"
        statistics.append(AttentionStatistics(name, group, middle, low, high, 0.0 if flat else 0.1, max(mean), mean))
    return statistics


def decode(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("count", [1, 12])
def test_plot_of_edge_cases_is_not_empty(count: int, flat: bool) -> None:
    """Uniform attention has an empty value range, and a single layer has no line."""
    image = decode(plot_attention(layers(count, flat), "title"))
    assert np.ptp(image) > 200


@pytest.mark.slow
def test_plot_is_wider_for_more_layers_and_depends_on_the_statistics() -> None:
    few, many = (decode(plot_attention(layers(count, False), "title")) for count in (30, 60))
    assert many.shape[1] > few.shape[1] + 300
    other = decode(plot_attention(layers(30, True), "title"))
    assert (other[: len(few)] != few[: len(other)]).any()

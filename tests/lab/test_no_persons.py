import numpy as np
import pytest

from tools.lab.no_persons import MARGIN, draw_backgrounds, find_region, find_regions


@pytest.mark.parametrize("seed", range(20))
def test_regions_are_beside_all_persons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(300, 700, 2).tolist())
    first = rng.uniform(0, 0.7, (2, 2)) * size
    boxes = np.concatenate([first, first + rng.uniform(10, 100, (2, 2))], axis=1)
    region = find_region(size, boxes)
    if region is None:  # then no side of the persons has a strip of 160 pixels
        left, top = boxes[:, :2].min(axis=0)
        right, bottom = boxes[:, 2:].max(axis=0)
        assert max(left, top, size[0] - right, size[1] - bottom) < 160 + MARGIN + 1
        return
    x1, y1, x2, y2 = region
    assert 0 <= x1 < x2 <= size[0]
    assert 0 <= y1 < y2 <= size[1]
    assert min(x2 - x1, y2 - y1) >= 160
    gaps = np.stack([boxes[:, 0] - x2, x1 - boxes[:, 2], boxes[:, 1] - y2, y1 - boxes[:, 3]])
    assert (gaps.max(axis=0) >= MARGIN).all()


def test_images_without_labels_are_left_out() -> None:
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480} for number in (1, 2, 39785)]
    annotations = [{"image_id": number, "bbox": [0, 0, 50, 400]} for number in (1, 39785)]
    assert find_regions({"images": images, "annotations": annotations}) == {"1.jpg": (82, 0, 640, 480)}


def test_backgrounds_are_deterministic_and_differ() -> None:
    first, second = draw_backgrounds(2)
    assert first.shape == (480, 640, 3)
    assert (first != second).any()
    np.testing.assert_array_equal(first, draw_backgrounds(1)[0])

"""A small drawn set and results that are its truth, moved a little."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from tools.lab.baselines import truth_results
from tools.lab.synthetic import draw_dataset


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, 1, 8, 0)
    return GroundTruth.from_coco(folder / "annotations/person_keypoints_val2017.json")


@pytest.fixture
def noised(truth: GroundTruth) -> Callable[[float], list[dict[str, Any]]]:
    """`noised(size)`: the truth with noise of so many pixels, and random scores."""

    def make(size: float) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        results = truth_results(truth.source)
        for result in results:
            triplets = np.reshape(result["keypoints"], (17, 3)) + rng.normal(0, size, (17, 3)) * [1, 1, 0]
            result |= {"keypoints": triplets.reshape(-1).tolist(), "score": float(rng.random())}
        return results

    return make

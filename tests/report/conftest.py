"""A small synthetic dataset and noisy predictions of its ground truth."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation.bootstrap import bootstrap_intervals
from tools.lab.baselines import ground_truth_results
from tools.lab.synthetic import generate_dataset


@pytest.fixture(scope="session")
def gt(tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    folder = tmp_path_factory.mktemp("synthetic")
    generate_dataset(folder, 1, 8, 0)
    return GroundTruth.from_coco(folder / "annotations/person_keypoints_val2017.json")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduces the bootstrap, which dominates the time of a small report and is tested elsewhere."""
    monkeypatch.setattr(
        "posedy.evaluation.report.contents.bootstrap_intervals", partial(bootstrap_intervals, resamples=40)
    )


@pytest.fixture
def make_noisy_results(gt: GroundTruth) -> Callable[[float], list[dict[str, Any]]]:
    """A function of the noise in pixels that returns noisy ground truth with random scores."""

    def make_results(noise: float) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        results = ground_truth_results(gt.source)
        for result in results:
            triplets = np.reshape(result["keypoints"], (17, 3)) + rng.normal(0, noise, (17, 3)) * [1, 1, 0]
            result |= {"keypoints": triplets.reshape(-1).tolist(), "score": float(rng.random())}
        return results

    return make_results

"""Difficulty of the synthetic dataset."""

from pathlib import Path

import pytest

from tools.lab.difficulty import measure_difficulty
from tools.lab.synthetic import generate_dataset


@pytest.mark.slow
def test_generated_dataset_has_the_promised_difficulty(tmp_path: Path) -> None:
    statistics = generate_dataset(tmp_path / "set", 1, 64, seed=0, processes=1)
    report = measure_difficulty(statistics["val"], tmp_path / "set/annotations/person_keypoints_val2017.json")
    assert report["images"] == 64
    assert report["back views"] >= 0.30
    assert report["with a neighbor (IoU > 0.1)"] >= 0.30
    assert report["occluded keypoints"] >= 0.10
    assert report["AP of the median pose"] < 0.05
    assert report["AP of left and right exchanged"] < 0.05

"""How hard the drawn set is."""

from pathlib import Path

import pytest

from posedy.data.synthetic import ANIMALS, draw_dataset
from posedy.evaluation.difficulty import animal_difficulty, difficulty


def test_the_drawn_set_is_as_hard_as_it_claims(tmp_path: Path) -> None:
    drawn = draw_dataset(tmp_path / "set", 1, 64, seed=0, processes=1)
    numbers = difficulty(drawn["val"], tmp_path / "set/annotations/person_keypoints_val2017.json")
    assert numbers["photos"] == 64
    assert numbers["back views"] >= 0.30
    assert numbers["with a neighbour (IoU > 0.1)"] >= 0.30
    assert numbers["occluded keypoints"] >= 0.10
    assert numbers["AP of the median pose"] < 0.05
    assert numbers["AP of left and right exchanged"] < 0.05


def test_the_median_pose_says_little_of_drawn_animals(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    drawn = draw_dataset(tmp_path / "set", 1, 48, seed=0, processes=1, subject=ANIMALS)
    numbers = animal_difficulty(drawn["val"], tmp_path / "set/annotations/animal_keypoints_val.json")
    assert numbers["photos"] == 48
    assert numbers["animals"] > 60
    assert numbers["labelled keypoints"] > 10 * numbers["animals"]
    assert 0.1 < numbers["occluded keypoints"] < 0.4
    assert numbers["AP of the median pose"] < 0.1
    # Its sigmas are given, so nobody is told to add them to the file.
    assert not [warning for warning in recwarn if "sigmas" in str(warning.message)]

"""How hard the drawn set is."""

from pathlib import Path

import pytest

from tools.lab.difficulty import difficulty
from tools.lab.synthetic import draw_dataset


@pytest.mark.slow
def test_the_drawn_set_is_as_hard_as_it_claims(tmp_path: Path) -> None:
    drawn = draw_dataset(tmp_path / "set", 1, 64, seed=0, processes=1)
    numbers = difficulty(drawn["val"], tmp_path / "set/annotations/person_keypoints_val2017.json")
    assert numbers["photos"] == 64
    assert numbers["back views"] >= 0.30
    assert numbers["with a neighbor (IoU > 0.1)"] >= 0.30
    assert numbers["occluded keypoints"] >= 0.10
    assert numbers["AP of the median pose"] < 0.05
    assert numbers["AP of left and right exchanged"] < 0.05

"""Keypoints of one's own: a subset of people's trains, tests and is kept with the network."""

import json
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from posedy.cli.main import main as posedy
from posedy.data.coco import read_coco
from posedy.models.pretrained import load_checkpoint
from tools.lab.keypoint_subset import keypoint_subset, main

KEYPOINTS = ["nose", "left_wrist", "right_wrist", "left_ankle", "right_ankle"]


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """accelerate keeps one precision for the life of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_network_learns_five_keypoints_from_a_configuration_alone(drawn: Path, tmp_path: Path) -> None:
    files = [str(drawn / f"annotations/person_keypoints_{split}2017.json") for split in ("train", "val")]
    main([*files, "--keypoints", *KEYPOINTS, "--out", str(tmp_path)])
    persons = read_coco(tmp_path / "person_keypoints_train2017.json", drawn / "train2017")
    assert persons.skeleton.keypoints == tuple(KEYPOINTS)
    assert set(persons.skeleton.flip_pairs) == {(1, 2), (3, 4)}
    assert any("sigmas" in str(warning) for warning in persons.warnings)
    whole = read_coco(files[0])
    assert len(persons) + persons.left_out["no labeled keypoints"] >= len(whole)
    config = Path(__file__).parents[2] / "configs/drawn/five_keypoints.yaml"
    train = ["train", str(config), "train.epochs=1", "model.input_size=[32,64]", "train.workers=0"]
    for split in ("train", "val"):
        train.append(f"data.{split}_annotations={tmp_path}/person_keypoints_{split}2017.json")
        train.append(f"data.{split}_images={drawn}/{split}2017")
    assert posedy([*train, "--out", str(tmp_path / "run")]) == 0
    net = load_checkpoint(tmp_path / "run/best.pt")
    assert net.skeleton is not None
    assert net.skeleton.keypoints == tuple(KEYPOINTS)
    assert net.skeleton.sigmas == (0.07,) * 5


def test_a_keypoint_that_the_file_does_not_have_is_named(drawn: Path) -> None:
    content = json.loads((drawn / "annotations/person_keypoints_val2017.json").read_bytes())
    with pytest.raises(ValueError, match="'tail'"):
        keypoint_subset(content, ["nose", "tail"])

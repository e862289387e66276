"""Custom keypoints: a subset of COCO's is trained, tested and stored with the network."""

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
    """Reset accelerate, which allows only one precision per process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
def test_network_trains_on_five_keypoints_with_a_configuration_only(synthetic: Path, tmp_path: Path) -> None:
    files = [str(synthetic / f"annotations/person_keypoints_{split}2017.json") for split in ("train", "val")]
    main([*files, "--keypoints", *KEYPOINTS, "--out", str(tmp_path)])
    persons = read_coco(tmp_path / "person_keypoints_train2017.json", synthetic / "train2017")
    assert persons.skeleton.keypoints == tuple(KEYPOINTS)
    assert set(persons.skeleton.flip_pairs) == {(1, 2), (3, 4)}
    assert any("sigmas" in str(warning) for warning in persons.warnings)
    full = read_coco(files[0])
    assert len(persons) + persons.left_out["no labeled keypoints"] >= len(full)
    config = Path(__file__).parents[2] / "configs/real/five_keypoints.yaml"
    train = ["train", str(config), "train.epochs=1", "model.name=mobilenetv2_035-fpn", "model.input_size=[32,64]"]
    train += ["model.weights=null", "train.workers=0"]
    for split in ("train", "val"):
        train.append(f"data.{split}_annotations={tmp_path}/person_keypoints_{split}2017.json")
        train.append(f"data.{split}_images={synthetic}/{split}2017")
    assert posedy([*train, "--out", str(tmp_path / "run")]) == 0
    net = load_checkpoint(tmp_path / "run/best.pt")
    assert net.skeleton is not None
    assert net.skeleton.keypoints == tuple(KEYPOINTS)
    assert net.skeleton.sigmas == (0.026, 0.062, 0.062, 0.089, 0.089)


def test_unknown_keypoint_is_reported(synthetic: Path) -> None:
    content = json.loads((synthetic / "annotations/person_keypoints_val2017.json").read_bytes())
    with pytest.raises(ValueError, match="'tail'"):
        keypoint_subset(content, ["nose", "tail"])

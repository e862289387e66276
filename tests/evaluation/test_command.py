"""The test of a checkpoint, from files to files."""

import dataclasses
import json
from pathlib import Path

import cv2
import pytest

from posedy.config import Config, load_config
from posedy.data.coco_results import read_results
from posedy.evaluation.coco_eval import METRIC_NAMES, evaluate_keypoints
from posedy.evaluation.testing import measure_checkpoint
from posedy.models.pretrained import save_weights
from posedy.models.registry import create_model
from posedy.skeleton import COCO17


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_weights(create_model("dy_mobilenetv2_035-bneck", input_size=(32, 64)), path)
    return path


def configuration(drawn: Path, *overrides: str) -> Config:
    name = "model.name=dy_mobilenetv2_035-bneck"
    return load_config(None, [f"data.root={drawn}", name, "model.input_size=[32,64]", "train.workers=0", *overrides])


@pytest.mark.parametrize("boxes", [None, "person_detections_val2017.json"])
def test_it_writes_what_it_measured(drawn: Path, checkpoint: Path, tmp_path: Path, boxes: str | None) -> None:
    config = configuration(drawn, *([f"data.boxes={drawn}/annotations/{boxes}"] if boxes else []))
    numbers = measure_checkpoint(config, checkpoint, tmp_path / "out", "cpu")
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert written.keys() == numbers.keys() == {*METRIC_NAMES, "protocol", "model", "checkpoint", "data"}
    assert written["protocol"]["boxes"] == (boxes or "gt")
    assert written["protocol"]["num_images"] == 12
    assert (written["protocol"]["flip"], written["protocol"]["nms"]) == (True, 0.9)
    again = evaluate_keypoints(config.data.val_set.annotations, read_results(tmp_path / "out/results.json"))
    assert again["AP"] == written["AP"]
    assert cv2.imread(str(tmp_path / "out/persons.jpg")) is not None


def test_what_does_not_fit_is_refused(drawn: Path, checkpoint: Path, tmp_path: Path) -> None:
    config = configuration(drawn, "model.name=mobilenetv2_035-bneck")
    with pytest.raises(
        ValueError, match="holds dy_mobilenetv2_035-bneck, the configuration names mobilenetv2_035-bneck"
    ):
        measure_checkpoint(config, checkpoint, tmp_path, "cpu")
    few = tmp_path / "few.safetensors"
    skeleton = dataclasses.replace(
        COCO17, keypoints=COCO17.keypoints[:3], flip_pairs=((1, 2),), limbs=(), sigmas=(0.1,) * 3, upper_body=None
    )
    save_weights(create_model("dy_mobilenetv2_035-bneck", 3, skeleton=skeleton), few)
    with pytest.raises(ValueError, match="predicts 3 keypoints"):
        measure_checkpoint(configuration(drawn), few, tmp_path, "cpu")
    with pytest.raises(OSError, match="no checkpoint at"):
        measure_checkpoint(configuration(drawn), tmp_path / "none.pt", tmp_path, "cpu")
    with pytest.raises(ValueError, match="device"):
        measure_checkpoint(configuration(drawn), checkpoint, tmp_path, "cuda:99")


def test_a_val_set_without_keypoints_is_refused(drawn: Path, checkpoint: Path, tmp_path: Path) -> None:
    record = json.loads((drawn / "annotations/person_keypoints_val2017.json").read_text())
    for annotation in record["annotations"]:
        annotation |= {"keypoints": [0] * 51, "num_keypoints": 0}
    path = tmp_path / "empty.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"0 of \d+ annotations kept"):
        measure_checkpoint(configuration(drawn, f"data.val_annotations={path}"), checkpoint, tmp_path, "cpu")

"""Evaluation of a checkpoint, from input files to result files."""

import dataclasses
import json
import sys
from pathlib import Path

import cv2
import pytest

from posedy.config import Config, load_config
from posedy.data.coco_results import read_results
from posedy.evaluation.coco_eval import METRIC_NAMES, evaluate_keypoints
from posedy.evaluation.testing import evaluate_checkpoint
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.skeleton import COCO17


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_weights(create_model("dy_mobilenetv2_035-fpn", input_size=(32, 64)), path)
    return path


def make_config(synthetic: Path, *overrides: str) -> Config:
    name = "model.name=dy_mobilenetv2_035-fpn"
    return load_config(
        None, [f"data.root={synthetic}", name, "model.input_size=[32,64]", "train.workers=0", *overrides]
    )


@pytest.mark.parametrize("boxes", [pytest.param(None, marks=pytest.mark.slow), "person_detections_val2017.json"])
def test_metrics_and_results_are_written(synthetic: Path, checkpoint: Path, tmp_path: Path, boxes: str | None) -> None:
    config = make_config(synthetic, *([f"data.boxes={synthetic}/annotations/{boxes}"] if boxes else []))
    metrics = evaluate_checkpoint(config, checkpoint, tmp_path / "out", "cpu")
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert written.keys() == metrics.keys() == {*METRIC_NAMES, "protocol", "model", "checkpoint", "data"}
    assert written["protocol"]["boxes"] == (boxes or "gt")
    assert written["protocol"]["num_images"] == 12
    assert (written["protocol"]["flip"], written["protocol"]["nms"]) == (True, 0.9)
    again = evaluate_keypoints(config.data.val_set.annotations, read_results(tmp_path / "out/results.json"))
    assert again["AP"] == written["AP"]
    assert cv2.imread(str(tmp_path / "out/persons.jpg")) is not None


def test_a_failing_run_keeps_the_files_of_the_last_one(
    synthetic: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_checkpoint(make_config(synthetic), checkpoint, tmp_path, "cpu")
    files = sorted(tmp_path.glob("*.json"))
    before = [path.read_bytes() for path in files]

    def fail(*_: object, **__: object) -> None:
        raise OSError("image lost")

    monkeypatch.setattr("posedy.evaluation.testing.draw_gallery", fail)
    config = make_config(synthetic, "eval.flip=false")
    with pytest.raises(OSError, match="image lost"):
        evaluate_checkpoint(config, checkpoint, tmp_path, "cpu")
    assert [path.read_bytes() for path in files] == before


def test_what_cannot_be_evaluated_is_an_error_before_the_prediction(
    synthetic: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("posedy.evaluation.testing.run_evaluation", None)
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(ValueError, match="'hotcoco' is not installed"):
        evaluate_checkpoint(make_config(synthetic, "eval.backend=hotcoco"), checkpoint, tmp_path, "cpu")
    content = json.loads((synthetic / "annotations/person_keypoints_val2017.json").read_text())
    for annotation in content["annotations"]:
        annotation["num_keypoints"] = 0
    (tmp_path / "none.json").write_text(json.dumps(content))
    config = make_config(synthetic, f"data.val_annotations={tmp_path / 'none.json'}")
    with pytest.raises(ValueError, match="AP is undefined"):
        evaluate_checkpoint(config, checkpoint, tmp_path, "cpu")
    assert "wrong num_keypoints" in capsys.readouterr().out  # warnings of the annotation file


def test_mismatched_checkpoints_are_rejected(synthetic: Path, checkpoint: Path, tmp_path: Path) -> None:
    config = make_config(synthetic, "model.name=mobilenetv2_035-fpn")
    with pytest.raises(ValueError, match=r"mobilenetv2_035-fpn .*got dy_mobilenetv2_035-fpn"):
        evaluate_checkpoint(config, checkpoint, tmp_path, "cpu", explicit=["name"])
    few = tmp_path / "few.safetensors"
    skeleton = dataclasses.replace(
        COCO17, keypoints=COCO17.keypoints[:3], flip_pairs=((1, 2),), limbs=(), sigmas=(0.1,) * 3, upper_body=None
    )
    save_weights(create_model("dy_mobilenetv2_035-fpn", num_keypoints=3, skeleton=skeleton), few)
    with pytest.raises(ValueError, match=r"17 keypoints.*got 3"):
        evaluate_checkpoint(make_config(synthetic), few, tmp_path, "cpu")
    with pytest.raises(OSError, match=r"no checkpoint at .*balanced"):
        evaluate_checkpoint(make_config(synthetic), tmp_path / "none.pt", tmp_path, "cpu")
    with pytest.raises(ValueError, match="device"):
        evaluate_checkpoint(make_config(synthetic), checkpoint, tmp_path, "cuda:99")


def test_validation_set_without_keypoints_is_rejected(synthetic: Path, checkpoint: Path, tmp_path: Path) -> None:
    record = json.loads((synthetic / "annotations/person_keypoints_val2017.json").read_text())
    for annotation in record["annotations"]:
        annotation |= {"keypoints": [0] * 51, "num_keypoints": 0}
    path = tmp_path / "empty.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"0 of \d+ annotations kept"):
        evaluate_checkpoint(make_config(synthetic, f"data.val_annotations={path}"), checkpoint, tmp_path, "cpu")

"""The accuracy of the default pretrained network on the 24 validation images of data/coco_mini."""

from pathlib import Path

import pytest

from posedy.config import EvalConfig
from posedy.data.coco import CocoPersons, read_coco
from posedy.data.detections import read_detections
from posedy.evaluation.evaluator import evaluate_model
from posedy.models.pretrained import DEFAULT
from posedy.prediction import Model, load_model
from tools.lab.golden import EXPECTED_AP, TOLERANCE

MINI = Path(__file__).parents[2] / "data/coco_mini"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(DEFAULT, "cpu")


@pytest.fixture(scope="module")
def mini() -> CocoPersons:
    return read_coco(MINI / "annotations/person_keypoints_val2017.json", MINI / "val2017")


@pytest.mark.parametrize("source", ["gt", pytest.param("detections", marks=pytest.mark.slow)])
def test_accuracy_is_as_measured(model: Model, mini: CocoPersons, source: str) -> None:
    boxes = None
    if source == "detections":
        boxes = read_detections(MINI / "annotations/person_detections_val2017.json", mini, 0.3)
    metrics = evaluate_model(model, mini, boxes, EvalConfig(flip=False)).metrics
    assert metrics["AP"] == pytest.approx(EXPECTED_AP[source], abs=TOLERANCE), metrics


@pytest.mark.slow
def test_openvino_is_as_accurate(model: Model, mini: CocoPersons) -> None:
    expected = evaluate_model(model, mini, None, EvalConfig(flip=False)).metrics
    metrics = evaluate_model(load_model(DEFAULT, "cpu", "openvino"), mini, None, EvalConfig(flip=False)).metrics
    assert metrics["AP"] == pytest.approx(expected["AP"], abs=1e-3)

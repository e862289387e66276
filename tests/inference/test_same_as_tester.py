"""The estimator and the tester are two ways to the same keypoints."""

from pathlib import Path

import numpy as np
import pytest
import torch

from posedy.config import EvalConfig
from posedy.data.coco import read_coco
from posedy.data.datasets import TopDownEvalDataset
from posedy.evaluation.evaluator import predict_crops
from posedy.inference.estimator import PoseEstimator
from posedy.models.factory import create_model
from posedy.prediction import load_model
from tools.lab.synthetic import generate_dataset


@pytest.mark.parametrize(
    ("codec_name", "sigma"), [pytest.param("msra", None, marks=pytest.mark.slow), ("unbiased", 2.5)]
)
def test_estimator_and_tester_agree(tmp_path: Path, codec_name: str, sigma: float | None) -> None:
    root = tmp_path / "set"
    generate_dataset(root, 1, 3, seed=4, processes=1)
    persons = read_coco(root / "annotations/person_keypoints_val2017.json", root / "val2017")
    torch.manual_seed(0)
    net = create_model("dy_mobilenetv2_035-bneck", codec=codec_name, sigma=sigma, input_size=(64, 96)).eval()
    torch.nn.init.normal_(net.head.heatmap.weight, std=1.0)
    crops = TopDownEvalDataset(persons, persons.image_index, persons.boxes, net.input_size, 1.25)
    _, tested, tested_scores = predict_crops(load_model(net, "cpu"), crops, EvalConfig(batch_size=1))
    estimator = PoseEstimator(net, device="cpu", batch_size=1)
    for index in np.unique(persons.image_index):
        of_image = persons.image_index == index
        poses = estimator(persons.image_path(int(index)), boxes=persons.boxes[of_image])
        np.testing.assert_array_equal(poses.keypoints, tested[of_image].astype(np.float32))
        np.testing.assert_array_equal(poses.scores, tested_scores[of_image])

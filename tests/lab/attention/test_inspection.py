"""What is measured of attention, from a network to tables and files."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posedy.config import Config, EvalConfig, load_config
from posedy.data.coco import CocoPersons
from posedy.evaluation.coco_eval import METRIC_NAMES
from posedy.evaluation.evaluator import EvalResult, evaluate_model
from posedy.evaluation.testing import measure_checkpoint
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import save_weights
from posedy.models.registry import create_model
from posedy.prediction import TorchModel
from tools.lab.attention.attention_probe import AGGREGATIONS, AttentionLayer
from tools.lab.attention.inspection import config_beside, inspect_checkpoint, inspect_layers, inspected_layers

NAME = "dy_mobilenetv2_035-bneck"
SIZE = (32, 64)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "net.safetensors"
    torch.manual_seed(0)
    save_weights(create_model(NAME, num_kernels=2, input_size=SIZE), path)
    return path


def configuration(drawn: Path, *overrides: str) -> Config:
    sizes = ["model.input_size=[32,64]", "model.num_kernels=2", "train.workers=0", "eval.batch_size=5"]
    return load_config(None, [f"data.root={drawn}", f"model.name={NAME}", *sizes, *overrides])


class Evaluation:
    """Counts how often it is called and notes what the hooks on the network make of its layers' attention."""

    def __init__(self, net: PoseNet, layers: Sequence[AttentionLayer], outcome: EvalResult) -> None:
        self.net, self.layers, self.outcome = net, layers, outcome
        self.flat: list[set[str]] = []

    def __call__(self) -> EvalResult:
        seen: dict[str, bool] = {}
        handles = [
            layer.attention.register_forward_hook(
                lambda _, inputs, pi, group=layer.group: seen.__setitem__(
                    group, seen.get(group, True) and bool((pi == pi[:, :1]).all())
                )
            )
            for layer in self.layers
        ]
        with torch.no_grad():
            self.net(torch.randn(3, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(0)))
        for handle in handles:
            handle.remove()
        self.flat.append({group for group, flat in seen.items() if flat})
        count = len(self.flat)
        metrics = dict.fromkeys(METRIC_NAMES, count / 100)
        return EvalResult(metrics, self.outcome.protocol, [], self.outcome.poses)


@pytest.fixture(scope="module")
def outcome(persons: CocoPersons) -> EvalResult:
    torch.manual_seed(0)
    net = create_model(NAME, input_size=SIZE).eval()
    return evaluate_model(TorchModel(net), persons, None, EvalConfig())


@pytest.mark.parametrize("name", ["dy_mobilenetv2_035-dy_bneck", NAME, "mobilenetv2_035-dy_bneck"])
def test_every_row_is_measured_once_and_with_what_it_says(
    name: str, outcome: EvalResult, capsys: pytest.CaptureFixture[str]
) -> None:
    net = create_model(name, input_size=SIZE).eval()
    layers = inspected_layers(net)
    evaluation = Evaluation(net, layers, outcome)
    found = inspect_layers(layers, evaluation)
    groups = found.groups
    total = 5 + 2 * len(groups) - 2
    assert len(evaluation.flat) == total
    assert [metrics["AP"] for metrics in found.aggregations.values()] == [0.01, 0.02, 0.03, 0.04, 0.05]
    assert tuple(found.aggregations) == AGGREGATIONS
    assert evaluation.flat[:5] == [set(), set(groups), set(), set(), set()]
    # Table 4: rows in the paper's order, each with the number of the evaluation that had these groups flat
    staircase = [on for on, _ in found.rows]
    depth = len(groups)
    assert staircase[:depth] == [(False,) * (depth - n) + (True,) * n for n in range(1, depth + 1)]
    assert staircase[depth:] == [(True,) * n + (False,) * (depth - n) for n in reversed(range(depth))]
    for on, metrics in found.rows:
        off = {group for group, is_on in zip(groups, on, strict=True) if not is_on}
        assert evaluation.flat[round(100 * metrics["AP"]) - 1] == off
    assert found.rows[-1][1] is found.aggregations["average"]
    assert {round(100 * metrics["AP"]) for _, metrics in found.rows} == {1, 2, *range(6, total + 1)}
    printed = capsys.readouterr().out
    assert printed.count(str(outcome.protocol)) == 2
    for number in range(1, total + 1):
        assert f"evaluation {number} of {total}: " in printed


@pytest.mark.slow
def test_it_writes_what_it_measured(
    drawn: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = drawn / "annotations/person_detections_val2017.json"
    config = configuration(drawn, f"data.boxes={boxes}")
    record = inspect_checkpoint(config, checkpoint, tmp_path / "out", "cpu")
    written = json.loads((tmp_path / "out/inspection.json").read_text())
    assert written == json.loads(json.dumps(record))
    assert (written["model"], written["checkpoint"]) == (NAME, "net.safetensors")
    assert written["protocol"]["boxes"] == boxes.name
    assert list(written["aggregations"]) == list(AGGREGATIONS)
    tested = measure_checkpoint(config, checkpoint, tmp_path / "test", "cpu")
    assert written["aggregations"]["attention"] == {name: tested[name] for name in METRIC_NAMES}
    assert written["groups"]["names"] == ["2", "4", "8", "16", "32"]
    assert [row["on"] for row in written["groups"]["rows"]][-1] == [False] * 5
    assert len(written["layers"]) == len(inspected_layers(create_model(NAME, input_size=SIZE).eval()))
    assert all(sum(layer["mean_attention"]) == pytest.approx(1) for layer in written["layers"])
    # a fresh network's attention is flat
    assert "nearly uniform" in written["verdict"]
    assert written["verdict"] in capsys.readouterr().out
    picture = cv2.imread(str(tmp_path / "out/attention.png"))
    assert picture is not None
    assert np.ptp(picture) > 200


@pytest.mark.parametrize(
    ("name", "num_kernels", "words"),
    [("mobilenetv2_035-bneck", 4, "no dynamic convolution"), (NAME, 1, "one kernel per layer")],
)
def test_nothing_to_inspect_is_refused_before_data_is_read(
    tmp_path: Path, name: str, num_kernels: int, words: str
) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(create_model(name, num_kernels=num_kernels, input_size=SIZE), path)
    config = configuration(tmp_path / "no data here", f"model.name={name}", f"model.num_kernels={num_kernels}")
    with pytest.raises(ValueError, match=words):
        inspect_checkpoint(config, path, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_batches_of_one_are_refused_before_data_is_read(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"eval\.batch_size must be at least 2"):
        inspect_checkpoint(
            configuration(tmp_path / "no data", "eval.batch_size=1"), checkpoint, tmp_path / "out", "cpu"
        )


def test_a_single_box_is_refused(drawn: Path, checkpoint: Path, tmp_path: Path) -> None:
    boxes = drawn / "annotations/person_detections_val2017.json"
    one = tmp_path / "one.json"
    one.write_text(json.dumps(json.loads(boxes.read_text())[:1]))
    with pytest.raises(ValueError, match="two boxes or more"):
        inspect_checkpoint(configuration(drawn, f"data.boxes={one}"), checkpoint, tmp_path / "out", "cpu")


def test_the_configuration_is_looked_for_beside_the_checkpoint(checkpoint: Path) -> None:
    with pytest.raises(OSError, match=r"no config\.yaml beside .*--config FILE"):
        config_beside(checkpoint)
    written = checkpoint.parent / "config.yaml"
    written.write_text("model: {}\n")
    assert config_beside(checkpoint) == written
    with pytest.raises(OSError, match="no checkpoint at"):
        config_beside(checkpoint.with_name("none.pt"))

"""Inspection of attention, from a network to tables and files."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posedy.config import ClassifierConfig, Config, EvalConfig, load_config
from posedy.data.coco import CocoPersons
from posedy.evaluation.coco_eval import METRIC_NAMES
from posedy.evaluation.evaluator import EvalResult, evaluate_model
from posedy.evaluation.testing import evaluate_checkpoint
from posedy.models.factory import create_classifier, create_model
from posedy.models.network_file import network_state, save_weights, write_checkpoint
from posedy.models.pose_net import PoseNet
from posedy.prediction import TorchModel
from posedy.training.task import Evaluation
from tools.lab.attention.__main__ import main
from tools.lab.attention.attention_probe import AGGREGATIONS, AttentionLayer
from tools.lab.attention.inspection import dynamic_layers, find_config, inspect_attention, inspect_checkpoint

NAME = "dy_mobilenetv2_035-fpn"
SIZE = (32, 64)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "net.safetensors"
    torch.manual_seed(0)
    save_weights(create_model(NAME, num_kernels=2, input_size=SIZE), path)
    return path


def load_test_config(synthetic: Path, *overrides: str) -> Config:
    sizes = ["model.input_size=[32,64]", "model.num_kernels=2", "train.workers=0", "eval.batch_size=5"]
    return load_config(None, [f"data.root={synthetic}", f"model.name={NAME}", *sizes, *overrides])


class FakeEvaluation:
    """Counts its calls, and records the groups whose attention is uniform in each."""

    def __init__(self, net: PoseNet, layers: Sequence[AttentionLayer], result: EvalResult) -> None:
        self.net, self.layers, self.result = net, layers, result
        self.uniform_groups: list[set[str]] = []

    def __call__(self) -> Evaluation:
        uniform: dict[str, bool] = {}
        handles = [
            layer.attention.register_forward_hook(
                lambda _, inputs, pi, group=layer.group: uniform.__setitem__(
                    group, uniform.get(group, True) and bool((pi == pi[:, :1]).all())
                )
            )
            for layer in self.layers
        ]
        with torch.no_grad():
            self.net(torch.randn(3, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(0)))
        for handle in handles:
            handle.remove()
        self.uniform_groups.append({group for group, is_uniform in uniform.items() if is_uniform})
        count = len(self.uniform_groups)
        metrics = dict.fromkeys(METRIC_NAMES, count / 100)
        return Evaluation(metrics, str(self.result.protocol))


@pytest.fixture(scope="module")
def result(persons: CocoPersons) -> EvalResult:
    torch.manual_seed(0)
    net = create_model(NAME, input_size=SIZE).eval()
    return evaluate_model(TorchModel(net), persons, None, EvalConfig())


@pytest.mark.parametrize(
    "name",
    [
        "dy_mobilenetv2_035-dy_fpn",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (NAME, "mobilenetv2_035-dy_bneck")),
    ],
)
def test_every_row_is_evaluated_once_with_its_groups(
    name: str, result: EvalResult, capsys: pytest.CaptureFixture[str]
) -> None:
    net = create_model(name, input_size=SIZE, depth=0.34).eval()
    layers = dynamic_layers(net)
    evaluation = FakeEvaluation(net, layers, result)
    inspection = inspect_attention(layers, evaluation)
    groups = inspection.groups
    total = 5 + 2 * len(groups) - 2
    assert len(evaluation.uniform_groups) == total
    assert [metrics["AP"] for metrics in inspection.aggregations.values()] == [0.01, 0.02, 0.03, 0.04, 0.05]
    assert tuple(inspection.aggregations) == AGGREGATIONS
    assert evaluation.uniform_groups[:5] == [set(), set(groups), set(), set(), set()]
    # Table 4: rows in the paper's order, each with the metrics of the evaluation with these groups averaged
    row_choices = [on for on, _ in inspection.rows]
    depth = len(groups)
    assert row_choices[:depth] == [(False,) * (depth - n) + (True,) * n for n in range(1, depth + 1)]
    assert row_choices[depth:] == [(True,) * n + (False,) * (depth - n) for n in reversed(range(depth))]
    for on, metrics in inspection.rows:
        off = {group for group, is_on in zip(groups, on, strict=True) if not is_on}
        assert evaluation.uniform_groups[round(100 * metrics["AP"]) - 1] == off
    assert inspection.rows[-1][1] is inspection.aggregations["average"]
    assert {round(100 * metrics["AP"]) for _, metrics in inspection.rows} == {1, 2, *range(6, total + 1)}
    printed = capsys.readouterr().out
    assert printed.count(str(result.protocol)) == 2
    for number in range(1, total + 1):
        assert f"evaluation {number} of {total}: " in printed


@pytest.mark.slow
def test_result_is_written(
    synthetic: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = synthetic / "annotations/person_detections_val2017.json"
    config = load_test_config(synthetic, f"data.boxes={boxes}")
    record = inspect_checkpoint(config, checkpoint, tmp_path / "out", "cpu")
    written = json.loads((tmp_path / "out/inspection.json").read_text())
    assert written == json.loads(json.dumps(record))
    assert (written["model"], written["checkpoint"]) == (NAME, "net.safetensors")
    assert written["protocol"].startswith(f"boxes={boxes.name} (")
    assert list(written["aggregations"]) == list(AGGREGATIONS)
    tested = evaluate_checkpoint(config, checkpoint, tmp_path / "test", "cpu")
    assert written["aggregations"]["attention"] == {name: tested[name] for name in METRIC_NAMES}
    assert written["groups"]["names"] == ["2", "4", "8", "16", "32"]
    assert [row["on"] for row in written["groups"]["rows"]][-1] == [False] * 5
    assert len(written["layers"]) == len(dynamic_layers(create_model(NAME, input_size=SIZE).eval()))
    assert all(sum(layer["mean_attention"]) == pytest.approx(1) for layer in written["layers"])
    # an untrained network has nearly uniform attention
    assert "nearly uniform" in written["verdict"]
    assert written["verdict"] in capsys.readouterr().out
    plot = cv2.imread(str(tmp_path / "out/attention.png"))
    assert plot is not None
    assert np.ptp(plot) > 200


@pytest.mark.parametrize(
    ("name", "num_kernels", "message"),
    [("mobilenetv2_035-bneck", 4, "no dynamic convolution"), (NAME, 1, "one kernel per layer")],
)
def test_networks_without_attention_are_rejected_before_data_is_read(
    tmp_path: Path, name: str, num_kernels: int, message: str
) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(create_model(name, num_kernels=num_kernels, input_size=SIZE), path)
    config = load_test_config(tmp_path / "no data here", f"model.name={name}", f"model.num_kernels={num_kernels}")
    with pytest.raises(ValueError, match=message):
        inspect_checkpoint(config, path, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_batch_size_1_is_rejected_before_data_is_read(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"eval\.batch_size"):
        inspect_checkpoint(
            load_test_config(tmp_path / "no data", "eval.batch_size=1"), checkpoint, tmp_path / "out", "cpu"
        )


def test_single_box_is_rejected(synthetic: Path, checkpoint: Path, tmp_path: Path) -> None:
    boxes = synthetic / "annotations/person_detections_val2017.json"
    one = tmp_path / "one.json"
    one.write_text(json.dumps(json.loads(boxes.read_text())[:1]))
    with pytest.raises(ValueError, match="at least 2 boxes"):
        inspect_checkpoint(load_test_config(synthetic, f"data.boxes={one}"), checkpoint, tmp_path / "out", "cpu")


def test_configuration_is_found_in_the_folder_of_the_checkpoint(checkpoint: Path) -> None:
    with pytest.raises(OSError, match=r"config\.yaml.*--config FILE"):
        find_config(checkpoint)
    written = checkpoint.parent / "config.yaml"
    written.write_text("model: {}\n")
    assert find_config(checkpoint) == written
    with pytest.raises(OSError, match=r"none\.pt"):
        find_config(checkpoint.with_name("none.pt"))


@pytest.mark.slow
def test_classifiers_are_inspected_with_top_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for index in range(3):
            cv2.imwrite(str(tmp_path / "val" / name / f"{index}.png"), rng.integers(0, 256, (32, 32, 3), np.uint8))
    torch.manual_seed(0)
    net = create_classifier("dy_mobilenetv2_035", ["a", "b"], num_kernels=2, input_size=(64, 64), depth=0.34)
    path = tmp_path / "run" / "best.pt"
    path.parent.mkdir()
    write_checkpoint({"network": network_state(net)}, path)
    config = ClassifierConfig.model_validate(
        {"data": {"root": tmp_path}, "model": {"name": net.name, "input_size": 64, "num_kernels": 2}}
    )
    (tmp_path / "run" / "config.yaml").write_text(config.to_yaml())
    main([str(path), "--device", "cpu"])
    written = json.loads((tmp_path / "run/inspect/inspection.json").read_text())
    assert set(written["aggregations"]["attention"]) == {"top1", "top5"}
    assert written["groups"]["names"] == ["2", "4", "8", "16", "32"]
    assert "top1 of this network: " in capsys.readouterr().out

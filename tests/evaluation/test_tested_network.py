"""Evaluation of networks and exported graphs, whose files replace the configuration's network."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from posedy.config import Config, load_config, override_keys
from posedy.evaluation.tested_network import load_tested_network, with_network
from posedy.evaluation.testing import evaluate_checkpoint
from posedy.export.graph_file import METADATA_KEY, read_graph
from posedy.export.onnx import export_onnx
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.models.pretrained import load_checkpoint
from posedy.skeleton import COCO17

NAME = "resnet10-fpn"
SETTINGS = [f"model.name={NAME}", "model.input_size=[32,64]", "train.workers=0"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network as weights, as a graph, and as a graph marked as decoding."""
    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    net = create_model(NAME, input_size=(32, 64), skeleton=COCO17).eval()
    paths = {kind: folder / kind for kind in ("net.safetensors", "net.onnx", "decoding.onnx")}
    save_weights(net, paths["net.safetensors"])
    export_onnx(net, paths["net.onnx"])
    model, info = read_graph(paths["net.onnx"])
    onnx.helper.set_model_props(model, {METADATA_KEY: dataclasses.replace(info, decodes=True).to_json()})
    onnx.save(model, paths["decoding.onnx"])
    return paths


@pytest.mark.slow
def test_graph_outputs_equal_those_of_the_network(files: dict[str, Path]) -> None:
    net = load_tested_network(files["net.safetensors"], "cpu")
    graph = load_tested_network(files["net.onnx"], "auto")
    assert graph.device.type == "cpu"
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), dtype=np.uint8)
    heatmaps = net(crops)["heatmaps"]
    np.testing.assert_allclose(graph(crops)["heatmaps"], heatmaps, rtol=0, atol=1e-4 * float(heatmaps.abs().max()))


def test_num_kernels_of_static_graphs_is_ignored(files: dict[str, Path], tmp_path: Path) -> None:
    model, info = read_graph(files["net.onnx"])
    info.record["options"]["num_kernels"] = 2
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    onnx.save(model, tmp_path / "old.onnx")
    graph = load_tested_network(tmp_path / "old.onnx", "cpu")
    assert with_network(load_config(None, SETTINGS), graph, tmp_path / "old.onnx", ["num_kernels"])[1] == ""


def test_graph_and_network_have_equal_metrics(files: dict[str, Path], synthetic: Path, tmp_path: Path) -> None:
    config: Config = load_config(None, [*SETTINGS, f"data.root={synthetic}"])
    net_metrics = evaluate_checkpoint(config, files["net.safetensors"], tmp_path / "net", "cpu")
    graph_metrics = evaluate_checkpoint(config, files["net.onnx"], tmp_path / "graph", "cpu")
    assert graph_metrics["AR"] == pytest.approx(net_metrics["AR"], abs=0.005)
    assert graph_metrics["model"] == NAME


def test_boxes_below_the_threshold_of_the_configuration_are_left_out(
    files: dict[str, Path], synthetic: Path, tmp_path: Path
) -> None:
    boxes = synthetic / "annotations/person_detections_val2017.json"
    scores = np.array([record["score"] for record in json.loads(boxes.read_text())])
    settings = [f"data.root={synthetic}", f"data.boxes={boxes}", "eval.box_threshold=0.5", "eval.flip=false"]
    config = load_config(None, [*SETTINGS, *settings])
    protocol = evaluate_checkpoint(config, files["net.safetensors"], tmp_path, "cpu")["protocol"]
    assert (protocol["num_boxes"], protocol["box_threshold"]) == ((scores >= 0.5).sum(), 0.5)
    assert 0 < protocol["num_boxes"] < len(scores)


def test_graphs_that_decode_or_have_another_size_are_rejected(files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="--decode"):
        load_tested_network(files["decoding.onnx"], "cpu")
    graph = load_tested_network(files["net.onnx"], "cpu")
    config = load_config(None, [*SETTINGS, "model.input_size=[64,64]"])
    assert with_network(config, graph, files["net.onnx"])[0].model.input_size == (32, 64)
    with pytest.raises(ValueError, match=r"\(64, 64\) \(model\.input_size\).*\(32, 64\)"):
        with_network(config, graph, files["net.onnx"], ["input_size"])


def test_the_file_has_the_network_and_explicit_settings_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(create_model("dy_mobilenetv2_035-fpn", num_kernels=2, depth=0.5, input_size=(64, 96)), path)
    net = load_checkpoint(path)
    settings = ["model.name=dy_mobilenetv2_035-fpn", "model.num_kernels=2", "model.options.depth=0.5"]
    settings += ["model.input_size=[64,96]", "data.padding=1.5"]
    config = load_config(None, settings)
    assert with_network(config, net, path, ["name", "num_kernels", "options.depth"]) == (config, "")
    for override, explicit, message in (
        (f"model.name={NAME}", "name", f"{NAME} .*got dy_mobilenetv2_035-fpn"),
        ("model.num_kernels=4", "num_kernels", "num_kernels=4 .*got 2"),
        ("model.options.depth=1", "options.depth", "depth=1 .*got 0.5"),
        ("model.options.attention=sigmoid", "options.attention", "attention=sigmoid .*got default"),
        ("model.codec=unbiased", "codec", "codec=unbiased .*got msra"),
        ("model.sigma=3", "sigma", r"sigma=3\.0 .*got 0\.75"),
    ):
        others = [] if explicit == "name" else settings
        other = load_config(None, [*others, override])
        with pytest.raises(ValueError, match=message):
            with_network(other, net, path, [explicit])
        used, unused = with_network(other, net, path)
        assert used.model == config.model
        assert explicit.removeprefix("options.") in unused
    larger = load_config(None, [*settings, "model.input_size=[128,192]"])
    assert with_network(larger, net, path, ["input_size"])[0].model.input_size == (128, 192)
    assert with_network(larger, net, path)[0].model.input_size == (64, 96)
    same = load_config(None, [*settings, "model.sigma=0.75"])  # the default of this input size
    assert with_network(same, net, path, ["sigma"])[1] == ""


def test_any_configuration_of_the_data_tests_a_network(
    files: dict[str, Path], synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = ([*SETTINGS[2:], f"data.root={synthetic}", "eval.flip=false"] for _ in range(2))
    own += SETTINGS[:2]
    metrics = [
        evaluate_checkpoint(load_config(None, settings), files["net.safetensors"], tmp_path, "cpu")
        for settings in (own, other)
    ]
    assert metrics[0] == metrics[1]
    assert f"name {NAME} (configuration: dy_mobilenetv2_050-dy_bneck)" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"model\.name"):
        evaluate_checkpoint(load_config(None, other), files["net.safetensors"], tmp_path, "cpu", explicit=["name"])


def test_mappings_set_the_keys_in_them() -> None:
    overrides = ["model.options={depth: 0.5}", "model={name: a}", "data.root=x", "model.codec=msra"]
    assert override_keys(overrides[:1]) == ["model.options.depth"]
    assert override_keys(overrides[1:]) == ["model.name", "model.codec", "data.root"]

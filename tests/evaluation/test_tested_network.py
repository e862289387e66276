"""Evaluation of networks and exported graphs, which must match the configuration."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from posedy.config import Config, load_config
from posedy.evaluation.evaluator import load_configured_network, load_eval_model
from posedy.evaluation.testing import evaluate_checkpoint
from posedy.export.graph_file import METADATA_KEY, read_graph
from posedy.export.onnx import export_onnx
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
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
    config = load_config(None, SETTINGS)
    net = load_eval_model(config, files["net.safetensors"], "cpu")
    graph = load_eval_model(config, files["net.onnx"], "auto")
    assert graph.device.type == "cpu"
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), dtype=np.uint8)
    heatmaps = net(crops)["heatmaps"]
    np.testing.assert_allclose(graph(crops)["heatmaps"], heatmaps, rtol=0, atol=1e-4 * float(heatmaps.abs().max()))


def test_num_kernels_of_static_graphs_is_ignored(files: dict[str, Path], tmp_path: Path) -> None:
    model, info = read_graph(files["net.onnx"])
    info.record["options"]["num_kernels"] = 2
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    onnx.save(model, tmp_path / "old.onnx")
    assert load_eval_model(load_config(None, SETTINGS), tmp_path / "old.onnx", "cpu").name == NAME


def test_graph_and_network_have_equal_metrics(files: dict[str, Path], synthetic: Path, tmp_path: Path) -> None:
    config: Config = load_config(None, [*SETTINGS, f"data.root={synthetic}"])
    net_metrics = evaluate_checkpoint(config, files["net.safetensors"], tmp_path / "net", "cpu")
    graph_metrics = evaluate_checkpoint(config, files["net.onnx"], tmp_path / "graph", "cpu")
    assert graph_metrics["AR"] == pytest.approx(net_metrics["AR"], abs=0.005)
    assert graph_metrics["model"] == NAME


def test_mismatched_graphs_are_rejected(files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="--decode"):
        load_eval_model(load_config(None, SETTINGS), files["decoding.onnx"], "cpu")
    with pytest.raises(ValueError, match=r"model\.input_size=\[32, 64\]"):
        load_eval_model(load_config(None, [*SETTINGS, "model.input_size=[64,64]"]), files["net.onnx"], "cpu")
    with pytest.raises(ValueError, match=f"expected dy_{NAME} .*got {NAME}"):
        load_eval_model(load_config(None, [*SETTINGS, f"model.name=dy_{NAME}"]), files["net.onnx"], "cpu")


def test_network_with_other_options_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(create_model("dy_mobilenetv2_035-fpn", num_kernels=2, depth=0.5), path)
    settings = ["model.name=dy_mobilenetv2_035-fpn", "model.num_kernels=2", "model.options.depth=0.5"]
    assert load_configured_network(load_config(None, settings), path).options["depth"] == 0.5
    for override, message in (
        ("model.num_kernels=4", "num_kernels=4 .*got 2"),
        ("model.options.depth=1", "depth=1.* got 0.5"),
        ("model.options.attention=sigmoid", "attention=sigmoid .*got default"),
        ("model.sigma=3", r"sigma=3\.0 .*got 2\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            load_configured_network(load_config(None, [*settings, override]), path)
    assert load_configured_network(load_config(None, [*settings, "model.sigma=2"]), path).sigma is None

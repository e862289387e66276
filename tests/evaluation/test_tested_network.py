"""Networks and exported graphs are tested by the same configuration, which they must fit."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from posedy.config import Config, load_config
from posedy.evaluation.evaluator import load_configured_network, load_tested_model
from posedy.evaluation.testing import measure_checkpoint
from posedy.export.graph_file import METADATA_KEY, read_graph
from posedy.export.onnx import export_onnx
from posedy.models.pretrained import save_weights
from posedy.models.registry import create_model
from posedy.skeleton import COCO17

NAME = "resnet10-fpn"
SETTINGS = [f"model.name={NAME}", "model.input_size=[32,64]", "train.workers=0"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network as weights, as a graph and as a graph that says that it decodes."""
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
def test_a_graph_computes_what_its_network_computes(files: dict[str, Path]) -> None:
    config = load_config(None, SETTINGS)
    net = load_tested_model(config, files["net.safetensors"], "cpu")
    graph = load_tested_model(config, files["net.onnx"], "auto")
    assert graph.device.type == "cpu"
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), dtype=np.uint8)
    heatmaps = net(crops)["heatmaps"]
    np.testing.assert_allclose(graph(crops)["heatmaps"], heatmaps, rtol=0, atol=1e-4 * float(heatmaps.abs().max()))


def test_graphs_of_static_networks_may_record_any_number_of_kernels(files: dict[str, Path], tmp_path: Path) -> None:
    model, info = read_graph(files["net.onnx"])
    info.record["options"]["num_kernels"] = 2
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    onnx.save(model, tmp_path / "old.onnx")
    assert load_tested_model(load_config(None, SETTINGS), tmp_path / "old.onnx", "cpu").name == NAME


def test_a_graph_is_measured_as_its_network(files: dict[str, Path], drawn: Path, tmp_path: Path) -> None:
    config: Config = load_config(None, [*SETTINGS, f"data.root={drawn}"])
    of_net = measure_checkpoint(config, files["net.safetensors"], tmp_path / "net", "cpu")
    of_graph = measure_checkpoint(config, files["net.onnx"], tmp_path / "graph", "cpu")
    assert of_graph["AR"] == pytest.approx(of_net["AR"], abs=0.005)
    assert of_graph["model"] == NAME


def test_graphs_that_do_not_fit_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"export it without --decode"):
        load_tested_model(load_config(None, SETTINGS), files["decoding.onnx"], "cpu")
    with pytest.raises(ValueError, match=r"test it with model\.input_size=\[32, 64\]"):
        load_tested_model(load_config(None, [*SETTINGS, "model.input_size=[64,64]"]), files["net.onnx"], "cpu")
    with pytest.raises(ValueError, match=f"holds {NAME}, the configuration names dy_{NAME}"):
        load_tested_model(load_config(None, [*SETTINGS, f"model.name=dy_{NAME}"]), files["net.onnx"], "cpu")


def test_a_network_of_other_options_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(create_model("dy_mobilenetv2_035-bneck", num_kernels=2, depth=0.5), path)
    settings = ["model.name=dy_mobilenetv2_035-bneck", "model.num_kernels=2", "model.options.depth=0.5"]
    assert load_configured_network(load_config(None, settings), path).options["depth"] == 0.5
    for wrong, words in (
        ("model.num_kernels=4", "num_kernels=2, the configuration says 4"),
        ("model.options.depth=1", "depth=0.5, the configuration says 1"),
        ("model.options.attention=sigmoid", "attention=default, the configuration says sigmoid"),
        ("model.sigma=3", r"sigma=2\.0, the configuration says 3\.0"),
    ):
        with pytest.raises(ValueError, match=words):
            load_configured_network(load_config(None, [*settings, wrong]), path)
    assert load_configured_network(load_config(None, [*settings, "model.sigma=2"]), path).sigma is None

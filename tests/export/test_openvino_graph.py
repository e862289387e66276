"""Networks in OpenVINO: the default runtime on CPUs, and the cache of converted graphs."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import posedy
from posedy.export import openvino_graph
from posedy.export.runtimes import import_openvino
from posedy.models.network_file import network_record, save_weights
from posedy.models.pose_net import PoseNet
from posedy.prediction import GraphModel, TorchModel, load_model
from posedy.skeleton import COCO17

SIZE = (64, 64)
NAME = "mobilenetv2_035-dy_fpn"


@pytest.fixture(autouse=True)
def graph_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("POSEDY_RUNTIME")
    return tmp_path / "cache/posedy/openvino"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, perturb) -> Path:
    torch.manual_seed(0)
    net = perturb(posedy.create_model(NAME, input_size=SIZE), torch.randn(4, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_weights(net, path)
    return path


def crops(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8)


def forbid_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(openvino_graph, "prepare_for_export", fail)


def test_files_run_in_openvino_and_are_converted_once(
    weights: Path, graph_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(weights, "cpu")
    assert isinstance(model, GraphModel)
    assert model.runtime == "openvino"
    expected = TorchModel(posedy.load_checkpoint(weights))(crops(), COCO17.flip_permutation)["heatmaps"]
    heatmaps = model(crops(), COCO17.flip_permutation)["heatmaps"]
    torch.testing.assert_close(heatmaps, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    (entry,) = graph_cache.iterdir()

    forbid_conversion(monkeypatch)
    again = load_model(weights, "cpu")
    assert torch.equal(again(crops())["heatmaps"], model(crops())["heatmaps"])

    # a changed graph is not used
    content = bytearray((entry / "graph.bin").read_bytes())
    content[1000] ^= 1
    (entry / "graph.bin").write_bytes(content)
    with pytest.raises(ValueError, match="converted again"):
        load_model(weights, "cpu", runtime="openvino")


def test_the_environment_and_the_kind_of_model_select_the_runtime(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_conversion(monkeypatch)
    assert load_model(posedy.load_checkpoint(weights), "cpu").runtime == "torch"
    monkeypatch.setenv("POSEDY_RUNTIME", "torch")
    assert load_model(weights, "cpu").runtime == "torch"
    monkeypatch.setenv("POSEDY_RUNTIME", "onnx")
    with pytest.raises(ValueError, match=r"POSEDY_RUNTIME.*onnx"):
        load_model(weights, "cpu")


def test_a_network_that_openvino_does_not_support_runs_in_pytorch(
    weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> nn.Module:
        raise RuntimeError("no rule for this operation")

    monkeypatch.setattr(openvino_graph, "prepare_for_export", unsupported)
    with caplog.at_level(logging.WARNING, "posedy"):
        assert load_model(weights, "cpu").runtime == "torch"
    assert "no rule for this operation" in caplog.text
    with pytest.raises(ValueError, match="no rule for this operation"):
        load_model(weights, "cpu", runtime="openvino")


def test_a_graph_with_other_outputs_is_rejected(weights: Path, graph_cache: Path) -> None:
    net = posedy.load_checkpoint(weights)
    inputs = [torch.randn(1, 3, 64, 64)]
    with pytest.raises(ValueError, match="differs"):
        openvino_graph.convert("name", lambda: nn.Conv2d(3, 17, 4, 4), lambda x: net(x), inputs, "other")
    assert not graph_cache.exists()


class _TimesHeight(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.shape[2]


class _Flatten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2)


@pytest.mark.parametrize(("module", "reason"), [(_TimesHeight(), "differs"), (_Flatten(), "cannot run")])
def test_a_size_that_a_trace_has_as_a_constant_is_rejected(module: nn.Module, reason: str, graph_cache: Path) -> None:
    inputs = [torch.randn(1, 3, 8, 8), torch.randn(1, 3, 16, 8)]
    with pytest.raises(ValueError, match=reason):
        openvino_graph.convert("name", lambda: module, module, inputs, "key", has_free_size=True)
    assert not graph_cache.exists()


class _Layer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_the_key_depends_on_all_that_the_graph_depends_on(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = posedy.load_checkpoint(weights)

    def key(changed: PoseNet) -> str:
        return openvino_graph.network_key(changed.state_dict(), network_record(changed))

    keys = [key(net)]
    assert key(posedy.load_checkpoint(weights)) == keys[0]
    with torch.no_grad():
        next(net.parameters()).flatten()[0] += 1e-3
    keys.append(key(net))
    net.input_size = (96, 64)
    keys.append(key(net))
    net.options["output"] = "sigmoid"
    keys.append(key(net))
    monkeypatch.setattr(openvino_graph, "_versions", lambda: ("torch 0",))
    keys.append(key(net))
    assert len(set(keys)) == len(keys)
    # code outside of the known packages may change without a change of the record
    assert openvino_graph.has_known_classes(net)
    assert not openvino_graph.has_known_classes(nn.Sequential(_Layer()))


def test_an_unusable_cache_folder_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    module = nn.Conv2d(3, 2, 1).eval()
    openvino_graph.convert("name", lambda: module, module, [torch.randn(1, 3, 8, 8)], "key")
    assert (tmp_path / "file").read_text() == "not a folder"
    (record,) = [record for record in caplog.records if record.name == "posedy"]
    assert record.levelno == logging.WARNING
    assert record.args is not None
    assert record.args[0] == "name"


def test_the_cache_keeps_the_graphs_used_last(graph_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_graph, "_MAX_CACHED_GRAPHS", 2)
    module = nn.Conv2d(3, 2, 1).eval()
    for key in ("a", "b", "a", "c"):
        time.sleep(0.02)  # the clock of file systems is coarse
        openvino_graph.convert("name", lambda: module, module, [torch.randn(1, 3, 8, 8)], key)
    assert {entry.name for entry in graph_cache.iterdir()} == {"a", "c"}


@pytest.mark.slow
def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "from posedy.export.runtimes import import_openvino; import_openvino(); import sys, openvino.tools.ovc as ovc\n"
        "print(ovc.telemetry.__class__.__module__, sys.modules['openvino_telemetry'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "None"]
    assert import_openvino().__name__ == "openvino"

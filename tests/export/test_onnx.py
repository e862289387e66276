"""Exported graphs equal PyTorch, have metadata, and are not written on errors."""

import dataclasses
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import posedy
from posedy.cli.main import main
from posedy.codecs import UnbiasedCodec
from posedy.export import onnx as export
from posedy.export import runtimes
from posedy.export.graph_file import GraphInfo, read_graph
from posedy.export.onnx import export_onnx
from posedy.export.onnx_layers import Batch
from posedy.export.runtimes import make_runner
from posedy.export.tracing import random_inputs, smooth_inputs
from posedy.models.dynamic_conv import temperatures
from posedy.models.factory import create_model
from posedy.models.network_file import network_record, save_weights
from posedy.models.pose_net import PoseNet, name_outputs
from posedy.models.registry import list_models
from posedy.prediction import TorchModel, load_model
from posedy.skeleton import COCO17

from .conftest import NAME, images


@torch.no_grad()
def difference(net: PoseNet, path: Path, count: int, runtime: str = "onnxruntime") -> float:
    """Returns the largest difference from PyTorch relative to the largest output."""
    _, info = read_graph(path)
    x = images(count)
    outputs = make_runner(path.read_bytes(), info.batch, runtime, threads=1)(x.numpy())
    expected = name_outputs(net(x), net.codec)
    for output, tensor in zip(outputs, expected.values(), strict=True):
        assert output.shape == tuple(tensor.shape)
    if count == 0:
        return 0.0
    return max(
        ((torch.from_numpy(output) - tensor).abs().max() / tensor.abs().max()).item()
        for output, tensor in zip(outputs, expected.values(), strict=True)
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_free_batch_equals_pytorch(net: PoseNet, free: Path, count: int, runtime: str) -> None:
    assert difference(net, free, count, runtime) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_half_is_close_to_pytorch_and_half_the_size(net: PoseNet, free: Path, single: Path, runtime: str) -> None:
    assert 1e-6 < difference(net, single, 3, runtime) < 2e-2
    assert single.stat().st_size < 0.6 * free.stat().st_size


# batch size 1 changes dynamic layers only
EXPORTS = [(name, "free", "onnxruntime") for name in list_models()]
EXPORTS += [(name, 1, runtime) for name in list_models() if "dy_" in name for runtime in runtimes.RUNTIMES]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch", "runtime"), EXPORTS)
def test_every_network_equals_pytorch(
    create_net: Callable[..., PoseNet], tmp_path: Path, name: str, batch: Batch, runtime: str
) -> None:
    net, path = create_net(name), tmp_path / "x.onnx"
    export_onnx(net, path, batch=batch, runtime=runtime)
    for count in (1, 2, 5):
        assert difference(net, path, count, runtime) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 1},
        {"attention": "sigmoid"},
        {"output": "softmax"},
        {"output": "sigmoid"},
        {"padding": "tensorflow"},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", ["free", 1])
def test_network_options_equal_pytorch(tmp_path: Path, options: dict, batch: str | int) -> None:
    torch.manual_seed(0)
    name = "dy_mobilenetv2_035-fpn" if "padding" in options else NAME  # ResNets have no such option
    net = create_model(name, input_size=(64, 64), **options).eval()
    export_onnx(net, tmp_path / "x.onnx", batch=batch)
    assert difference(net, tmp_path / "x.onnx", 2) < 1e-4


@pytest.mark.slow
def test_decoding_in_the_graph_equals_decoding_in_pytorch(net: PoseNet, decoding: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    keypoints, scores = make_runner(decoding.read_bytes(), "free", "onnxruntime", threads=1)(crops)
    reference = TorchModel(net)
    expected, expected_scores = reference.decode(reference(crops, net.skeleton.flip_permutation))
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-4 * np.abs(expected_scores).max())
    # rounding may resolve near ties differently
    assert (np.abs(keypoints - expected).max(axis=-1) < 1e-3).mean() > 0.95
    model, info = read_graph(decoding)
    assert info.decodes
    assert info.flip
    assert [value.name for value in [*model.graph.input, *model.graph.output]] == ["crops", "keypoints", "scores"]


@pytest.mark.slow
@pytest.mark.parametrize("with_decoding", [False, True])
def test_graph_decodes_with_the_sigma_of_the_network(tmp_path: Path, with_decoding: bool) -> None:
    torch.manual_seed(0)
    net = create_model("resnet10-fpn", codec="unbiased", sigma=3, input_size=(64, 64)).eval()
    torch.nn.init.normal_(net.head.heatmap.weight, std=1.0)
    export_onnx(net, tmp_path / "x.onnx", with_decoding=with_decoding)
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    flip_permutation = net.skeleton.flip_permutation
    outputs = TorchModel(net)(crops, flip_permutation)
    expected, _ = UnbiasedCodec((64, 64), 3).decode(outputs)
    graph = load_model(tmp_path / "x.onnx", "cpu")
    keypoints, _ = graph.decode(graph(crops, flip_permutation))
    assert (np.abs(keypoints - expected.numpy()).max(axis=-1) < 1e-2).mean() > 0.9


def test_metadata_describes_the_network(net: PoseNet, free: Path) -> None:
    model, info = read_graph(free)
    assert info.record == json.loads(json.dumps(network_record(net)))
    assert (info.skeleton, info.input_size, info.codec) == (net.skeleton, net.input_size, net.codec)
    assert (info.batch, info.decodes, info.flip, info.weights, info.temperature) == (
        "free",
        False,
        False,
        "float32",
        min(temperatures(net)),
    )
    assert [value.name for value in [*model.graph.input, *model.graph.output]] == ["images", "heatmaps"]


@pytest.mark.slow
def test_metadata_of_a_half_precision_graph(single: Path) -> None:
    _, info = read_graph(single)
    assert (info.batch, info.weights, info.runtime) == (1, "float16", "openvino")


@pytest.fixture
def two_layers() -> PoseNet:
    """A network that is traced faster than `net`."""
    torch.manual_seed(0)
    backbone, head = nn.Conv2d(3, 16, 4, stride=4), nn.Conv2d(16, 17, 1)
    options = {"num_keypoints": 17, "output": "linear"}
    return PoseNet(backbone, head, name="two-layers", skeleton=COCO17, input_size=(64, 64), options=options).eval()


def test_graph_that_differs_from_pytorch_is_not_written(
    two_layers: PoseNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = export._make_export_module

    def make_broken_module(*arguments: object) -> torch.nn.Module:
        module = original(*arguments)
        module.net.head.bias[0] += 0.01 * module.net.head.weight.abs().sum()
        return module

    monkeypatch.setattr(export, "_make_export_module", make_broken_module)
    path = tmp_path / "x.onnx"
    path.write_text("the old file")
    with pytest.raises(ValueError, match="differs from PyTorch"):
        export_onnx(two_layers, path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
    assert path.read_text() == "the old file"


def test_export_does_not_change_the_network(net: PoseNet, free: Path) -> None:
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"path": "x.pb"}, r"NAME\.onnx"),
        ({"runtime": "tensorrt"}, "onnxruntime"),
        ({"batch": 4}, "free"),
    ],
)
def test_invalid_arguments_are_rejected(net: PoseNet, tmp_path: Path, arguments: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        export_onnx(net, tmp_path / arguments.pop("path", "x.onnx"), **arguments)
    assert not list(tmp_path.iterdir())


def test_missing_package_is_reported_with_its_installation(
    net: PoseNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'posedy\[export\]'"):
        export_onnx(net, tmp_path / "x.onnx")


def test_damaged_and_foreign_files_are_rejected(free: Path, tmp_path: Path) -> None:
    content = free.read_bytes()
    for name, damaged in (("cut", content[: len(content) // 2]), ("empty", b""), ("text", b"not a graph")):
        (tmp_path / f"{name}.onnx").write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name}.onnx"):
            read_graph(tmp_path / f"{name}.onnx")
    with pytest.raises(FileNotFoundError):
        read_graph(tmp_path / "absent.onnx")
    model = onnx.load(free)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="was not exported by posedy"):
        read_graph(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(model, {"posedy": '{"record": {}}'})
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(ValueError, match="metadata"):
        read_graph(tmp_path / "strange.onnx")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, None),
        ({"quality": {"AP": 0.5}}, None),
        ({"batch": ...}, "batch"),
        ({"record": {}}, "options"),
        ({"weights": "float4"}, "float4"),
        ({"version": ..., "batch": ...}, "unknown version"),
        ({"runtime": "abacus"}, "abacus"),
    ],
)
def test_metadata_of_a_later_version(
    two_layers: PoseNet, tmp_path: Path, changes: dict[str, object], named: str | None
) -> None:
    info = dataclasses.replace(GraphInfo.from_network(two_layers, batch=1, runtime="openvino"), version="99.0")
    fields = {key: value for key, value in (json.loads(info.to_json()) | changes).items() if value is not ...}
    path, model = tmp_path / "x.onnx", onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(model, {"posedy": json.dumps(fields)})
    onnx.save(model, path)
    if named is None:
        assert dataclasses.asdict(read_graph(path)[1]) == dataclasses.asdict(GraphInfo.from_json(info.to_json()))
    else:
        with pytest.raises(ValueError, match=rf"x\.onnx.*{named}") as caught:
            read_graph(path)
        assert ("99.0" in str(caught.value)) == ("version" in fields)
        assert posedy.__version__ in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
def test_sigterm_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, path = tmp_path / "net.safetensors", tmp_path / "x.onnx"
    save_weights(create_model("resnet10-fpn", input_size=(64, 64)), weights)
    path.write_text("the old file")

    def stop(*_: object) -> None:
        assert len(list(tmp_path.iterdir())) == 3  # with the temporary file
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(export, "_trace_graph", stop)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(weights), "--out", str(path)])
    assert ended.value.code == 128 + signal.SIGTERM
    assert {file.name for file in tmp_path.iterdir()} == {"net.safetensors", "x.onnx"}
    assert path.read_text() == "the old file"
    assert signal.getsignal(signal.SIGTERM) == before


def fill_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["_trace_graph", "_save"])
def test_a_full_disk_is_named(
    two_layers: PoseNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setattr(export, function, fill_disk)
    path = tmp_path / "x.onnx"
    with pytest.raises(OSError, match=r"/x\.onnx cannot be written \(No space left.*free disk space"):
        export_onnx(two_layers, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "match"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (0.0, "all 0")]
)
@pytest.mark.parametrize("with_decoding", [False, True])
def test_broken_networks_are_rejected(tmp_path: Path, value: float, match: str, with_decoding: bool) -> None:
    net = create_model("resnet10-fpn", input_size=(64, 64)).eval()
    with torch.no_grad():
        for parameter in net.head.heatmap.parameters():
            parameter.fill_(value)
    with pytest.raises(ValueError, match=f"outputs of resnet10-fpn are {match}"):
        export_onnx(net, tmp_path / "x.onnx", with_decoding=with_decoding)
    assert not list(tmp_path.iterdir())


def test_keypoints_that_are_not_numbers_are_moved(net: PoseNet) -> None:
    info = GraphInfo.from_network(net, batch=1, runtime="onnxruntime", decodes=True)
    keypoints, scores = torch.full((1, 17, 2), 5.0), torch.ones(1, 17)

    def expect(crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return keypoints.expand(len(crops), -1, -1), scores.expand(len(crops), -1)

    def compute(value: float) -> Callable[[np.ndarray], list[np.ndarray]]:
        return lambda crops: [np.full((len(crops), 17, 2), value, np.float32), np.ones((len(crops), 17), np.float32)]

    report = export._verify(compute(5.04), expect, net, info)
    assert report.moved_fraction == 0
    assert report.largest_distance == pytest.approx(0.04, abs=1e-5)
    for value in (5.06, np.nan):
        with pytest.raises(ValueError, match="100% of the graph's keypoints differ"):
            export._verify(compute(value), expect, net, info)


def test_keypoints_that_move_by_rounding_are_reported(two_layers: PoseNet, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    report = export_onnx(two_layers, path, with_decoding=True, flip=False, half=True)
    runner, reference = make_runner(path.read_bytes(), 1, "onnxruntime", threads=1), TorchModel(two_layers)
    distances = []
    for size in (1, 2):
        for make_inputs in (random_inputs, smooth_inputs):
            crops = make_inputs(two_layers, True, size).numpy()
            distances.append(np.abs(runner(crops)[0] - reference.decode(reference(crops))[0]).max(axis=-1).ravel())
    assert report.moved_fraction == pytest.approx((np.concatenate(distances) > 0.05).mean())
    assert report.largest_distance == pytest.approx(np.concatenate(distances).max(), rel=1e-3)


@pytest.mark.parametrize("decodes", [True, False])
def test_the_command_names_moved_keypoints(
    two_layers: PoseNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, decodes: bool
) -> None:
    info = GraphInfo.from_network(two_layers, batch=1, runtime="openvino", decodes=decodes, weights="int8")

    def write(net: PoseNet, path: Path, **_: object) -> export.ExportReport:
        path.write_bytes(b"")
        return export.ExportReport(info, 1e-5, 0.25, 1.5, rounding=0.125)

    monkeypatch.setattr(export, "export_onnx", write)
    out, numbers = tmp_path / "x.onnx", tmp_path / "x.json"
    options = ["--decode"] if decodes else []
    assert main(["export", "light", "--out", str(out), "--int8", *options, "--json", str(numbers)]) == 0
    record = json.loads(numbers.read_text())
    assert (record["rounding"], record.get("moved_fraction"), record.get("largest_distance")) == (
        0.125,
        0.25 if decodes else None,
        1.5 if decodes else None,
    )
    assert ("25.0%" in capsys.readouterr().out) is decodes

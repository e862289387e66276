"""Networks with the head `simcc` in ONNX Runtime and OpenVINO, without and with decoding and the flip test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import posedy
from posedy.codecs import SimCCCodec
from posedy.export.graph_file import read_graph
from posedy.export.onnx import export_onnx
from posedy.models.heads import SimCCHead
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet
from posedy.prediction import GraphModel, TorchModel, load_model
from posedy.skeleton import COCO17

from .conftest import SIZE, small_backbone

BOXES = np.array([[10, 5, 60, 90], [40, 20, 99, 99]], dtype=np.float32)
RUNTIMES = ["onnxruntime", "openvino"]


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE[1], SIZE[0], 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def net(sharpen: Callable[[PoseNet], PoseNet]) -> PoseNet:
    """A network with the small backbone; its name is that of a complete network."""
    torch.manual_seed(0)
    options = {"num_keypoints": 17, "num_kernels": 4, "output": "linear", "codec": "simcc", "sigma": 2.0}
    head = SimCCHead(32, 17, SIZE)
    name = "mobilenetv2_035-simcc"
    return sharpen(PoseNet(small_backbone(), head, name=name, skeleton=COCO17, input_size=SIZE, options=options))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", ["free", 1])
def test_logits_of_graphs_equal_pytorch(net: PoseNet, tmp_path: Path, batch: str | int, runtime: str) -> None:
    path = tmp_path / "x.onnx"
    export_onnx(net, path, batch=batch, runtime=runtime)
    model, info = read_graph(path)
    assert [value.name for value in model.graph.output] == ["x_logits", "y_logits"]
    assert (info.codec, info.skeleton) == (SimCCCodec(SIZE, 2.0), COCO17)
    graph, reference = load_model(path, "cpu"), TorchModel(net)
    assert graph.runtime == runtime
    for permutation in (None, COCO17.flip_permutation):
        outputs, expected = (model(crops(3), permutation) for model in (graph, reference))
        for name, tensor in expected.items():
            torch.testing.assert_close(outputs[name], tensor, rtol=0, atol=1e-4 * float(tensor.abs().max()))
        keypoints, scores = graph.decode(outputs)
        wanted, wanted_scores = reference.decode(expected)
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-3)
        assert (np.abs(keypoints - wanted).max(axis=-1) < 0.01).mean() > 0.9
    with pytest.raises(ValueError, match=r"\(96, 64\)"):
        graph.with_input_size((96, 64))


def test_a_network_has_the_input_size_of_its_bins() -> None:
    model = TorchModel(posedy.create_model("mobilenetv2_035-simcc", input_size=SIZE, depth=0.34).eval())
    with pytest.raises(ValueError, match=r"mobilenetv2_035-simcc.*\(96, 64\)"):
        model.with_input_size((96, 64))
    assert model.with_input_size(SIZE).input_size == SIZE


@pytest.mark.slow
@pytest.mark.parametrize("flip", [False, True])
def test_graphs_that_decode_equal_pytorch(net: PoseNet, tmp_path: Path, flip: bool) -> None:
    path = tmp_path / "x.onnx"
    export_onnx(net, path, with_decoding=True, flip=flip)
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    expected = posedy.PoseEstimator(net, device="cpu", flip=flip)(image, BOXES)
    for runtime in RUNTIMES:
        poses = posedy.PoseEstimator(path, runtime=runtime, flip=flip)(image, BOXES)
        np.testing.assert_allclose(poses.scores, expected.scores, atol=1e-3)
        assert (np.abs(poses.keypoints - expected.keypoints).max(axis=-1) < 0.05).mean() > 0.9


def test_a_network_file_runs_in_openvino_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("posedy.prediction.prefers_openvino", lambda: True)
    torch.manual_seed(0)
    net = posedy.create_model("mobilenetv2_035-simcc", input_size=SIZE, depth=0.34, skeleton=COCO17).eval()
    torch.nn.init.normal_(net.head.x_logits.weight)
    save_weights(net, tmp_path / "x.safetensors")
    for _ in range(2):  # converted, then read from the cache
        graph = load_model(tmp_path / "x.safetensors")
        assert isinstance(graph, GraphModel)
        assert graph.runtime == "openvino"
        keypoints, scores = graph.decode(graph(crops(2), COCO17.flip_permutation))
        reference = TorchModel(net)
        expected, expected_scores = reference.decode(reference(crops(2), COCO17.flip_permutation))
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
        assert (np.abs(keypoints - expected).max(axis=-1) < 0.05).mean() > 0.9

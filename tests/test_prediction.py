"""The common interface of networks in PyTorch and of exported graphs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from posedy.codecs import create_codec
from posedy.export.graph_file import GraphInfo
from posedy.geometry import apply_affine, image_to_crop_matrix, invert_affine, padded_region
from posedy.models.factory import create_model
from posedy.models.network_file import network_record, save_weights
from posedy.models.pose_net import PoseNet, predict_outputs
from posedy.prediction import GraphModel, Model, TorchModel, load_model, predict_keypoints
from posedy.skeleton import COCO17

SIZE = (64, 96)
CODEC = create_codec("msra", SIZE)
BOXES = np.array([[10, 20, 60, 90], [5, 5, 100, 50]], dtype=np.float32)
MATRICES = image_to_crop_matrix(*padded_region(BOXES, SIZE[0] / SIZE[1]), SIZE)


def crops(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, SIZE[1], SIZE[0], 3), dtype=np.uint8)


def make_net(**options: object) -> PoseNet:
    torch.manual_seed(0)
    net = create_model("dy_mobilenetv2_035-bneck", input_size=SIZE, **options).eval()
    torch.nn.init.normal_(net.head.heatmap.weight, std=1.0)
    return net


@pytest.fixture(scope="module")
def net() -> PoseNet:
    return make_net()


def make_info(net: PoseNet, decodes: bool, flip: bool = False) -> GraphInfo:
    record = json.loads(json.dumps(network_record(net)))
    return GraphInfo(record, "0", "free", "onnxruntime", decodes, flip, weights="float32", temperature=30.0)


def graph_of(net: PoseNet, decodes: bool = False, flip: bool = False) -> GraphModel:
    """Returns a graph that runs in PyTorch."""

    @torch.inference_mode()
    def run(batch: np.ndarray) -> list[np.ndarray]:
        if not decodes:
            return [net(torch.from_numpy(batch)).numpy()]
        permutation = COCO17.flip_permutation if flip else None
        outputs = predict_outputs(net, torch.from_numpy(batch), net.codec, permutation)
        return [output.numpy() for output in net.codec.decode(outputs)]

    return GraphModel(run, make_info(net, decodes, flip), torch.device("cpu"), "onnxruntime")


KINDS: dict[str, Callable[[PoseNet], Model]] = {
    "torch": TorchModel,
    "graph": graph_of,
    "decoding graph": lambda net: graph_of(net, decodes=True, flip=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_has_the_attributes_of_its_network(net: PoseNet, kind: str) -> None:
    model = KINDS[kind](net)
    assert (model.name, dict(model.options), model.skeleton) == (net.name, net.options, net.skeleton)
    assert (model.num_keypoints, model.input_size, model.codec) == (17, SIZE, net.codec)
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_kind_of_model_predicts_the_same_keypoints(net: PoseNet, kind: str) -> None:
    in_one_batch = kind != "decoding graph"
    outputs = predict_outputs(net, torch.from_numpy(crops()), CODEC, COCO17.flip_permutation, in_one_batch)
    in_crop, expected_scores = CODEC.decode(outputs)
    keypoints, scores = predict_keypoints(KINDS[kind](net), crops(), MATRICES, COCO17.flip_permutation)
    np.testing.assert_array_equal(scores, expected_scores.numpy())
    np.testing.assert_array_equal(keypoints, apply_affine(invert_affine(MATRICES), in_crop.numpy()))
    assert keypoints.shape == (2, 17, 2)
    assert keypoints.dtype == np.float64
    assert scores.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_do_not_require_gradients(net: PoseNet, kind: str) -> None:
    outputs = KINDS[kind](net)(crops(), COCO17.flip_permutation)
    assert not any(output.requires_grad for output in outputs.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heatmaps_are_float32_for_any_dtype_of_the_network(net: PoseNet, dtype: torch.dtype) -> None:
    class CastNet(PoseNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).to(dtype)

    converted = CastNet(
        net.backbone, net.head, name=net.name, skeleton=net.skeleton, input_size=SIZE, options=net.options
    ).eval()
    assert TorchModel(converted)(crops())["heatmaps"].dtype == torch.float32


def test_zero_crops_give_zero_keypoints(net: PoseNet) -> None:
    def run(batch: np.ndarray) -> list[np.ndarray]:
        return [np.zeros((len(batch), 17, 24, 16), np.float32)]

    model = GraphModel(run, make_info(net, decodes=False), torch.device("cpu"), "onnxruntime")
    keypoints, scores = predict_keypoints(model, crops(0), np.zeros((0, 2, 3)), COCO17.flip_permutation)
    assert keypoints.shape == (0, 17, 2)
    assert scores.shape == (0, 17)


def test_a_decoding_graph_rejects_the_other_flip_test(net: PoseNet) -> None:
    for flip, message in ((True, "flip=True"), (False, "flip=False, --no-flip")):
        model = graph_of(net, decodes=True, flip=flip)
        model.check_flip(flip)
        with pytest.raises(ValueError, match=message):
            model.check_flip(not flip)
        with pytest.raises(ValueError, match=message):
            model(crops(), None if flip else COCO17.flip_permutation)


@pytest.mark.parametrize("kind", ["torch", "graph"])
def test_the_flip_test_needs_a_skeleton(kind: str) -> None:
    model = KINDS[kind](make_net(num_keypoints=5))
    assert model.skeleton is None
    model.check_flip(False)
    with pytest.raises(ValueError, match="skeleton"):
        model.check_flip(True)
    # the permutation may come from elsewhere, such as an annotation file
    assert model(crops(), [1, 0, 3, 2, 4])["heatmaps"].shape == (2, 5, 24, 16)


@pytest.mark.parametrize("decodes", [False, True])
def test_nan_in_the_outputs_is_rejected(net: PoseNet, decodes: bool) -> None:
    def run(batch: np.ndarray) -> list[np.ndarray]:
        nan = np.float32("nan")
        if decodes:
            return [np.zeros((len(batch), 17, 2), np.float32), np.full((len(batch), 17), nan)]
        return [np.full((len(batch), 17, 24, 16), nan)]

    model = GraphModel(run, make_info(net, decodes), torch.device("cpu"), "onnxruntime")
    with pytest.raises(ValueError, match="NaN"):
        predict_keypoints(model, crops(), MATRICES)


def test_nan_in_the_outputs_of_a_network_is_rejected() -> None:
    net = make_net()
    with torch.no_grad():
        net.head.heatmap.bias[3] = float("nan")
    for codec in ("msra", "unbiased"):
        net.options["codec"] = codec
        model = TorchModel(net)
        with pytest.raises(ValueError, match="NaN"):
            model.decode(model(crops()))


def test_networks_accept_other_sizes_and_graphs_reject_them(net: PoseNet) -> None:
    model = TorchModel(net)
    larger = model.with_input_size((96, 128))
    assert (larger.input_size, model.input_size) == ((96, 128), SIZE)
    assert larger(np.zeros((1, 128, 96, 3), np.uint8))["heatmaps"].shape == (1, 17, 32, 24)
    graph = graph_of(net)
    assert graph.with_input_size(SIZE) is graph
    with pytest.raises(ValueError, match="96, 128"):
        graph.with_input_size((96, 128))


def test_load_model_fuses_a_copy(net: PoseNet, tmp_path: Path) -> None:
    save_weights(net, tmp_path / "net.safetensors")
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    expected = TorchModel(net)(crops())["heatmaps"]
    for given in (net, tmp_path / "net.safetensors"):
        exact = load_model(given, "cpu", fused=False)(crops())["heatmaps"]
        torch.testing.assert_close(exact, expected, rtol=0, atol=0)
        fused = load_model(given, "cpu")(crops())["heatmaps"]
        assert not torch.equal(fused, expected)
        torch.testing.assert_close(fused, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_invalid_models_are_rejected(net: PoseNet) -> None:
    with pytest.raises(TypeError, match="int"):
        load_model(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="runtime='onnxruntime'"):
        load_model(net, runtime="onnxruntime")
    with pytest.raises(ValueError, match="'cuda'"):
        load_model(net, "cuda", runtime="openvino")
    with pytest.raises(FileNotFoundError):
        load_model("absent.onnx")

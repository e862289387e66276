"""Graphs with int8 weights and int8 convolutions equal float graphs up to rounding, or are not written."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from posedy.export.graph_file import METADATA_KEY, GraphInfo, read_graph
from posedy.export.int8_search import Agreement, Calibration, check_agreement, compare_keypoints
from posedy.export.onnx import export_onnx
from posedy.export.onnx_int8 import StaticQuantizer
from posedy.export.onnx_weights import quantize_rows, store_weights
from posedy.export.runtimes import make_runner
from posedy.models.blocks import conv_norm_act, static_conv
from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint
from posedy.prediction import load_model
from posedy.skeleton import COCO17

from .conftest import images

RUNTIMES = ("onnxruntime", "openvino")


def conv_graph(kernels: list[np.ndarray], biases: list[np.ndarray]) -> onnx.ModelProto:
    """A graph of convolutions with ReLU between them, a residual addition, and a last convolution."""
    nodes, initializers = [], []
    for index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        names = [f"net.{index}.weight", f"net.{index}.bias"]
        initializers += [numpy_helper.from_array(kernel, names[0]), numpy_helper.from_array(bias, names[1])]
        pads = [kernel.shape[2] // 2] * 4
        x = "x" if index == 0 else f"relu{index - 1}" if index < len(kernels) - 1 else "sum"
        nodes.append(helper.make_node("Conv", [x, *names], [f"conv{index}"], f"node{index}", pads=pads))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"], f"act{index}"))
    last = len(kernels) - 1
    nodes[-1] = helper.make_node("Identity", [f"conv{last}"], ["y"], "output")
    nodes.insert(-2, helper.make_node("Add", [f"relu{last - 1}", f"relu{last - 2}"], ["sum"], "addition"))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [value("x", TensorProto.FLOAT, [1, kernels[0].shape[1], 16, 12])],
        [value("y", TensorProto.FLOAT, [1, kernels[-1].shape[0], 16, 12])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def graph() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    shapes = [(64, 8, 3, 3), (64, 64, 1, 1), (64, 64, 3, 3), (5, 64, 1, 1)]
    kernels = [(rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32) for shape in shapes]
    return conv_graph(kernels, [rng.normal(size=shape[0]).astype(np.float32) for shape in shapes])


def inputs(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 8, 16, 12)).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray, runtime: str = "onnxruntime") -> np.ndarray:
    return make_runner(model.SerializeToString(), 1, runtime, threads=2)(x)[0]


def difference(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.square(output - expected).mean() / np.square(expected).mean()))


def test_rows_are_rounded_to_the_nearest_step_or_clipped() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_t(2, size=(6, 5, 40)).astype(np.float32) * np.float32([1e-6, 1, 10, 1, 1, 1])[:, None, None]
    rows[4] = 0
    integers, scale = quantize_rows(rows)
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() == 127
    error = np.abs(integers * scale[:, None, None] - rows)
    inside = np.abs(rows) <= 127 * scale[:, None, None]
    assert (error <= 0.501 * scale[:, None, None])[inside].all()
    # no worse than rounding without clipping
    full = np.abs(rows).max(axis=(1, 2), keepdims=True) / 127
    unclipped = np.round(rows / np.where(full > 0, full, 1)) * full - rows
    assert (np.square(error).sum(axis=(1, 2)) <= np.square(unclipped).sum(axis=(1, 2)) * 1.001 + 1e-30).all()
    assert (integers[4] == 0).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_stored_weights_are_computed_back(graph: onnx.ModelProto, weights: str, runtime: str) -> None:
    """On several images: OpenVINO runs two at a time, and read wrong int8 weights for the second."""
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    stored = onnx.ModelProto.FromString(graph.SerializeToString())
    rounded = store_weights(stored, weights, kept=["net.0.weight"])
    onnx.checker.check_model(stored)
    types = {tensor.name: tensor.data_type for tensor in stored.graph.initializer}
    large = {name: f"{name}.{'half' if weights == 'float16' else 'int8'}" for name in ("net.1.weight", "net.2.weight")}
    expected_type = TensorProto.FLOAT16 if weights == "float16" else TensorProto.INT8
    assert all(types[name] == expected_type for name in large.values())
    assert types["net.3.weight.half"] == TensorProto.FLOAT16  # too few values for int8
    assert types["net.0.weight"] == types["net.0.bias"] == TensorProto.FLOAT
    for name, values in rounded.items():
        assert 0 < np.abs(values - before[name]).max() < 0.01 * np.abs(before[name]).max()
    for tensor in graph.graph.initializer:
        if tensor.name in rounded:
            tensor.CopyFrom(numpy_helper.from_array(rounded[tensor.name], tensor.name))
    x = inputs(4)
    np.testing.assert_allclose(run(stored, x, runtime), run(graph, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_matrix_products_with_int8_weights_are_exact(runtime: str) -> None:
    """OpenVINO rounds their inputs, too, if it recognizes the weights as compressed."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(96, 128)).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [value("x", TensorProto.FLOAT, [1, 96])],
        [value("y", TensorProto.FLOAT, [1, 128])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    rounded = store_weights(model, "int8")
    x = rng.normal(size=(3, 96)).astype(np.float32)
    np.testing.assert_allclose(run(model, x, runtime), x @ rounded["weight"], rtol=0, atol=1e-4)


def quantizer_of(graph: onnx.ModelProto) -> StaticQuantizer:
    quantizer = StaticQuantizer(graph)
    quantizer.observe(inputs(8)[index : index + 1] for index in range(8))
    return quantizer


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_convolutions_are_close_to_float(graph: onnx.ModelProto, runtime: str) -> None:
    quantizer = quantizer_of(graph)
    names = [layer.name for layer in quantizer.layers]
    assert names == ["net.0.weight", "net.1.weight", "net.2.weight", "sum"]  # not the one that computes the output
    x = inputs(5)
    expected = run(graph, x)
    errors = [difference(run(quantizer.quantize(names[:count]), x, runtime), expected) for count in (0, 1, 4)]
    assert errors[0] < 1e-6 < errors[1] < errors[2] < 0.03


def test_int8_graphs_have_int8_kernels_and_no_activation_nodes(graph: onnx.ModelProto) -> None:
    quantizer = quantizer_of(graph)
    quantized = quantizer.quantize([layer.name for layer in quantizer.layers])
    onnx.checker.check_model(quantized)
    types = {tensor.name: tensor.data_type for tensor in quantized.graph.initializer}
    assert types["net.2.weight.int8"] == TensorProto.INT8
    assert types["node2.bias.int32"] == TensorProto.INT32
    assert not [node for node in quantized.graph.node if node.op_type == "Relu"]  # part of the rounding


def test_int8_graphs_have_no_unused_weights(graph: onnx.ModelProto) -> None:
    """ONNX Runtime warns about each of them."""
    quantizer = quantizer_of(graph)
    model = quantizer.quantize([layer.name for layer in quantizer.layers])
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


def test_large_biases_of_channels_with_tiny_weights_survive(graph: onnx.ModelProto) -> None:
    """Their int32 value at the scale of the weights would overflow."""
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    kernel = numpy_helper.to_array(tensors["net.1.weight"]).copy()
    kernel[:32] *= 1e-12
    tensors["net.1.weight"].CopyFrom(numpy_helper.from_array(kernel, "net.1.weight"))
    quantizer = quantizer_of(graph)
    x = inputs(3)
    assert difference(run(quantizer.quantize(["net.1.weight"]), x), run(graph, x)) < 0.03


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_layer_in_float32_is_computed_in_float32(graph: onnx.ModelProto, runtime: str, has_bias: bool) -> None:
    """ONNX Runtime would round its kernel with one scale for all channels, here that of inputs that are always 0."""
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    arrays = {name: numpy_helper.to_array(tensor).copy() for name, tensor in tensors.items()}
    arrays["net.0.weight"][:8], arrays["net.0.bias"][:8] = 0, 0
    arrays["net.1.weight"][:, :8] *= 1000
    for name, array in arrays.items():
        tensors[name].CopyFrom(numpy_helper.from_array(array, name))
    if not has_bias:
        del next(node for node in graph.graph.node if node.name == "node1").input[2:]
    quantizer = quantizer_of(graph)
    quantized = quantizer.quantize(["net.0.weight", "net.2.weight", "sum"])
    onnx.checker.check_model(quantized)
    x = inputs(3)
    assert difference(run(quantized, x, runtime), run(graph, x, runtime)) < 0.03


@pytest.fixture(scope="module")
def static_net() -> PoseNet:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        conv_norm_act(static_conv(3, 64, 3, 4), 64, nn.ReLU6()), conv_norm_act(static_conv(64, 64, 3), 64, nn.ReLU())
    )
    options = {"num_keypoints": 17, "output": "linear"}
    net = PoseNet(
        backbone, nn.Conv2d(64, 17, 1), name="static-layers", skeleton=COCO17, input_size=(64, 64), options=options
    )
    with torch.no_grad():
        net.train()(images(8))
    return net.eval()


def crops(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@pytest.mark.slow
def test_calibrated_export_runs_in_all_runtimes(static_net: PoseNet, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    received = []

    def check(before: Callable, after: Callable, info: GraphInfo) -> str:
        received.append(difference(after(images(2).numpy())[0], before(images(2).numpy())[0]))
        return f"checked {info.weights}"

    calibration = Calibration(crops(6, 0), crops(6, 1), check)
    report = export_onnx(static_net, path, int8=True, calibration=calibration, log=lambda message: None)
    assert 0 < received[0] < 0.1
    assert report.accuracy == "checked int8"
    assert report.agreement is not None
    _, info = read_graph(path)
    assert (info, info.weights) == (GraphInfo.from_json(report.info.to_json()), "int8")
    assert info.float_layers is not None
    x = images(3)
    with torch.no_grad():
        expected = static_net(x).numpy()
    for runtime in RUNTIMES:
        assert difference(make_runner(path.read_bytes(), 1, runtime, threads=2)(x.numpy())[0], expected) < 0.1
        assert load_model(path, "cpu", runtime).info.float_layers == info.float_layers


@pytest.mark.parametrize("allow_drop", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_inaccurate_network_is_only_written_if_allowed(
    static_net: PoseNet, tmp_path: Path, allow_drop: bool
) -> None:
    """Calibrated on black crops, it clips the activations of all others."""
    path = tmp_path / "x.onnx"
    calibration = Calibration(np.zeros_like(crops(2, 0)), crops(4, 1), allow_drop=allow_drop)
    if allow_drop:
        report = export_onnx(static_net, path, int8=True, calibration=calibration, log=lambda message: None)
        with pytest.raises(ValueError, match="inaccurate"):
            check_agreement(report.agreement)
        assert path.exists()
        return
    with pytest.raises(ValueError, match="inaccurate"):
        export_onnx(static_net, path, int8=True, calibration=calibration, log=lambda message: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_export_with_int8_weights_of_static_and_dynamic_kernels(
    net: PoseNet, exported: Callable[..., Path], free: Path
) -> None:
    path = exported("int8.onnx", batch=1, int8=True, runtime="openvino")
    model, info = read_graph(path)
    assert (info.weights, info.float_layers, info.runtime) == ("int8", None, "openvino")
    assert GraphInfo.from_json(info.to_json()) == info
    dynamic = [t for t in model.graph.initializer if "kernels" in t.name and t.data_type == TensorProto.INT8]
    assert dynamic
    assert path.stat().st_size < 0.45 * free.stat().st_size
    x = images(5)
    with torch.no_grad():
        expected = net(x).numpy()
    outputs = [make_runner(path.read_bytes(), 1, runtime, threads=2)(x.numpy())[0] for runtime in RUNTIMES]
    assert 1e-4 < difference(outputs[0], expected) < 0.2
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-4 * np.abs(expected).max())


def test_int8_arguments_are_checked(static_net: PoseNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half or int8"):
        export_onnx(static_net, tmp_path / "x.onnx", half=True, int8=True)
    with pytest.raises(ValueError, match="int8=True"):
        export_onnx(static_net, tmp_path / "x.onnx", calibration=Calibration(crops(2, 0), crops(2, 1)))


def test_metadata_of_files_written_before_int8(static_net: PoseNet, tmp_path: Path) -> None:
    info = GraphInfo.from_network(static_net, batch=1, runtime="onnxruntime", weights="float16")
    fields = json.loads(info.to_json())
    del fields["weights"], fields["float_layers"]
    model = helper.make_model(helper.make_graph([], "empty", [], []))
    for half, weights in ((True, "float16"), (False, "float32")):
        helper.set_model_props(model, {METADATA_KEY: json.dumps(fields | {"half": half})})
        onnx.save(model, tmp_path / "x.onnx")
        expected = dataclasses.replace(GraphInfo.from_json(info.to_json()), weights=weights)
        assert read_graph(tmp_path / "x.onnx")[1] == expected
    with pytest.raises(ValueError, match="int4"):
        GraphInfo.from_json(json.dumps(fields | {"weights": "int4"}))


def test_agreement_is_of_confident_keypoints(static_net: PoseNet) -> None:
    info = GraphInfo.from_network(static_net, batch=1, runtime="onnxruntime")
    size = 64 / 1.25
    expected = np.zeros((1, 4, 2), np.float32), np.float32([[0.9, 0.5, 0.3, 0.1]])
    moved = expected[0].copy()
    moved[0, :, 0] = [0.04 * size, 0.06 * size, 0, size]
    agreement = compare_keypoints(expected, (moved, expected[1] + 0.1), info)
    assert dataclasses.astuple(agreement) == pytest.approx((1 / 3, 0.1 / 3, 0.1), rel=1e-4)
    check_agreement(Agreement(0.05, 0.02, 1.0))
    with pytest.raises(ValueError, match=r"5\.1%"):
        check_agreement(Agreement(0.051, 0.02, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_pretrained_network_with_int8_weights_keeps_its_keypoints(tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "x.onnx"
    report = export_onnx(load_checkpoint("balanced"), path, int8=True, runtime=runtime)
    assert report.difference < 1e-4
    assert path.stat().st_size < 3e6


@pytest.mark.slow
def test_dynamic_network_with_int8_weights_is_below_12_megabytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = create_model("dy_mobilenetv2_100-fpn").eval()
    export_onnx(net, tmp_path / "x.onnx", int8=True)
    assert (tmp_path / "x.onnx").stat().st_size < 12e6

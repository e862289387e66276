"""Kernels in float16 become inputs of OpenVINO's graph, which stay in float16, and outputs stay equal."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from posedy.export.compressed_constants import lift_compressed_kernels
from posedy.export.onnx import trace
from posedy.export.onnx_layers import MIN_SUMMED_VALUES, prepare_for_export
from posedy.export.onnx_weights import WEIGHTS, Weights, store_weights
from posedy.export.runtimes import make_runner, openvino_core
from posedy.models.dynamic_conv import DynamicConv2d


@pytest.fixture(scope="module")
def chain() -> nn.Sequential:
    """A large dynamic layer, a small one and a large static one, whose weights float16 represents exactly."""
    torch.manual_seed(0)
    layers = DynamicConv2d(64, 1024, 1, temperature=0.05), DynamicConv2d(1024, 8, 1), nn.Conv2d(8, 4096, 1)
    return nn.Sequential(*layers).half().float().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def graphs(chain: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> dict[Weights, bytes]:
    path = tmp_path_factory.mktemp("graph") / "chain.onnx"
    trace(prepare_for_export(chain, 1, "openvino"), torch.randn(1, 64, 4, 4), path)
    contents = {}
    for weights in WEIGHTS:
        model = onnx.load(path)
        store_weights(model, weights)
        contents[weights] = model.SerializeToString()
    return contents


@pytest.mark.parametrize(("weights", "type_name"), [("float16", "f16"), ("int8", "i8")])
def test_only_large_dynamic_kernels_become_inputs(graphs: dict, weights: Weights, type_name: str) -> None:
    graph = openvino_core().read_model(graphs[weights])
    lifted, kernels = lift_compressed_kernels(graph)
    assert len(graph.inputs) == 1  # the original is unchanged
    assert [value.get_element_type().get_type_name() for value in lifted.inputs] == ["f32"] + [type_name] * 4
    assert [kernel.shape for kernel in kernels.values()] == [[1024, 64]] * 4
    assert all(set(value.names) & set(kernels) for value in lifted.inputs[1:])


def test_a_graph_without_compressed_kernels_is_returned_itself(graphs: dict) -> None:
    graph = openvino_core().read_model(graphs["float32"])
    lifted, kernels = lift_compressed_kernels(graph)
    assert lifted is graph
    assert kernels == {}


def test_int8_kernels_of_static_convolutions_stay_constant() -> None:
    """OpenVINO computes them in int8, if they are not inputs; their scales are reshaped constants."""
    kernel = np.random.default_rng(0).integers(-127, 128, (512, 256, 1, 1), dtype=np.int8)
    constants = [(kernel, "kernel"), (np.full(512, 0.01, np.float32), "scale")]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["kernel", "scale"], ["weight"], axis=0),
            helper.make_node("Conv", ["x", "weight"], ["y"]),
        ],
        "convolution",
        [value("x", TensorProto.FLOAT, [1, 256, 4, 4])],
        [value("y", TensorProto.FLOAT, [1, 512, 4, 4])],
        [numpy_helper.from_array(array, name) for array, name in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert kernel.size >= MIN_SUMMED_VALUES
    assert lift_compressed_kernels(openvino_core().read_model(model.SerializeToString()))[1] == {}


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_graph_with_compressed_kernels_equals_pytorch(chain: nn.Sequential, graphs: dict, runtime: str) -> None:
    runner = make_runner(graphs["float16"], 1, runtime, threads=2)
    x = 3 * torch.randn(5, 64, 4, 4) + torch.randn(5, 64, 1, 1)
    expected = chain(x).numpy()
    assert np.abs(expected[1:] - expected[:1]).max() > 0.1
    for count in (1, 5):  # one image, and two at a time
        np.testing.assert_allclose(runner(x[:count].numpy())[0], expected[:count], rtol=0, atol=1e-5)
    with ThreadPoolExecutor(3) as pool:
        for index, (y,) in enumerate(pool.map(lambda i: runner(x[i : i + 1].numpy()), [0, 1, 2, 3, 4] * 3)):
            np.testing.assert_allclose(y[0], expected[index % 5], rtol=0, atol=1e-5)


def test_int8_kernels_equal_those_of_a_runtime_that_decompresses_them(graphs: dict) -> None:
    x = 3 * np.random.default_rng(0).standard_normal((5, 64, 4, 4), np.float32)
    outputs = [make_runner(graphs["int8"], 1, runtime, threads=2)(x)[0] for runtime in ("openvino", "onnxruntime")]
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-5)
    (exact,) = make_runner(graphs["float32"], 1, "openvino", threads=2)(x)
    assert 1e-4 < np.abs(outputs[0] - exact).max() < 0.1

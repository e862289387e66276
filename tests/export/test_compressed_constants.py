"""Kernels in float16 become inputs of OpenVINO's graph, which stay in float16, and outputs stay equal."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from posedy.export.compressed_constants import lift_compressed_kernels
from posedy.export.onnx import trace
from posedy.export.onnx_layers import prepare_for_export
from posedy.export.onnx_weights import store_weights
from posedy.export.runtimes import make_runner, openvino_core
from posedy.models.dynamic_conv import DynamicConv2d


@pytest.fixture(scope="module")
def chain() -> nn.Sequential:
    """A large dynamic layer, a small one and a large static one, whose weights float16 represents exactly."""
    torch.manual_seed(0)
    layers = DynamicConv2d(16, 1024, 1, temperature=0.05), DynamicConv2d(1024, 8, 1), nn.Conv2d(8, 4096, 1)
    return nn.Sequential(*layers).half().float().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def half_graph(chain: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("graph") / "chain.onnx"
    trace(prepare_for_export(chain, 1, "openvino"), torch.randn(1, 16, 4, 4), path)
    model = onnx.load(path)
    store_weights(model, "float16")
    return model.SerializeToString()


def test_only_large_dynamic_kernels_become_inputs(half_graph: bytes) -> None:
    graph = openvino_core().read_model(half_graph)
    lifted, kernels = lift_compressed_kernels(graph)
    assert len(graph.inputs) == 1  # the original is unchanged
    assert [value.get_element_type().get_type_name() for value in lifted.inputs] == ["f32"] + ["f16"] * 4
    assert [kernel.shape for kernel in kernels.values()] == [[1024, 16]] * 4
    assert all(set(value.names) & set(kernels) for value in lifted.inputs[1:])


def test_a_graph_without_compressed_kernels_is_returned_itself(chain: nn.Sequential, tmp_path: Path) -> None:
    trace(prepare_for_export(chain, 1, "openvino"), torch.randn(1, 16, 4, 4), tmp_path / "chain.onnx")
    graph = openvino_core().read_model(tmp_path / "chain.onnx")
    lifted, kernels = lift_compressed_kernels(graph)
    assert lifted is graph
    assert kernels == {}


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_graph_with_compressed_kernels_equals_pytorch(chain: nn.Sequential, half_graph: bytes, runtime: str) -> None:
    runner = make_runner(half_graph, 1, runtime, threads=2)
    x = 3 * torch.randn(5, 16, 4, 4) + torch.randn(5, 16, 1, 1)
    expected = chain(x).numpy()
    assert np.abs(expected[1:] - expected[:1]).max() > 0.1
    for count in (1, 5):  # one image, and two at a time
        np.testing.assert_allclose(runner(x[:count].numpy())[0], expected[:count], rtol=0, atol=1e-5)
    with ThreadPoolExecutor(3) as pool:
        for index, (y,) in enumerate(pool.map(lambda i: runner(x[i : i + 1].numpy()), [0, 1, 2, 3, 4] * 3)):
            np.testing.assert_allclose(y[0], expected[index % 5], rtol=0, atol=1e-5)

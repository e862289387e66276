"""Runtimes have equal outputs, are thread-safe and run on the requested device."""

import functools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from posedy.export import graph_file
from posedy.export.graph_file import load_graph
from posedy.export.onnx_layers import Batch
from posedy.export.runtimes import Runtime, check_provider, graph_device, make_runner

from .conftest import images


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [1, "free"])
def test_an_empty_batch_has_empty_outputs(runtime: str, batch: Batch) -> None:
    """OpenVINO itself rejects it in pooling."""
    rows = "N" if batch == "free" else 1
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
            onnx.helper.make_node("GlobalAveragePool", ["x"], ["z"]),
        ],
        "pooling",
        [value("x", shape=[rows, 3, 4, 6])],
        [value("y", shape=[rows, 3, 2, 3]), value("z", shape=[rows, 3, 1, 1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    runner = make_runner(model.SerializeToString(), batch, runtime, threads=1)
    for count in (0, 2):
        y, z = runner(np.ones((count, 3, 4, 6), np.float32))
        assert (y.shape, z.shape) == ((count, 3, 2, 3), (count, 3, 1, 1))
        assert y.dtype == z.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_batches_and_threads_equal_single_images(single: Path, runtime: str) -> None:
    runner = make_runner(single.read_bytes(), 1, runtime)
    x = images(5).numpy()
    (batched,) = runner(x)
    single_outputs = np.concatenate([runner(x[i : i + 1])[0] for i in range(5)])
    np.testing.assert_allclose(batched, single_outputs, rtol=0, atol=1e-5 * np.abs(single_outputs).max())
    with ThreadPoolExecutor(4) as pool:
        for index, (heatmaps,) in enumerate(pool.map(lambda i: runner(x[i : i + 2]), [0, 1, 2, 3] * 4)):
            start = index % 4
            np.testing.assert_allclose(
                heatmaps, single_outputs[start : start + 2], rtol=0, atol=1e-5 * np.abs(single_outputs).max()
            )


@pytest.mark.slow
def test_signals_are_handled_after_openvino_graphs_are_destroyed(single: Path) -> None:
    """Runs in a separate process, which a signal without a valid signal stack would crash."""
    script = (
        "import faulthandler, pathlib, signal, sys\n"
        "from posedy.export.runtimes import make_runner\n"
        "faulthandler.enable()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        "content = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "runners = [make_runner(content, 1, 'openvino') for _ in range(3)]\n"
        "while runners:\n"
        "    runners.pop(0)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
    )
    completed = subprocess.run([sys.executable, "-c", script, single], capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout.split()) == (0, ["handled"] * 3), completed.stderr


def test_unavailable_device_is_rejected(free: Path) -> None:
    import onnxruntime

    content = free.read_bytes()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ValueError, match="CUDAExecutionProvider"):
            make_runner(content, "free", "onnxruntime", "cuda")
        assert graph_device("auto", "onnxruntime").type == "cpu"
    with pytest.raises(ValueError, match="OpenVINO, got 'cuda'"):
        make_runner(content, "free", "openvino", "cuda")
    with pytest.raises(ValueError, match="gpu7"):
        graph_device("gpu7", "onnxruntime")
    with pytest.raises(ValueError, match="CUDAExecutionProvider, got CPUExecutionProvider"):
        check_provider(["CPUExecutionProvider"], "CUDAExecutionProvider")
    check_provider(["CUDAExecutionProvider", "CPUExecutionProvider"], "CUDAExecutionProvider")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_invalid_graph_is_rejected(runtime: str) -> None:
    with pytest.raises(ValueError, match="cannot load the graph"):
        make_runner(b"not a graph", 1, runtime)


def test_unknown_runtime_is_rejected() -> None:
    with pytest.raises(ValueError, match="tensorrt"):
        make_runner(b"", 1, "tensorrt")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_files_run_with_the_number_of_threads_of_torch(free: Path, runtime: Runtime) -> None:
    runner: Any = load_graph(free, "cpu", runtime)[0]
    threads = torch.get_num_threads()  # 1 in tests, and not the default of the runtimes
    if runtime == "onnxruntime":
        assert runner._session.get_session_options().intra_op_num_threads == threads
    else:
        with runner._single_pool.acquire(1) as (request,):
            assert request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == threads


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The name of a file, where ONNX Runtime has the CUDA provider, but cannot start it."""

    class Session:
        def __init__(self, model: bytes, options: object, providers: list[Any]) -> None:
            pass

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

        def get_inputs(self) -> list[Any]:
            return [SimpleNamespace(name="images")]

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    info = SimpleNamespace(runtime="onnxruntime", batch=1)
    monkeypatch.setattr(graph_file, "read_graph", lambda _: (onnx.ModelProto(), info))
    return Path("pose.onnx")


def test_auto_is_the_cpu_if_cuda_does_not_start(no_cuda: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_graph(no_cuda, "auto")[2].type == "cpu"
    (warning,) = caplog.messages
    assert "pose.onnx" in warning
    assert "CUDAExecutionProvider" in warning


def test_cuda_that_does_not_start_is_an_error_if_it_is_requested(no_cuda: Path) -> None:
    with pytest.raises(ValueError, match=r"CUDAExecutionProvider.*device='cpu'"):
        load_graph(no_cuda, "cuda")

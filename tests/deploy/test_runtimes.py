"""Runtimes give the same, from several threads too, on the device asked for."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from posedy.deploy.runtimes import check_provider, graph_device, make_runner

from .conftest import images


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_persons_one_by_one_and_from_several_threads(single: Path, runtime: str) -> None:
    runner = make_runner(single.read_bytes(), 1, runtime)
    x = images(5).numpy()
    (together,) = runner(x)
    alone = np.concatenate([runner(x[i : i + 1])[0] for i in range(5)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    with ThreadPoolExecutor(4) as pool:
        for index, (heatmaps,) in enumerate(pool.map(lambda i: runner(x[i : i + 2]), [0, 1, 2, 3] * 4)):
            start = index % 4
            np.testing.assert_allclose(heatmaps, alone[start : start + 2], rtol=0, atol=1e-5 * np.abs(alone).max())


def test_another_device_than_asked_for_is_an_error(free: Path) -> None:
    import onnxruntime

    content = free.read_bytes()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ValueError, match="CUDAExecutionProvider"):
            make_runner(content, "free", "onnxruntime", "cuda")
        assert graph_device("auto", "onnxruntime").type == "cpu"
    with pytest.raises(ValueError, match="OpenVINO runs on the CPU"):
        make_runner(content, "free", "openvino", "cuda")
    with pytest.raises(ValueError, match="unknown device"):
        graph_device("gpu7", "onnxruntime")
    with pytest.raises(ValueError, match="was asked for CUDAExecutionProvider and took CPUExecutionProvider"):
        check_provider(["CPUExecutionProvider"], "CUDAExecutionProvider")
    check_provider(["CUDAExecutionProvider", "CPUExecutionProvider"], "CUDAExecutionProvider")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_is_no_graph_is_refused(runtime: str) -> None:
    with pytest.raises(ValueError, match="refuses the graph"):
        make_runner(b"no graph", 1, runtime)


def test_unknown_runtimes_are_refused() -> None:
    with pytest.raises(ValueError, match="'onnxruntime', 'openvino'"):
        make_runner(b"", 1, "tensorrt")

"""Runtimes give the same, from several threads too, on the device asked for."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from posedy.export.runtimes import check_provider, graph_device, make_runner

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


@pytest.mark.slow
def test_signals_are_handled_after_graphs_of_openvino_are_gone(single: Path) -> None:
    """In a process of its own, which a signal without a stack to handle it on would end."""
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
    done = subprocess.run([sys.executable, "-c", script, single], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["handled"] * 3), done.stderr


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

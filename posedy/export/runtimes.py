"""Execution of exported graphs with ONNX Runtime or OpenVINO."""

import functools
import importlib.util
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from posedy.export.compressed_constants import Constants, lift_compressed_kernels
from posedy.export.onnx_layers import Batch
from posedy.system import check_process

Runtime = Literal["onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

Array = NDArray[Any]

GraphRunner = Callable[[Array], list[Array]]
"""A function that runs a graph on a batch and returns its outputs, with the batch as first axis.

It is thread-safe.
"""


def make_runner(
    model: bytes, batch: Batch, runtime: Runtime, device: torch.device | str = "cpu", threads: int = 0
) -> GraphRunner:
    """Loads a graph into a runtime.

    Args:
        model: content of an ONNX file.
        batch: "free" or 1; a graph of batch size 1 is called once per image of a batch.
        runtime: one of `RUNTIMES`.
        device: "cpu", or "cuda" with ONNX Runtime's GPU package.
        threads: number of threads of a call; 0 is the runtime's default.

    Raises:
        ValueError: if the runtime is unknown or not installed, or does not support the device or the graph.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"expected runtime to be one of {list(RUNTIMES)}, got {runtime!r}")
    require(runtime)
    device = torch.device(device)
    if runtime == "openvino":
        return OpenVinoRunner(model, batch, device, threads)
    return OnnxRuntimeRunner(model, batch, device, threads)


def graph_device(name: str, runtime: str) -> torch.device:
    """Returns the device with a given name; "auto" is CUDA if ONNX Runtime supports it, otherwise the CPU.

    Raises:
        ValueError: if the name is unknown.
    """
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError:
            raise ValueError(f"expected device auto, cpu or cuda, got {name!r}") from None
    if runtime == "onnxruntime":
        require("onnxruntime")
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return torch.device("cuda")
    return torch.device("cpu")


class OnnxRuntimeRunner:
    """A graph loaded into ONNX Runtime, see `make_runner`."""

    def __init__(self, model: bytes, batch: Batch, device: torch.device, threads: int = 0) -> None:
        import onnxruntime

        providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
        if device.type not in providers:
            raise ValueError(f"expected device cpu or cuda for ONNX Runtime, got {str(device)!r}")
        provider = providers[device.type]
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(
                f"device {str(device)!r} needs {provider}, but the installed onnxruntime has only "
                f"{', '.join(onnxruntime.get_available_providers())}: install onnxruntime-gpu, or use device='cpu'"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors are raised as exceptions
        provider_options: Any = (provider, {"device_id": device.index or 0}) if device.type == "cuda" else provider
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[provider_options])
        except Exception as error:  # its exceptions have no common base class
            hint = "" if device.type == "cpu" else " (device='cpu' needs no GPU)"
            raise ValueError(f"ONNX Runtime cannot load the graph: {error}{hint}") from error
        # ONNX Runtime silently falls back to the CPU if a provider does not start
        check_provider(self._session.get_providers(), provider)
        self._batch = batch
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Array) -> list[Array]:
        """Runs the graph on a batch and returns its outputs."""
        inputs = _split_batch(batch, self._batch)
        outputs = [self._session.run(None, {self._input: np.ascontiguousarray(x)}) for x in inputs]
        return _concatenate(outputs, len(batch))


def check_provider(providers: Sequence[str], expected: str) -> None:
    """Checks that a session uses the requested provider.

    Raises:
        ValueError: if the first provider is another one.
    """
    if not providers or providers[0] != expected:
        raise ValueError(
            f"expected ONNX Runtime to use {expected}, got {', '.join(providers) or 'none'}: check its installation "
            "(for CUDA also the versions of CUDA and cuDNN), or use device='cpu'"
        )


class OpenVinoRunner:
    """A graph loaded into OpenVINO on the CPU, see `make_runner`; `model` may also be an `openvino.Model`.

    A graph of batch size 1 runs a single image with all threads. Several images run two at a time, each with half of
    the threads, for which the graph is compiled at the first such call.
    """

    def __init__(self, model: Any, batch: Batch, device: torch.device, threads: int = 0) -> None:
        if device.type != "cpu":
            raise ValueError(f"expected device cpu for OpenVINO, got {str(device)!r}")
        self._batch = batch
        graph, kernels = lift_compressed_kernels(_read_model(model) if isinstance(model, bytes) else model)
        self._single_pool = _RequestPool(graph, kernels, 1, threads)
        self._make_pair_pool = (
            functools.partial(_RequestPool, graph, kernels, 2, threads) if batch == 1 and threads != 1 else None
        )
        self._pair_pool: _RequestPool | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __call__(self, batch: Array) -> list[Array]:
        """Runs the graph on a batch and returns its outputs.

        Raises:
            RuntimeError: in a process that was forked after the graph was loaded.
        """
        check_process(self._pid, "OpenVINO")
        inputs = _split_batch(batch, self._batch)
        outputs: list[list[Array]] = [[] for _ in inputs]
        with self._request_pool(len(inputs)).acquire(len(inputs)) as requests:
            for start in range(0, len(inputs) + len(requests), len(requests)):
                for offset, request in enumerate(requests):
                    previous, index = start - len(requests) + offset, start + offset
                    if 0 <= previous < len(inputs):
                        request.wait()
                        outputs[previous] = [np.array(tensor.data) for tensor in request.output_tensors]
                    if index < len(inputs):
                        request.start_async({0: np.ascontiguousarray(inputs[index])})
        return _concatenate(outputs, len(batch))

    def _request_pool(self, count: int) -> "_RequestPool":
        if count == 1 or self._make_pair_pool is None:
            return self._single_pool
        with self._lock:
            if self._pair_pool is None:
                self._pair_pool = self._make_pair_pool()
            return self._pair_pool


def openvino_core() -> Any:
    """Returns the only OpenVINO core of this process, which is never destroyed.

    A core installs an alternate signal stack for the thread that creates it, and restores the previous one when it is
    destroyed. If two cores are destroyed in the order of their creation, the second restores a stack that no longer
    exists, and the next signal that Python handles crashes the process.

    Raises:
        RuntimeError: in a process that was forked after the core was created.
    """
    core, pid = _create_core()
    check_process(pid, "OpenVINO")
    return core


@functools.cache
def _create_core() -> tuple[Any, int]:
    """Creates the core, once; returns it with the number of this process."""
    return import_openvino().Core(), os.getpid()


def prefers_openvino() -> bool:
    """Returns whether "auto" selects OpenVINO for the networks of files on a CPU.

    It does if OpenVINO is installed, except in a process that was forked from one that uses it.

    Raises:
        ValueError: if the environment variable POSEDY_RUNTIME is neither "auto" nor "torch".
    """
    choice = os.environ.get("POSEDY_RUNTIME", "auto")
    if choice not in ("auto", "torch"):
        raise ValueError(f"expected the environment variable POSEDY_RUNTIME to be auto or torch, got {choice!r}")
    is_forked = _create_core.cache_info().currsize > 0 and _create_core()[1] != os.getpid()
    return choice == "auto" and is_installed("openvino") and not is_forked


def import_openvino() -> Any:
    """Imports OpenVINO without its telemetry, which otherwise reports each import and conversion over the network.

    It stays as it is if the user's own code has imported OpenVINO before.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # OpenVINO then uses its own stub
    import openvino

    return openvino


def _read_model(content: bytes) -> Any:
    try:
        return openvino_core().read_model(content)
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot load the graph: {error}") from error


class _RequestPool:
    """A graph compiled for a number of concurrent images, with inference requests that calls acquire exclusively."""

    def __init__(self, graph: Any, kernels: Constants, streams: int, threads: int) -> None:
        properties: dict[str, Any] = {
            # the default on CPUs with bfloat16 is bfloat16
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
        }
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = openvino_core().compile_model(graph, "CPU", properties)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot load the graph: {error}") from error
        devices = list(compiled.get_property("EXECUTION_DEVICES"))
        if devices != ["CPU"]:
            raise ValueError(f"expected OpenVINO to use CPU, got {', '.join(devices)}: check its installation")
        self._idle: queue.Queue[Any] = queue.Queue()
        for _ in range(streams):
            request = compiled.create_infer_request()
            for name, kernel in kernels.items():
                request.set_tensor(name, kernel)
            self._idle.put(request)

    @contextmanager
    def acquire(self, max_requests: int) -> Iterator[list[Any]]:
        """Acquires one request, waiting if necessary, and more if they are idle."""
        requests = [self._idle.get()]
        try:
            while len(requests) < max_requests:
                try:
                    requests.append(self._idle.get_nowait())
                except queue.Empty:
                    break
            yield requests
        finally:
            for request in requests:
                request.wait()
                self._idle.put(request)


def _split_batch(batch: Array, graph_batch: Batch) -> list[Array]:
    """Splits a batch into the inputs of a graph: single images if its batch size is 1.

    Graphs need an image: an empty batch is replaced by one of zeros, whose outputs `_concatenate` drops.
    """
    if len(batch) == 0:
        batch = np.zeros((1, *batch.shape[1:]), batch.dtype)
    return [batch] if graph_batch == "free" else [batch[index : index + 1] for index in range(len(batch))]


def _concatenate(outputs: list[list[Array]], count: int) -> list[Array]:
    """Concatenates the outputs of several calls along the batch, for a number of images."""
    if len(outputs) == 1:
        return [array[:count] for array in outputs[0]]
    return [np.concatenate(arrays) for arrays in zip(*outputs, strict=True)]


def is_installed(package: str) -> bool:
    """Returns whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def require(*packages: str) -> None:
    """Checks that packages are installed.

    Raises:
        ValueError: if a package is missing; the message has the command that installs it.
    """
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise ValueError(f"ONNX files need the package {missing[0]}: pip install 'posedy[export]'")

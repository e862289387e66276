"""Exported graphs run by ONNX Runtime or OpenVINO, for the estimator and for checks."""

import functools
import importlib.util
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from posedy.export.onnx_layers import Batch

Runtime = Literal["onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

Array = NDArray[Any]

GraphRunner = Callable[[Array], list[Array]]
"""Runs a graph: takes a batch and returns the arrays of its outputs, whose first axis is the batch.

Several threads may share one.
"""


def make_runner(
    model: bytes, batch: Batch, runtime: Runtime, device: torch.device | str = "cpu", threads: int = 0
) -> GraphRunner:
    """Loads a graph.

    Args:
        model: the content of an ONNX file.
        batch: "free" or 1; a graph of batch 1 is called once for each of a batch.
        runtime: what runs it.
        device: "cpu", or "cuda" with ONNX Runtime's GPU package.
        threads: that a call may use; 0 leaves it to the runtime.

    Raises:
        ValueError: if the runtime is unknown or not installed, it has not got the device, or it refuses the graph.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"a runtime is one of {list(RUNTIMES)}, got {runtime!r}")
    require(runtime)
    device = torch.device(device)
    if runtime == "openvino":
        return OpenVinoRunner(model, batch, device, threads)
    return OnnxRuntimeRunner(model, batch, device, threads)


def graph_device(name: str, runtime: str) -> torch.device:
    """The device of a name; "auto" is CUDA if ONNX Runtime has it, else the CPU.

    Raises:
        ValueError: if there is no such device.
    """
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError:
            raise ValueError(f"unknown device {name!r}: use auto, cpu or cuda") from None
    if runtime == "onnxruntime":
        require("onnxruntime")
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return torch.device("cuda")
    return torch.device("cpu")


class OnnxRuntimeRunner:
    """A graph in ONNX Runtime; see `make_runner`."""

    def __init__(self, model: bytes, batch: Batch, device: torch.device, threads: int = 0) -> None:
        import onnxruntime

        providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
        if device.type not in providers:
            raise ValueError(f"ONNX Runtime runs on cpu or cuda here, got device {str(device)!r}")
        provider = providers[device.type]
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(
                f"device {str(device)!r} needs {provider}, which this onnxruntime lacks (it has "
                f"{', '.join(onnxruntime.get_available_providers())}): install onnxruntime-gpu, or use device='cpu'"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # what is wrong comes as an exception
        chosen: Any = (provider, {"device_id": device.index or 0}) if device.type == "cuda" else provider
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[chosen])
        except Exception as error:  # its exceptions have no base of their own
            raise ValueError(f"ONNX Runtime refuses the graph: {error}") from error
        # It falls back to the CPU without a word where a provider does not start.
        check_provider(self._session.get_providers(), provider)
        self._batch = batch
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Array) -> list[Array]:
        """The outputs of a batch."""
        parts = _parts(batch, self._batch)
        return _joined([self._session.run(None, {self._input: np.ascontiguousarray(part)}) for part in parts])


def check_provider(providers: Sequence[str], wanted: str) -> None:
    """Makes sure that a session runs where it was asked to.

    Raises:
        ValueError: if its first provider is another.
    """
    if not providers or providers[0] != wanted:
        raise ValueError(
            f"ONNX Runtime was asked for {wanted} and took {', '.join(providers) or 'none'}: check its set-up"
        )


class OpenVinoRunner:
    """A graph in OpenVINO on the CPU; see `make_runner`.

    A graph of batch 1 takes one image with all threads, and of several two at a time, each with half of the threads: it
    is compiled for that when they first come.
    """

    def __init__(self, model: bytes, batch: Batch, device: torch.device, threads: int = 0) -> None:
        if device.type != "cpu":
            raise ValueError(f"OpenVINO runs on the CPU here, got device {str(device)!r}: use device='cpu'")
        self._batch = batch
        self._alone = _Requests(model, 1, threads)
        self._make_pair = functools.partial(_Requests, model, 2, threads) if batch == 1 and threads != 1 else None
        self._pair: _Requests | None = None
        self._lock = threading.Lock()

    def __call__(self, batch: Array) -> list[Array]:
        """The outputs of a batch."""
        parts = _parts(batch, self._batch)
        outputs: list[list[Array]] = [[] for _ in parts]
        with self._requests(len(parts)).borrowed(len(parts)) as requests:
            for start in range(0, len(parts) + len(requests), len(requests)):
                for offset, request in enumerate(requests):
                    done, next_ = start - len(requests) + offset, start + offset
                    if 0 <= done < len(parts):
                        request.wait()
                        outputs[done] = [np.array(tensor.data) for tensor in request.output_tensors]
                    if next_ < len(parts):
                        request.start_async({0: np.ascontiguousarray(parts[next_])})
        return _joined(outputs)

    def _requests(self, parts: int) -> "_Requests":
        if parts == 1 or self._make_pair is None:
            return self._alone
        with self._lock:
            if self._pair is None:
                self._pair = self._make_pair()
            return self._pair


@functools.cache
def _openvino_core() -> Any:
    """OpenVINO's only core in this process, which lives as long as it does.

    A core gives the thread that makes it a stack for signal handlers, and the stack from before back when it goes. Of
    two that go in the order in which they came the second gives back a stack that is no more, and the next signal that
    Python handles ends the process.
    """
    import openvino

    return openvino.Core()


class _Requests:
    """A graph compiled for a number of images at a time; requests hold their own memory, so calls borrow them."""

    def __init__(self, model: bytes, streams: int, threads: int) -> None:
        properties: dict[str, Any] = {
            # CPUs that have bfloat16 would use it
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
        }
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        core = _openvino_core()
        try:
            compiled = core.compile_model(core.read_model(model), "CPU", properties)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO refuses the graph: {error}") from error
        devices = list(compiled.get_property("EXECUTION_DEVICES"))
        if devices != ["CPU"]:
            raise ValueError(f"OpenVINO was asked for CPU and took {', '.join(devices)}: check its set-up")
        self._idle: queue.Queue[Any] = queue.Queue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    @contextmanager
    def borrowed(self, most: int) -> Iterator[list[Any]]:
        """One request, waited for, and more of those that are idle."""
        requests = [self._idle.get()]
        try:
            while len(requests) < most:
                try:
                    requests.append(self._idle.get_nowait())
                except queue.Empty:
                    break
            yield requests
        finally:
            for request in requests:
                request.wait()
                self._idle.put(request)


def _parts(batch: Array, of: Batch) -> list[Array]:
    """A batch as a graph takes it, whole or one by one."""
    return [batch] if of == "free" else [batch[index : index + 1] for index in range(len(batch))]


def _joined(outputs: list[list[Array]]) -> list[Array]:
    """The outputs of parts of a batch as those of the batch."""
    if len(outputs) == 1:
        return outputs[0]
    return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def require(*packages: str) -> None:
    """Makes sure that packages are installed.

    Raises:
        ValueError: if one is missing; the message says how to install it.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(f"ONNX files need the package {missing[0]}: pip install 'posedy[export]'")

"""Conversion of networks to OpenVINO graphs, which are kept in the user's cache folder.

A conversion takes seconds, and reading a converted graph takes a few hundredths of a second. A graph depends on the
network's record and tensors, on the code of its layers and on the versions of torch and OpenVINO: all of them are part
of the name under which the graph is kept. An unreadable or unwritable cache only costs time.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Graph

from posedy.export.graph_file import GraphInfo
from posedy.export.onnx_layers import prepare_for_export
from posedy.export.runtimes import GraphRunner, OpenVinoRunner, Runtime, import_openvino, openvino_core, require
from posedy.export.tracing import random_inputs, relative_difference, silence_exporter, smooth_inputs
from posedy.files import file_digest, user_cache_folder
from posedy.models.network_file import network_record
from posedy.models.pose_net import PoseNet

TOLERANCE = 1e-4
"""Largest allowed difference from PyTorch, relative to the largest output."""

_LOGGER = logging.getLogger("posedy")
_MAX_CACHED_GRAPHS = 8
_MAX_COMPILED_SIZES = 8
_FILES = ("graph.xml", "graph.bin")
_DIGESTS = "digests.json"
# classes of other packages may change without a change of the network's record
_KNOWN_PACKAGES = ("posedy", "torch", "torchvision", "timm")
_CONVERSION_LOCK = threading.Lock()  # tracing is not thread-safe


def load_network_graph(net: PoseNet, keep: bool = True) -> tuple[GraphRunner, GraphInfo, torch.device, Runtime]:
    """Loads a pose network into OpenVINO on the CPU: its runner, its metadata, its device and its runtime.

    Args:
        net: the network in evaluation mode, on the CPU.
        keep: whether to read the converted graph from the cache and write it there.

    Raises:
        ValueError: if OpenVINO is not installed, does not support the network, or computes other outputs.
    """
    key = network_key(net.state_dict(), network_record(net)) if keep and has_known_classes(net) else None
    inputs = [random_inputs(net, decodes=False, size=1), smooth_inputs(net, decodes=False, size=1)]
    graph = convert(net.name, lambda: prepare_for_export(net, 1, "openvino"), net, inputs, key)
    device = torch.device("cpu")
    runner = OpenVinoRunner(graph, 1, device, torch.get_num_threads())
    return runner, GraphInfo.from_network(net, batch=1, runtime="openvino"), device, "openvino"


def convert(
    name: str,
    make_module: Callable[[], nn.Module],
    reference: Callable[[Tensor], Any],
    inputs: Sequence[Tensor],
    key: str | None,
    has_free_size: bool = False,
) -> Any:
    """Returns the OpenVINO graph of a module, from the cache or converted and verified.

    OpenVINO converts an exported program, too, but decomposes its operators first; with the export this takes more than
    twice as long as tracing the decomposed operators at once, which suffices for a graph that is verified.

    Args:
        name: the name of the network in messages.
        make_module: returns the module to convert; it is not called if the graph is in the cache.
        reference: computes the outputs that are expected of the graph.
        inputs: the shape of the first is the graph's; the outputs are verified on all.
        key: the name of the graph in the cache; None does not use the cache.
        has_free_size: whether height and width of the graph are free, see `FreeSizeRunner`. The module is traced with
            the shape of the first input; `inputs` need another shape too, for which a size that the trace has as a
            constant would give wrong outputs.

    Raises:
        ValueError: if OpenVINO is not installed, does not support the module, or computes other outputs.
    """
    require("openvino")
    openvino = import_openvino()
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    openvino_core()  # raises an error in a forked process, in which OpenVINO would hang
    with _CONVERSION_LOCK:
        cached = _read(key) if key is not None else None
        if cached is not None:
            return cached
        _LOGGER.info("converting %s to OpenVINO, which takes some seconds", name)
        from torch.fx.experimental.proxy_tensor import make_fx  # imports much, of which reading a graph needs nothing

        try:
            with silence_exporter(), torch.no_grad():
                operators = make_fx(make_module().eval().requires_grad_(False))(inputs[0])
            if has_free_size:
                _upsample_by_scales(operators.graph)
            graph = openvino.convert_model(TorchFXPythonDecoder(operators, dynamic_shapes=True))
            shape = list(inputs[0].shape)
            graph.reshape([*shape[:2], -1, -1] if has_free_size else shape)
        except Exception as error:  # torch and OpenVINO raise many types
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"OpenVINO does not support {name}: {reason}") from error
        _verify(graph, reference, inputs)
        if key is not None:
            _write(graph, key, name)
        return graph


class FreeSizeRunner:
    """Runs a graph whose height and width are free; it is compiled for each size at its first use.

    Args:
        graph: an `openvino.Model` with one input (1, C, H, W).
        threads: number of threads; 0 is the runtime's default.
    """

    def __init__(self, graph: Any, threads: int = 0) -> None:
        self._graph, self._threads = graph, threads
        self._runner = functools.lru_cache(maxsize=_MAX_COMPILED_SIZES)(self._compile)

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Runs the graph on a batch (N, C, H, W) and returns its outputs."""
        return self._runner(batch.shape[1:])(batch)

    def _compile(self, shape: tuple[int, ...]) -> GraphRunner:
        graph = self._graph.clone()
        graph.reshape([1, *shape])
        return OpenVinoRunner(graph, 1, torch.device("cpu"), self._threads)


def has_known_classes(module: nn.Module) -> bool:
    """Returns whether all layers are of posedy, torch, torchvision or timm, so that a record describes them."""
    return all(type(layer).__module__.partition(".")[0] in _KNOWN_PACKAGES for layer in module.modules())


def network_key(tensors: dict[str, Tensor], record: dict[str, Any]) -> str:
    """Returns the name of a graph in the cache: a hash of tensors, record, code and versions of packages."""
    digest = hashlib.sha256(json.dumps([record, *_versions()], sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


@functools.cache
def _versions() -> tuple[str, ...]:
    """Returns the versions of the packages, and a hash of the code that defines and converts the layers."""
    packages = [name for name in ("torch", "torchvision", "timm", "openvino") if importlib.util.find_spec(name)]
    code = hashlib.sha256()
    root = Path(__file__).parents[1]
    for file in sorted([*(root / "models").rglob("*.py"), *(root / "export").glob("*.py")]):
        code.update(file.read_bytes())
    return (*(f"{name} {importlib.metadata.version(name)}" for name in packages), code.hexdigest())


def _upsample_by_scales(graph: Graph) -> None:
    """Replaces bilinear upsampling to sizes, which are constants of a trace, by upsampling by its scales."""
    upsample = torch.ops.aten.upsample_bilinear2d
    for node in graph.find_nodes(op="call_function", target=upsample.default):
        features, _, aligns_corners, *scales = node.args
        node.target, node.args = upsample.vec, (features, None, aligns_corners, scales)


def _verify(graph: Any, reference: Callable[[Tensor], Any], inputs: Sequence[Tensor]) -> None:
    """Compares the outputs of a graph and a module.

    Raises:
        ValueError: if they differ by more than the tolerance, or the graph cannot run.
    """
    request = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    for images in inputs:
        with torch.no_grad():
            outputs = reference(images)
        expected = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        try:
            request.infer({0: images.numpy()})
        except RuntimeError as error:
            shape, reason = tuple(images.shape), str(error).splitlines()[0]
            raise ValueError(f"OpenVINO cannot run the network on images of shape {shape}: {reason}") from error
        for tensor, wanted in zip(request.output_tensors, expected, strict=True):
            difference = relative_difference(torch.from_numpy(tensor.data), wanted)
            if difference > TOLERANCE:
                raise ValueError(
                    f"OpenVINO's output differs from PyTorch's by {difference:.1e} of the largest output (allowed: "
                    f"{TOLERANCE:.0e})"
                )


def _cache_folder() -> Path:
    return user_cache_folder("openvino")


def _read(key: str) -> Any:
    """Reads a graph from the cache; None if it is absent, incomplete or changed."""
    try:
        folder = _cache_folder() / key
        digests = json.loads((folder / _DIGESTS).read_bytes())
        if digests != [file_digest(folder / name) for name in _FILES]:
            return None
        (folder / _DIGESTS).touch()
        return openvino_core().read_model(folder / _FILES[0])
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home folder, or OpenVINO's
        _LOGGER.debug("no converted graph %s in the cache: %s", key, error)
        return None


def _write(graph: Any, key: str, name: str) -> None:
    """Writes a graph to the cache as a whole folder, and deletes the graphs that were used longest ago."""
    temporary = None
    try:
        cache = _cache_folder()
        temporary = cache / f".{key}-{secrets.token_hex(4)}"
        temporary.mkdir(parents=True)
        import_openvino().save_model(graph, temporary / _FILES[0], compress_to_fp16=False)
        (temporary / _DIGESTS).write_text(json.dumps([file_digest(temporary / name) for name in _FILES]))
        shutil.rmtree(cache / key, ignore_errors=True)
        temporary.rename(cache / key)
        kept = sorted(cache.glob(f"*/{_DIGESTS}"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in kept[_MAX_CACHED_GRAPHS:]:
            shutil.rmtree(file.parent, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        _LOGGER.warning("%s will be converted again by the next program, as the graph cannot be kept: %s", name, error)
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary)

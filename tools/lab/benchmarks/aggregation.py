"""Benchmark of how the K kernels of dynamic 1x1 convolutions are stored and aggregated in exported graphs.

A chain of layers, whose kernels exceed the caches, is timed in each form, relative to static convolutions. Bytes show
whether a runtime keeps kernels in float16 or int8 compressed: they are those of all large constants and inputs of the
graph after the runtime has optimized it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from posedy.export.compressed_constants import lift_compressed_kernels
from posedy.export.onnx import trace
from posedy.export.onnx_layers import MIN_SUMMED_VALUES, prepare_for_export
from posedy.export.onnx_weights import Weights, store_weights
from posedy.export.runtimes import OpenVinoRunner, import_openvino, make_runner, openvino_core
from posedy.models.dynamic_conv import DynamicConv2d
from tools.lab.benchmarks.ratios import format_milliseconds, format_ratio, measure_interleaved, milliseconds, ratio
from tools.lab.benchmarks.subprocesses import run_in_subprocess

RUNTIMES = ("openvino", "onnxruntime")
FORMS: dict[str, tuple[str, Weights]] = {
    "static": ("static", "float32"),
    "product, float32": ("product", "float32"),
    "sum, float32": ("sum", "float32"),
    "sum, float16 constants": ("sum", "float16"),
    "sum, float16 inputs": ("sum", "float16"),
    "sum, int8 constants": ("sum", "int8"),
    "sum, int8 inputs": ("sum", "int8"),
}
"""Aggregation and storage of kernels by name; "static" are static convolutions.

Inputs are how posedy runs files with compressed kernels in OpenVINO; ONNX Runtime is not measured with them.
"""
_CHANNELS, _HEIGHT, _WIDTH = (320, 960), 8, 6


def benchmark_aggregation(
    pairs: int = 6,
    threads: Sequence[int] = (1,),
    rounds: int = 9,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times a chain of 1x1 convolutions from 320 to 960 channels and back, of 8x6 pixels, in each form and runtime.

    Args:
        pairs: number of pairs of layers; one pair has 9.8 MB of kernels in float32.
        threads: numbers of threads.
        rounds: number of measurements of each.
        log: receives progress messages.

    Returns:
        The result in plain types: one row per form, runtime and number of threads.
    """
    rows = []
    for runtime in RUNTIMES:
        for count in threads:
            log(f"timing {runtime} on {count} thread(s)")
            task = {"pairs": pairs, "runtime": runtime, "threads": count, "rounds": rounds}
            rows += run_in_subprocess(time_forms, task)
    return {"pairs": pairs, "rounds": rounds, "rows": rows}


def time_forms(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Times all forms of a task in one runtime in this process, and returns their rows."""
    runtime, threads = task["runtime"], task["threads"]
    x = torch.randn(1, _CHANNELS[0], _HEIGHT, _WIDTH, generator=torch.Generator().manual_seed(0)).numpy()
    calls: dict[str, Callable[[], object]] = {}
    sizes = {}
    for name, (aggregation, weights) in FORMS.items():
        if runtime == "onnxruntime" and name.endswith("inputs"):
            continue
        content = _graph(aggregation, task["pairs"], weights)
        if runtime == "onnxruntime":
            runner = make_runner(content, 1, "onnxruntime", threads=threads)
            calls[name] = lambda runner=runner: runner(x)  # type: ignore[misc]
            sizes[name] = _bytes_in_onnxruntime(content)
        else:
            graph = openvino_core().read_model(content)
            if name.endswith("constants"):
                calls[name], sizes[name] = _openvino_call(graph, x, threads)
            else:
                runner = OpenVinoRunner(graph, 1, torch.device("cpu"), threads)
                calls[name] = lambda runner=runner: runner(x)  # type: ignore[misc]
                _, sizes[name] = _openvino_call(lift_compressed_kernels(graph)[0], x, threads)
    seconds = measure_interleaved(calls, task["rounds"])
    return [
        {
            "form": name,
            "runtime": runtime,
            "threads": threads,
            "milliseconds": milliseconds(times),
            "to_static": ratio(times, seconds["static"]),
            "bytes": sizes[name],
        }
        for name, times in seconds.items()
    ]


def _graph(aggregation: str, pairs: int, weights: Weights) -> bytes:
    """Returns an ONNX graph of the chain with random weights."""
    import onnx

    torch.manual_seed(0)
    narrow, wide = _CHANNELS
    layers = [layer for _ in range(pairs) for layer in ((narrow, wide), (wide, narrow))]
    chain = nn.Sequential(
        *(nn.Conv2d(*sizes, 1) if aggregation == "static" else DynamicConv2d(*sizes, 1) for sizes in layers)
    ).eval()
    # the exported layers of OpenVINO sum, those of ONNX Runtime multiply
    module = prepare_for_export(chain, 1, "openvino" if aggregation == "sum" else "onnxruntime")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "chain.onnx"
        trace(module.requires_grad_(False), torch.randn(1, narrow, _HEIGHT, _WIDTH), path)
        model = onnx.load(path)
    store_weights(model, weights)
    return model.SerializeToString()


def _openvino_call(graph: Any, x: np.ndarray, threads: int) -> tuple[Callable[[], object], dict[str, int]]:
    """Compiles a graph as it is; returns a call and the bytes of its large constants and inputs by type."""
    properties = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino_core().compile_model(graph, "CPU", properties)
    request = compiled.create_infer_request()
    image = import_openvino().Tensor(x)
    sizes: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ops():
        if node.get_rt_info()["layerType"].astype(str) in ("Const", "Input") and node.output(0).partial_shape.is_static:
            values = int(np.prod(node.output(0).shape))
            if values >= MIN_SUMMED_VALUES:
                kind = node.output(0).get_element_type()
                sizes[kind.get_type_name()] = sizes.get(kind.get_type_name(), 0) + values * kind.size
    return lambda: request.infer([image]), sizes


def _bytes_in_onnxruntime(content: bytes) -> dict[str, int]:
    """Returns the bytes of the large constants of a graph by type, after ONNX Runtime has optimized it."""
    import onnx
    import onnxruntime

    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    sizes: dict[str, int] = {}
    for tensor in model.graph.initializer:
        values = int(np.prod(tensor.dims))
        if values >= MIN_SUMMED_VALUES:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            sizes[kind.name] = sizes.get(kind.name, 0) + values * kind.itemsize
    return sizes


def format_aggregation(report: Mapping[str, Any]) -> str:
    """Formats the result as a Markdown table."""
    lines = [
        "| runtime | threads | kernels | ms (quartiles) | relative to static | large constants and inputs, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        sizes = ", ".join(f"{kind} {size / 1e6:.0f}" for kind, size in sorted(row["bytes"].items()))
        lines.append(
            f"| {row['runtime']} | {row['threads']} | {row['form']} | {format_milliseconds(row['milliseconds'])} | "
            f"{format_ratio(row['to_static'])} | {sizes} |"
        )
    return "\n".join(lines)

"""Latency benchmark of networks in each runtime, compared with their static counterparts and a ResNet-50.

Each runtime is measured in a separate process, because idle threads of one runtime that spin slow down another. Within
a process, the measurements are interleaved, and ratios are computed within a round.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from posedy.export.fuse import fuse
from posedy.export.onnx_weights import Weights
from posedy.export.runtimes import Runtime, require
from posedy.models.conversion import static_name
from posedy.models.factory import create_backbone, create_model
from posedy.system import supports_bf16
from tools.lab.benchmarks.ratios import (
    format_milliseconds,
    format_ratio,
    measure_interleaved,
    milliseconds,
    ratio,
)
from tools.lab.benchmarks.reference_models import grouped_dynamic_model, simple_baseline
from tools.lab.benchmarks.subprocesses import run_in_subprocess

_GRAPHS: dict[str, tuple[Runtime, Weights]] = {
    "onnxruntime": ("onnxruntime", "float32"),
    "openvino": ("openvino", "float32"),
    "openvino_float16": ("openvino", "float16"),
    "openvino_int8": ("openvino", "int8"),
}
RUNTIMES = ("fused", "grouped", "training", "training_bf16", *_GRAPHS)
"""Runtimes of the benchmark.

- fused: `posedy.export.fuse`; static networks have folded norms and channels_last, too.
- grouped: the common implementation of dynamic convolution, a grouped convolution over the batch, with nothing fused;
  the ratio is to the fused static counterpart.
- training: forward and backward of a batch of 32 in training mode; training_bf16 in bfloat16, skipped on CPUs without
  native support.
- onnxruntime, openvino: exported graphs of batch size 1, called once per crop; openvino_float16 and openvino_int8 store
  weights in these types and compute in float32, which changes the time of dynamic networks only.
"""
RESNET = "resnet50-deconv"
MODELS = ("dy_mobilenetv2_050", "dy_mobilenetv2_100", "dy_mobilenetv2_100-fpn")
_HEIGHT, _WIDTH = 256, 192
_TRAINING_BATCH = 32
_TRAINING = ("training", "training_bf16")

Call = Callable[[], object]


def benchmark_latency(
    models: Sequence[str] = MODELS,
    runtimes: Sequence[str] = RUNTIMES,
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1, 2),
    rounds: int = 5,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times dynamic networks, their static counterparts and SimpleBaseline's ResNet-50, with random weights at 256x192.

    Args:
        models: names of dynamic networks or backbones.
        runtimes: a subset of `RUNTIMES`.
        batches: batch sizes.
        threads: numbers of threads of a runtime.
        rounds: number of measurements of each network.
        log: receives progress messages.

    Returns:
        The result in plain types: one row per network, runtime, batch size and number of threads.

    Raises:
        ValueError: if a model or a runtime is unknown, or a runtime is not installed.
    """
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown:
        raise ValueError(f"expected runtimes to be of {', '.join(RUNTIMES)}, got {unknown[0]!r}")
    for name in models:
        if not name.startswith("dy_"):
            raise ValueError(f"expected the name of a dynamic network (dy_...), got {name!r}")
        _create(name)
    rows = []
    with TemporaryDirectory() as folder:
        for runtime in runtimes:
            if runtime == "training_bf16" and not supports_bf16(torch.device("cpu")):
                log("skipping training_bf16: this CPU has no native bfloat16 support")
                continue
            files = _export(models, runtime, Path(folder), log) if runtime in _GRAPHS else {}
            for count in threads:
                log(f"timing {runtime} on {count} thread(s)")
                task = {
                    "models": list(models),
                    "runtime": runtime,
                    "batches": [_TRAINING_BATCH] if runtime in _TRAINING else list(batches),
                    "threads": count,
                    "rounds": rounds,
                    "files": files,
                }
                rows += run_in_subprocess(time_runtime, task)
    return {"rounds": rounds, "input": f"{_HEIGHT}x{_WIDTH}", "rows": rows}


def _create(name: str) -> nn.Module:
    if name == RESNET:
        return simple_baseline()
    return (create_model if "-" in name else create_backbone)(name).eval()


def _export(models: Sequence[str], runtime: str, folder: Path, log: Callable[[str], None]) -> dict[str, str]:
    """Exports networks, their static counterparts and the ResNet-50 for a runtime; returns the files by name."""
    import onnx

    from posedy.export.onnx import trace
    from posedy.export.onnx_layers import prepare_for_export
    from posedy.export.onnx_weights import store_weights

    require("onnx", "onnxscript")
    files = {}
    for name in (*(name for model in models for name in (model, static_name(model))), RESNET):
        log(f"exporting {name} for {runtime}")
        path = folder / f"{name}-{runtime}.onnx"
        engine, weights = _GRAPHS[runtime]
        module = prepare_for_export(_create(name), 1, engine)
        trace(module, torch.randn(1, 3, _HEIGHT, _WIDTH), path)
        model = onnx.load(path)
        store_weights(model, weights)
        onnx.save(model, path)
        files[name] = str(path)
    return files


def time_runtime(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Times all networks of a task, in one runtime, in this process and returns their rows."""
    rows = []
    for batch in task["batches"]:
        calls = _calls(task, batch)
        seconds = measure_interleaved(calls, task["rounds"])
        for name, times in seconds.items():
            counterpart = static_name(name) if name.startswith("dy_") else None
            row = {
                "model": name,
                "runtime": task["runtime"],
                "batch": batch,
                "threads": task["threads"],
                "milliseconds": milliseconds(times),
            }
            if counterpart is not None:
                row["to_static"] = ratio(times, seconds[counterpart])
            if RESNET in seconds and name != RESNET:
                row["resnet_to_this"] = ratio(seconds[RESNET], times)
            rows.append(row)
    return rows


def _calls(task: Mapping[str, Any], batch: int) -> dict[str, Call]:
    names = list(dict.fromkeys(name for model in task["models"] for name in (static_name(model), model)))
    runtime = task["runtime"]
    if runtime in _TRAINING:
        return {name: _training_call(_create(name), batch, is_mixed=runtime == "training_bf16") for name in names}
    names.append(RESNET)
    x = torch.randn(batch, 3, _HEIGHT, _WIDTH)
    if runtime in _GRAPHS:
        return {name: _graph_call(task["files"][name], runtime, x.numpy(), task["threads"]) for name in names}
    calls: dict[str, Call] = {}
    for name in names:
        net = _create(name)
        is_grouped = runtime == "grouped" and name.startswith("dy_")
        net = grouped_dynamic_model(net) if is_grouped else fuse(net)
        calls[name] = _eager_call(net, x if is_grouped else x.contiguous(memory_format=torch.channels_last))
    return calls


def _eager_call(net: nn.Module, x: torch.Tensor) -> Call:
    return torch.inference_mode()(lambda: net(x))


def _training_call(net: nn.Module, batch: int, is_mixed: bool) -> Call:
    net.train()
    x = torch.randn(batch, 3, _HEIGHT, _WIDTH)

    def step() -> None:
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            y = net(x)
        y.backward(torch.ones_like(y))

    return step


def _graph_call(file: str, runtime: str, x: np.ndarray, threads: int) -> Call:
    from posedy.export.runtimes import make_runner

    runner = make_runner(Path(file).read_bytes(), 1, _GRAPHS[runtime][0], threads=threads)
    return lambda: runner(x)


def format_latency(report: Mapping[str, Any]) -> str:
    """Formats the result as a Markdown table: milliseconds, time relative to the static counterpart and speedup."""
    lines = [
        "| runtime | threads | batch | network | ms (quartiles) | relative to static | speedup over ResNet-50 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        ms, to_static, resnet = row["milliseconds"], row.get("to_static"), row.get("resnet_to_this")
        lines.append(
            f"| {row['runtime']} | {row['threads']} | {row['batch']} | {row['model']} | "
            f"{format_milliseconds(ms)} | {format_ratio(to_static)} | {format_ratio(resnet)} |"
        )
    return "\n".join(lines)


def plot_latency(report: Mapping[str, Any], path: Path) -> None:
    """Plots the times relative to the static counterparts as bars, by runtime, batch size and number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in report["rows"] if "to_static" in row]
    names = list(dict.fromkeys(row["model"] for row in rows))
    settings = list(dict.fromkeys((row["runtime"], row["batch"], row["threads"]) for row in rows))
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.34 * len(settings)), layout="constrained")
    height = 0.8 / max(len(names), 1)
    for index, name in enumerate(names):
        values = {
            (row["runtime"], row["batch"], row["threads"]): row["to_static"]["median"]
            for row in rows
            if row["model"] == name
        }
        bars = [(row + index * height, values[setting]) for row, setting in enumerate(settings) if setting in values]
        axes.barh([y for y, _ in bars], [value for _, value in bars], height, label=name)
    axes.set_yticks(
        [row + 0.4 - height / 2 for row in range(len(settings))],
        [f"{runtime}, batch {batch}, {threads} thread{'s' * (threads > 1)}" for runtime, batch, threads in settings],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("time relative to the static counterpart")
    figure.legend(fontsize="small", loc="outside upper center", ncols=len(names))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

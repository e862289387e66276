"""How long networks take for a batch of crops in each runtime, beside their static twins and a ResNet-50.

Each runtime has a process of its own, since the threads of one that wait for work take the time of another's. Within
it the networks take turns, and a ratio is that of a turn to its twin's in the same round.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from posedy.export.fuse import fuse
from posedy.models.conversion import static_name
from posedy.models.registry import create_backbone, create_model
from posedy.system import computes_bf16, keep_freed_memory
from tools.lab.benchmarks.ratios import ratio
from tools.lab.benchmarks.rivals import simple_baseline, usual_dynamic

RUNTIMES = ("fused", "usual", "training", "training_bf16", "onnxruntime", "openvino")
"""What networks are timed in.

- fused: `posedy.export.fuse`, static networks with folded norms in channels_last too.
- usual: dynamic convolution as it is usually written, batches folded into groups and nothing else folded; the ratio is
  to the fused static twin, timed beside it.
- training: forward and backward of a batch of 32, both twins as they train; training_bf16 in bfloat16, left out on CPUs
  that do not compute in it.
- onnxruntime, openvino: exported graphs of batch 1, called once for each crop.
"""
RESNET = "resnet50-deconv"
MODELS = ("dy_mobilenetv2_050-dy_bneck", "dy_mobilenetv2_050", "dy_mobilenetv2_100")
_HEIGHT, _WIDTH = 256, 192
_TRAINING_BATCH = 32
_TURN = 0.25  # seconds that a network's turn takes about
_GRAPHS = ("onnxruntime", "openvino")
_TRAINING = ("training", "training_bf16")

Call = Callable[[], object]


def benchmark_latency(
    models: Sequence[str] = MODELS,
    runtimes: Sequence[str] = RUNTIMES,
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1, 2),
    rounds: int = 5,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times dynamic networks, their static twins and SimpleBaseline's ResNet-50, with random weights at 256x192.

    Args:
        models: dynamic networks or backbones.
        runtimes: of `RUNTIMES`.
        batches: numbers of crops.
        threads: that a runtime may use.
        rounds: turns of each network.
        say: is told what is being timed.

    Returns:
        The numbers, in plain types: a row for each network, runtime, batch and number of threads.

    Raises:
        ValueError: if a model or a runtime is unknown, or a runtime is not installed.
    """
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown:
        raise ValueError(f"runtimes are {', '.join(RUNTIMES)}, got {unknown[0]!r}")
    for name in models:
        if not name.startswith("dy_"):
            raise ValueError(f"dynamic networks are timed beside their static twins, got {name!r}: name a dy_ model")
        _create(name)
    rows = []
    with TemporaryDirectory() as folder:
        files = _export(models, Path(folder), say) if set(runtimes) & set(_GRAPHS) else {}
        for runtime in runtimes:
            if runtime == "training_bf16" and not computes_bf16(torch.device("cpu")):
                say("leaving out training_bf16: this CPU does not compute in bfloat16 by itself")
                continue
            for count in threads:
                say(f"timing {runtime} on {count} thread(s)")
                task = {
                    "models": list(models),
                    "runtime": runtime,
                    "batches": [_TRAINING_BATCH] if runtime in _TRAINING else list(batches),
                    "threads": count,
                    "rounds": rounds,
                    "files": files,
                }
                rows += _in_a_process(task)
    return {"rounds": rounds, "input": f"{_HEIGHT}x{_WIDTH}", "rows": rows}


def _create(name: str) -> nn.Module:
    if name == RESNET:
        return simple_baseline()
    return (create_model if "-" in name else create_backbone)(name).eval()


def _export(models: Sequence[str], folder: Path, say: Callable[[str], None]) -> dict[str, str]:
    from posedy.export.onnx import trace
    from posedy.export.onnx_layers import exportable
    from posedy.export.runtimes import require

    require("onnx", "onnxscript")
    files = {}
    for name in (*(name for model in models for name in (model, static_name(model))), RESNET):
        say(f"exporting {name}")
        files[name] = str(folder / f"{name}.onnx")
        trace(exportable(_create(name), batch=1), torch.randn(1, 3, _HEIGHT, _WIDTH), Path(files[name]))
    return files


def _in_a_process(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    environment = os.environ | {"OMP_NUM_THREADS": str(task["threads"]), "POSEDY_LATENCY": json.dumps(task)}
    command = [sys.executable, "-c", "from tools.lab.benchmarks.latency import run_task; run_task()"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"timing {task['runtime']} failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


def run_task() -> None:
    """What the process of a runtime does: times, and prints rows as JSON."""
    task = json.loads(os.environ["POSEDY_LATENCY"])
    keep_freed_memory()
    torch.set_num_threads(task["threads"])
    rows = []
    for batch in task["batches"]:
        calls = _calls(task, batch)
        seconds = _take_turns(calls, task["rounds"])
        for name, taken in seconds.items():
            reference = static_name(name) if name.startswith("dy_") else None
            row = {
                "model": name,
                "runtime": task["runtime"],
                "batch": batch,
                "threads": task["threads"],
                "milliseconds": dict(
                    zip(("low", "median", "high"), np.quantile(taken, [0.25, 0.5, 0.75]) * 1e3, strict=True)
                ),
            }
            if reference is not None:
                row["to_static"] = ratio(taken, seconds[reference])
            if RESNET in seconds and name != RESNET:
                row["resnet_to_this"] = ratio(seconds[RESNET], taken)
            rows.append(row)
    print(json.dumps(rows))


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
        is_usual = runtime == "usual" and name.startswith("dy_")
        net = usual_dynamic(net) if is_usual else fuse(net)
        calls[name] = _eager_call(net, x if is_usual else x.contiguous(memory_format=torch.channels_last))
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

    runner = make_runner(Path(file).read_bytes(), 1, runtime, threads=threads)  # type: ignore[arg-type]
    return lambda: runner(x)


def _take_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of a call of each, by rounds; the order is turned round in every other round."""
    repeats = {}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        repeats[name] = max(1, min(100, round(_TURN / (time.perf_counter() - began))))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds):
        for name in list(calls)[:: 1 if index % 2 == 0 else -1]:
            taken = []
            for _ in range(repeats[name]):
                began = time.perf_counter()
                calls[name]()
                taken.append(time.perf_counter() - began)
            seconds[name].append(float(np.median(taken)))
    return seconds


def format_latency(numbers: Mapping[str, Any]) -> str:
    """A Markdown table: milliseconds, times of the static twin, and how many times as fast as the ResNet-50."""
    lines = [
        "| runtime | threads | batch | network | ms (quartiles) | of its static twin | faster than ResNet-50 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in numbers["rows"]:
        ms, twin, resnet = row["milliseconds"], row.get("to_static"), row.get("resnet_to_this")
        lines.append(
            f"| {row['runtime']} | {row['threads']} | {row['batch']} | {row['model']} | "
            f"{ms['median']:.1f} ({ms['low']:.1f} to {ms['high']:.1f}) | {_cell(twin)} | {_cell(resnet)} |"
        )
    return "\n".join(lines)


def _cell(measured: Mapping[str, float] | None) -> str:
    if measured is None:
        return "-"
    return f"{measured['median']:.2f} ({measured['quartile_low']:.2f} to {measured['quartile_high']:.2f})"


def draw_latency(numbers: Mapping[str, Any], path: Path) -> None:
    """Draws the ratios to the static twins as bars, for each runtime, batch and number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in numbers["rows"] if "to_static" in row]
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
        places = [
            (place + index * height, values[setting]) for place, setting in enumerate(settings) if setting in values
        ]
        axes.barh([place for place, _ in places], [value for _, value in places], height, label=name)
    axes.set_yticks(
        [place + 0.4 - height / 2 for place in range(len(settings))],
        [f"{runtime}, batch {batch}, {threads} thread{'s' * (threads > 1)}" for runtime, batch, threads in settings],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("time in times of the static twin's")
    figure.legend(fontsize="small", loc="outside upper center", ncols=len(names))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

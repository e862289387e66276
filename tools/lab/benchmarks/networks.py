"""Benchmark of pose networks in the runtimes that posedy chooses from on a CPU, relative to one of them.

A call is that of a loaded model on crops: normalization and network, without the flip test and decoding. All calls of a
runtime, batch size and number of threads are interleaved in one process, and ratios are computed within a round.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet
from posedy.models.registry import list_pretrained
from posedy.prediction import load_model
from tools.lab.benchmarks.ratios import format_milliseconds, format_ratio, measure_interleaved, milliseconds, ratio
from tools.lab.benchmarks.reference_models import simple_baseline
from tools.lab.benchmarks.subprocesses import run_in_subprocess

RUNTIMES = ("torch", "openvino")
RESNET = "resnet50-deconv"
"""SimpleBaseline's ResNet-50 (Xiao et al., ECCV 2018) with random weights."""
REFERENCE = "dy_mobilenetv2_050-dy_bneck"
OTHERS = ("mobilenetv2_100-bneck", RESNET)


def benchmark_networks(
    models: Sequence[str],
    reference: str,
    runtimes: Sequence[str] = RUNTIMES,
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1, 2),
    rounds: int = 9,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times networks in PyTorch, fused, and in OpenVINO.

    Args:
        models: names of networks; without pretrained weights they have random ones, which take the same time.
        reference: the network whose time others are compared with.
        runtimes: a subset of `RUNTIMES`.
        batches: numbers of crops of a call.
        threads: numbers of threads.
        rounds: number of measurements of each.
        log: receives progress messages.

    Returns:
        The result in plain types: one row per network, runtime, batch size and number of threads; times are per crop.

    Raises:
        ValueError: if a runtime is unknown.
        RuntimeError: if a process fails, such as for an unknown name or a runtime that is not installed.
    """
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown:
        raise ValueError(f"expected runtimes to be of {', '.join(RUNTIMES)}, got {unknown[0]!r}")
    rows = []
    for runtime in runtimes:
        for count in threads:
            log(f"timing {runtime} on {count} thread(s)")
            task = {
                "models": list(dict.fromkeys((reference, *models))),
                "reference": reference,
                "runtime": runtime,
                "batches": list(batches),
                "threads": count,
                "rounds": rounds,
            }
            rows += run_in_subprocess(time_networks, task)
    return {"reference": reference, "rounds": rounds, "rows": rows}


def time_networks(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Times all networks of a task in this process and returns their rows."""
    models = {name: load_model(_create(name), "cpu", task["runtime"]) for name in task["models"]}
    rows = []
    for batch in task["batches"]:
        calls = {}
        for name, model in models.items():
            width, height = model.input_size
            crops = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
            calls[name] = lambda model=model, crops=crops: model(crops)  # type: ignore[misc]
        seconds = measure_interleaved(calls, task["rounds"])
        for name, times in seconds.items():
            row = {"model": name, "runtime": task["runtime"], "batch": batch, "threads": task["threads"]}
            row["milliseconds"] = milliseconds([time / batch for time in times])
            row["to_reference"] = ratio(times, seconds[task["reference"]])
            rows.append(row)
    return rows


def _create(name: str) -> PoseNet:
    if name == RESNET:
        return simple_baseline()
    return create_model(name, pretrained=name in list_pretrained()).eval()


def format_networks(report: Mapping[str, Any]) -> str:
    """Formats the result as a Markdown table: milliseconds per crop, and the time relative to the reference."""
    lines = [
        f"| runtime | threads | batch | network | ms per crop (quartiles) | relative to {report['reference']} |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        lines.append(
            f"| {row['runtime']} | {row['threads']} | {row['batch']} | {row['model']} | "
            f"{format_milliseconds(row['milliseconds'])} | {format_ratio(row['to_reference'])} |"
        )
    return "\n".join(lines)

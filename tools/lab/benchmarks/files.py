"""Benchmark of files of `posedy export`, such as a network in float32, with int8 weights and in int8, in each runtime.

A call is that of the graph on one input of noise. All files are called in turn in one process, and ratios are computed
within a round.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posedy.export.graph_file import GraphInfo, read_graph
from posedy.export.runtimes import RUNTIMES, Array, Runtime, make_runner
from tools.lab.benchmarks.ratios import format_milliseconds, format_ratio, measure_interleaved, milliseconds, ratio


def benchmark_files(
    files: Sequence[Path], runtimes: Sequence[Runtime] = RUNTIMES, threads: Sequence[int] = (1, 2), rounds: int = 9
) -> dict[str, Any]:
    """Times exported files.

    Args:
        files: .onnx files of `posedy export`; the first is the reference.
        runtimes: a subset of `RUNTIMES`.
        threads: numbers of threads.
        rounds: number of measurements of each.

    Returns:
        The result in plain types: one row per file, runtime and number of threads.

    Raises:
        OSError, ValueError: if a file is not of `posedy export`, or a runtime is unknown or not installed.
    """
    graphs = {str(file): read_graph(file) for file in files}
    rows = []
    for runtime in runtimes:
        for count in threads:
            calls = {}
            for name, (model, info) in graphs.items():
                runner = make_runner(model.SerializeToString(), info.batch, runtime, threads=count)
                calls[name] = functools.partial(runner, _make_input(info))
            seconds = measure_interleaved(calls, rounds)
            for name, (_, info) in graphs.items():
                rows.append(
                    {
                        "file": name,
                        "weights": info.weights,
                        "int8_convolutions": info.float_layers is not None,
                        "megabytes": Path(name).stat().st_size / 1e6,
                        "runtime": runtime,
                        "threads": count,
                        "milliseconds": milliseconds(seconds[name]),
                        "to_reference": ratio(seconds[name], seconds[str(files[0])]),
                    }
                )
    return {"reference": str(files[0]), "rounds": rounds, "rows": rows}


def _make_input(info: GraphInfo) -> Array:
    width, height = info.input_size
    rng = np.random.default_rng(0)
    if info.decodes:
        return rng.integers(0, 256, (1, height, width, 3), np.uint8)
    return rng.standard_normal((1, 3, height, width)).astype(np.float32)


def format_files(report: Mapping[str, Any]) -> str:
    """Formats the result as a Markdown table: milliseconds, and the time relative to the reference."""
    lines = [
        f"| runtime | threads | file | MB | ms (quartiles) | relative to {report['reference']} |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        lines.append(
            f"| {row['runtime']} | {row['threads']} | {row['file']} | {row['megabytes']:.1f} | "
            f"{format_milliseconds(row['milliseconds'])} | {format_ratio(row['to_reference'])} |"
        )
    return "\n".join(lines)

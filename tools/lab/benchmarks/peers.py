"""Benchmark of posedy's presets and of networks that others publish, on the same machine in the same run.

All networks are ONNX files of batch size 1, from a normalized crop to the outputs that a codec decodes: no box, no
flip test and no decoding. Peers have random weights, which take the same time. All calls of a runtime and number of
threads are interleaved in one process, and ratios are computed within a round.

BlazePose's keypoint networks are TFLite files of MediaPipe, which OpenVINO reads; they run in LiteRT, too. What a user
calls is timed as well: `posedy.PoseEstimator` and `mediapipe.solutions.pose` on one image with one person.
"""

import functools
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch

from posedy.examples import example_images
from posedy.images import read_image
from posedy.models.registry import list_presets
from tools.lab.benchmarks import blazepose_script
from tools.lab.benchmarks.blazepose_script import MEDIAPIPE_HELP
from tools.lab.benchmarks.peer_networks import PEERS, export_network
from tools.lab.benchmarks.ratios import format_milliseconds, format_ratio, measure_interleaved, milliseconds, ratio
from tools.lab.benchmarks.subprocesses import run_in_subprocess

RUNTIMES = ("openvino", "onnxruntime")
REFERENCE = "balanced"
_IMAGE = next(image.path for image in example_images() if image.path.stem == "tennis")
_BOX = (71, 148, 591, 562)
"""The only person in the image."""


def benchmark_peers(
    runtimes: Sequence[str] = RUNTIMES,
    threads: Sequence[int] = (1, 2),
    rounds: int = 7,
    mediapipe_python: Path | None = None,
    networks: Sequence[str] | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times the presets and the peers.

    Args:
        runtimes: a subset of `RUNTIMES`.
        threads: numbers of threads.
        rounds: number of measurements of each.
        mediapipe_python: the Python of an environment with MediaPipe; None leaves out BlazePose.
        networks: some of the presets and `PEERS`; by default all.
        log: receives progress messages.

    Returns:
        The result in plain types. `rows` are networks alone, `calls` are calls with an image; `networks` has the sizes
        of the networks.

    Raises:
        ValueError: if a runtime or a network is unknown.
        RuntimeError: if a process fails.
    """
    names = list(networks or (*list_presets(), *PEERS))
    if REFERENCE not in names:
        names.insert(0, REFERENCE)
    _check_known(names, (*list_presets(), *PEERS))
    _check_known(runtimes, RUNTIMES)
    rows: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    tflite: dict[str, str] = {}
    if mediapipe_python is None:
        log(f"BlazePose is left out. {MEDIAPIPE_HELP}")
    else:
        for count in threads:
            log(f"timing MediaPipe on {count} thread(s)")
            measured = _run_mediapipe(mediapipe_python, count, rounds)
            calls += _rows(measured["calls"], "mediapipe", count, None)
            rows += _rows(measured["networks"], "litert", count, None)
            tflite = {f"BlazePose {name}": file for name, file in measured["files"].items()}
        if measured["missing"]:
            log(f"BlazePose {' and '.join(measured['missing'])}: no keypoint network. {MEDIAPIPE_HELP}")
    with TemporaryDirectory() as folder:
        sizes = {}
        for index, name in enumerate(names):
            log(f"exporting {name}")
            sizes[name] = export_network(name, Path(folder) / f"{index}.onnx")
        for runtime in runtimes:
            for count in threads:
                log(f"timing {runtime} on {count} thread(s)")
                task = {"sizes": sizes, "runtime": runtime, "threads": count, "rounds": rounds}
                rows += run_in_subprocess(time_networks, task | {"tflite": tflite if runtime == "openvino" else {}})
    presets = [name for name in names if name in list_presets()]
    for count in threads:
        log(f"timing posedy.PoseEstimator on {count} thread(s)")
        calls += run_in_subprocess(time_calls, {"presets": presets, "threads": count, "rounds": rounds})
    sizes = {name: {key: value for key, value in size.items() if key != "file"} for name, size in sizes.items()}
    return {"reference": REFERENCE, "rounds": rounds, "networks": sizes, "rows": rows, "calls": calls}


def _check_known(names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"expected names of {', '.join(known)}, got {unknown[0]!r}")


def time_networks(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Times all networks of a task, in one runtime, in this process and returns their rows."""
    from posedy.export.runtimes import OpenVinoRunner, make_runner, openvino_core

    runtime, threads = task["runtime"], task["threads"]
    rng = np.random.default_rng(0)
    calls = {}
    for name, size in task["sizes"].items():
        runner = make_runner(Path(size["file"]).read_bytes(), 1, runtime, threads=threads)
        crop = rng.standard_normal((1, 3, *size["input"]), np.float32)
        calls[name] = functools.partial(runner, crop)
    for name, file in task["tflite"].items():
        graph = openvino_core().read_model(file)
        crop = rng.random(tuple(graph.input(0).shape), np.float32)
        calls[name] = functools.partial(OpenVinoRunner(graph, 1, torch.device("cpu"), threads), crop)
    return _rows(measure_interleaved(calls, task["rounds"]), runtime, threads, REFERENCE)


def time_calls(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Times `PoseEstimator` of all presets of a task on an image, in this process, and returns their rows."""
    from posedy.inference.estimator import PoseEstimator

    cv2.setNumThreads(task["threads"])
    image = read_image(_IMAGE)
    calls = {}
    for preset in task["presets"]:
        estimator = PoseEstimator(preset, "cpu", runtime="openvino", flip=False)
        calls[f"{preset}, box given"] = functools.partial(estimator, image, [_BOX])
        calls[f"{preset}, with detector"] = functools.partial(estimator, image)
    return _rows(measure_interleaved(calls, task["rounds"]), "posedy", task["threads"], f"{REFERENCE}, box given")


def _run_mediapipe(python: Path, threads: int, rounds: int) -> dict[str, Any]:
    task = json.dumps({"image": str(_IMAGE), "threads": threads, "rounds": rounds})
    command = [str(python), str(blazepose_script.__file__), task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"MediaPipe failed in {python}: {done.stderr.strip()[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _rows(
    seconds: Mapping[str, Sequence[float]], runtime: str, threads: int, reference: str | None
) -> list[dict[str, Any]]:
    """Returns the rows of a process; without a reference in the same process they have no ratio."""
    return [
        {
            "model": name,
            "runtime": runtime,
            "batch": 1,
            "threads": threads,
            "milliseconds": milliseconds(times),
            "to_reference": None if reference is None else ratio(times, seconds[reference]),
        }
        for name, times in seconds.items()
    ]


def format_peers(report: Mapping[str, Any]) -> str:
    """Formats the result as two Markdown tables: networks alone, and calls with an image."""
    lines = [
        "| network | input | M parameters | M multiply-adds | runtime | threads | ms (quartiles) | "
        f"relative to {report['reference']} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = list(dict.fromkeys(row["model"] for row in report["rows"] if row["model"] in report["networks"]))
    order += sorted({row["model"] for row in report["rows"]} - set(order))
    for row in sorted(report["rows"], key=lambda row: order.index(row["model"])):
        lines.append(f"| {row['model']} | {_format_size(report['networks'].get(row['model']))} | {_format_time(row)}")
    lines += [
        "",
        f"| call with an image | package | threads | ms (quartiles) | relative to {report['reference']}, box given |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {row['model']} | {_format_time(row)}" for row in report["calls"]]
    return "\n".join(lines)


def _format_size(size: Mapping[str, Any] | None) -> str:
    if size is None:
        return "- | - | -"
    height, width = size["input"]
    return f"{height}x{width} | {size['parameters'] / 1e6:.2f} | {size['madds'] / 1e6:.0f}"


def _format_time(row: Mapping[str, Any]) -> str:
    times, to_reference = format_milliseconds(row["milliseconds"]), format_ratio(row["to_reference"])
    return f"{row['runtime']} | {row['threads']} | {times} | {to_reference} |"


def plot_peers(report: Mapping[str, Any], runtime: str = "openvino", threads: int = 2) -> bytes:
    """Plots AP against time: networks with an AP by the protocol of the model cards as points, others as lines.

    Args:
        report: the result of `benchmark_peers`.
        runtime: the runtime of the times.
        threads: the number of threads of the times.
    """
    from tools.lab.benchmarks.accuracy import card_accuracies, plot_accuracy

    timed = dict.fromkeys(row["model"] for row in report["rows"] if row["runtime"] == runtime)
    accuracies = {name: metrics for name, metrics in card_accuracies().items() if name in timed}
    marks = [name for name in timed if name not in accuracies]
    return plot_accuracy(report, accuracies, runtime=runtime, threads=threads, marks=marks)

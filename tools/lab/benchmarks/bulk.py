"""Benchmark of bulk prediction: images per second in one process, in several and in Ray; kills; memory."""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from posedy.image_paths import image_paths
from posedy.images import read_image
from tools.lab.benchmarks.ratios import format_ratio, ratio

_RAY = """
import sys, ray
ray.init(num_cpus=int(sys.argv[4]), include_dashboard=False, logging_level="error", log_to_driver=False)
import posedy.ray
posedy.ray.predict(sys.argv[1], sys.argv[2], model=sys.argv[3], flip=False, actors=int(sys.argv[4]), batch_size=32)
"""
_LIMIT = 1.1  # of the memory of ten times as many images


def link_images(images: Sequence[Path], folder: Path, count: int) -> Path:
    """Makes a folder of `count` images with distinct names, links to given ones in turns."""
    folder.mkdir(parents=True)
    for number in range(count):
        image = images[number % len(images)].resolve()
        (folder / f"{number:06d}-{image.stem}{image.suffix}").symlink_to(image)
    return folder


def predict_command(folder: Path, out: Path, checkpoint: str, processes: int = 1, format: str = "jsonl") -> list[str]:
    """Returns the command that predicts a folder of images without the flip test."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    options = ["--checkpoint", checkpoint, "--no-flip", "--format", format, "--out", str(out)]
    return [sys.executable, *torchrun, "-m", "posedy", "predict", str(folder), *options]


def read_results(out: Path) -> dict[str, str]:
    """Reads the parts of a run: a line for each image, by name.

    Raises:
        ValueError: if an image is there twice.
    """
    lines = [line for part in sorted(out.glob("part-*.jsonl")) for line in part.read_text().splitlines()]
    names = Counter(json.loads(line)["image"] for line in lines)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"{out} has {len(twice)} images twice, such as {twice[0]}")
    return {json.loads(line)["image"]: line for line in lines}


def benchmark_throughput(inputs: Sequence[str], count: int, rounds: int, checkpoint: str) -> dict[str, Any]:
    """Times whole runs in one process, in two processes of torchrun and in two Ray actors, in turns.

    Each has one thread in a process or actor, except the run in one process with all threads. The start of the
    processes is part of the time, which is also measured, with a single image.

    Args:
        inputs: images, folders and patterns.
        count: number of images, given ones in turns.
        rounds: number of measurements of each.
        checkpoint: the network.

    Returns:
        The result in plain types.
    """
    images = image_paths(inputs)
    runs: dict[str, list[float]] = {}
    stored: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folders = {"start": link_images(images, root / "one", 1), "all": link_images(images, root / "all", count)}
        for round_number in range(rounds):
            for kind, folder in folders.items():
                for label, command, threads in _commands(folder, root / "out", checkpoint):
                    began = time.perf_counter()
                    _run(command, threads)
                    runs.setdefault(f"{label}, {kind}", []).append(time.perf_counter() - began)
                    stored = _measure_parts(root / "out")
                    shutil.rmtree(root / "out")
                    print(
                        f"round {round_number + 1}: {label}, {kind}: {runs[f'{label}, {kind}'][-1]:.1f} s", flush=True
                    )
    labels = [label for label, _, _ in _commands(Path(), Path(), checkpoint)]
    net = {
        label: [whole - start for whole, start in zip(runs[f"{label}, all"], runs[f"{label}, start"], strict=True)]
        for label in labels
    }
    return {
        "images": count,
        "rounds": rounds,
        "checkpoint": checkpoint,
        "decoded_per_second": _decode_speed(images),
        **stored,
        "runs": [
            {
                "run": label,
                "seconds_to_start": statistics.median_high(runs[f"{label}, start"]),
                "images_per_second": count / statistics.median_high(net[label]),
                "speed": ratio(net[labels[0]], net[label]),
            }
            for label in labels
        ],
    }


def _commands(folder: Path, out: Path, checkpoint: str) -> list[tuple[str, list[str], int]]:
    """Returns the name, the command and the number of threads of each kind of run."""
    return [
        ("1 process, 1 thread", predict_command(folder, out, checkpoint, format="parquet"), 1),
        ("1 process, 2 threads", predict_command(folder, out, checkpoint, format="parquet"), 2),
        ("2 processes, 1 thread each", predict_command(folder, out, checkpoint, 2, "parquet"), 1),
        ("2 Ray actors, 1 thread each", [sys.executable, "-c", _RAY, str(folder), str(out), checkpoint, "2"], 1),
    ]


def _measure_parts(out: Path) -> dict[str, float]:
    """Returns the persons and the bytes of Parquet files per image."""
    from pyarrow import parquet

    parts = sorted(out.glob("*.parquet"))
    boxes = [row for part in parts for row in parquet.read_table(part, columns=["boxes"])["boxes"].to_pylist()]
    size = sum(part.stat().st_size for part in parts)
    return {"persons_per_image": sum(map(len, boxes)) / len(boxes), "bytes_per_image": size / len(boxes)}


def _decode_speed(images: Sequence[Path]) -> float:
    """Returns the images per second that one thread reads."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    began = time.perf_counter()
    for image in images:
        read_image(image, apply_exif=True)
    cv2.setNumThreads(threads)
    return len(images) / (time.perf_counter() - began)


def _run(command: list[str], threads: int) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")


def format_throughput(result: dict[str, Any]) -> str:
    """Formats the result of `benchmark_throughput` as text."""
    inputs = (
        f"{result['images']} images with {result['persons_per_image']:.1f} persons, {result['bytes_per_image']:.0f} "
        f"bytes of Parquet per image; one thread decodes {result['decoded_per_second']:.0f} images/s\n"
    )
    return inputs + "\n".join(
        f"{run['run']}: {run['images_per_second']:.1f} images/s after {run['seconds_to_start']:.1f} s, "
        f"{format_ratio(run['speed'])} times the speed of one thread"
        for run in result["runs"]
    )


_KILLED_THREADS = 2


def benchmark_kills(inputs: Sequence[str], count: int, kills: int, checkpoint: str, seed: int = 0) -> dict[str, Any]:
    """Kills runs at random moments, first two processes and then one, and compares the results with a whole run.

    Args:
        inputs: images, folders and patterns.
        count: number of images, given ones in turns.
        kills: number of kills.
        checkpoint: the network.
        seed: seed of the moments.

    Returns:
        The result in plain types: whether each image is there once, and whether its line is that of the whole run.
    """
    images, rng = image_paths(inputs), random.Random(seed)
    threads = {"OMP_NUM_THREADS": str(_KILLED_THREADS)}  # a run resumes with as many only
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = link_images(images, root / "all", count)
        began = time.perf_counter()
        _run(predict_command(folder, root / "whole", checkpoint), _KILLED_THREADS)
        seconds = time.perf_counter() - began
        print(f"whole run: {seconds:.0f} s", flush=True)
        after = []
        for kill in range(kills):
            processes = 2 if kill < kills // 2 else 1
            # without torchrun, whose processes would survive it
            runs = [
                subprocess.Popen(
                    predict_command(folder, root / "killed", checkpoint),
                    env=os.environ | threads | {"RANK": str(rank), "WORLD_SIZE": str(processes)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                for rank in range(processes)
            ]
            time.sleep(rng.uniform(0.5, 1.5) * (10 + seconds / (kills + 2)))
            is_running = all(run.poll() is None for run in runs)
            for run in runs:
                run.kill()
                run.wait()
            parts = len(list((root / "killed").glob("part-*.jsonl")))
            after.append({"processes": processes, "was_running": is_running, "units": parts})
            print(f"kill {kill + 1} of {processes} processes, running: {is_running}, {parts} units done", flush=True)
        _run(predict_command(folder, root / "killed", checkpoint), _KILLED_THREADS)
        whole, killed = read_results(root / "whole"), read_results(root / "killed")
        return {
            "images": count,
            "persons": sum(len(json.loads(line)["persons"]) for line in whole.values()),
            "kills": after,
            "each_image_once": len(whole) == len(killed) == count and whole.keys() == killed.keys(),
            "equal_lines": sum(killed.get(image) == line for image, line in whole.items()),
        }


def format_kills(result: dict[str, Any]) -> str:
    """Formats the result of `benchmark_kills` as text."""
    running = sum(kill["was_running"] for kill in result["kills"])
    return (
        f"{running} of {len(result['kills'])} kills met a running process; each of {result['images']} images once: "
        f"{result['each_image_once']}; {result['equal_lines']} lines equal those of an undisturbed run "
        f"({result['persons']} persons)"
    )


def benchmark_memory(inputs: Sequence[str], counts: Sequence[int], checkpoint: str) -> dict[str, Any]:
    """Measures the peak memory of runs of several numbers of images.

    Args:
        inputs: images, folders and patterns.
        counts: numbers of images.
        checkpoint: the network.

    Returns:
        The result in plain types.
    """
    images, peaks = image_paths(inputs), []
    with tempfile.TemporaryDirectory() as name:
        for count in counts:
            folder = link_images(images, Path(name) / f"{count}", count)
            command = predict_command(folder, Path(name) / f"out{count}", checkpoint)
            # the process ends with its peak on standard output
            program = (
                "import sys, resource; from posedy.cli.main import main; status = main(sys.argv[1:]); "
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024); sys.exit(status)"
            )
            done = subprocess.run(
                [sys.executable, "-c", program, *command[3:]], capture_output=True, text=True, check=True
            )
            peaks.append({"images": count, "peak_mb": float(done.stdout.split()[-1])})
            print(f"{count} images: {peaks[-1]['peak_mb']:.0f} MB", flush=True)
    return {"peaks": peaks, "is_flat": peaks[-1]["peak_mb"] <= _LIMIT * peaks[0]["peak_mb"]}


def format_memory(result: dict[str, Any]) -> str:
    """Formats the result of `benchmark_memory` as text."""
    peaks = ", ".join(f"{peak['peak_mb']:.0f} MB for {peak['images']} images" for peak in result["peaks"])
    return f"peak memory: {peaks}; within 10 %: {result['is_flat']}"

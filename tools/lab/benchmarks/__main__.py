"""Benchmarks a part of posedy against a baseline: `python -m tools.lab.benchmarks PART`."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posedy.cli.options import add_device, add_json, write_json
from posedy.files import write_bytes_atomically
from posedy.models.pretrained import DEFAULT
from tools.lab.benchmarks.blazepose_script import MEDIAPIPE_HELP
from tools.lab.entry import run_and_exit


def main(argv: list[str] | None = None) -> None:
    """Runs a benchmark and prints its result."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.benchmarks", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    data = parts.add_parser(
        "data",
        help="data loading: samples/s per worker, compared with decode + warp only and with a reference implementation",
    )
    data.add_argument("overrides", nargs="*", metavar="key=value", help="for example data.root=/data/coco")
    data.add_argument("--config", type=Path, help="configuration file; default: the paper's settings")
    data.add_argument("--persons", type=int, default=300, help="number of persons (default: %(default)s)")
    data.add_argument("--rounds", type=int, default=10, help="number of measurements of each (default: %(default)s)")
    add_json(data)
    data.set_defaults(run=_data)
    shards = parts.add_parser("shards", help="data loading from shards, compared with a packed COCO dataset")
    shards.add_argument("overrides", nargs="*", metavar="key=value", help="for example data.root=/data/coco")
    shards.add_argument("--persons", type=int, default=1000, help="number of persons (default: %(default)s)")
    shards.add_argument("--rounds", type=int, default=10, help="number of measurements of each (default: %(default)s)")
    add_json(shards)
    shards.set_defaults(run=_shards)
    bulk = parts.add_parser("bulk", help="posedy predict --format: one process, two and two Ray actors; kills; memory")
    bulk.add_argument("measurement", choices=("throughput", "kills", "memory"), help="what to measure")
    bulk.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders and patterns")
    bulk.add_argument("--count", type=int, nargs="+", default=[200], help="numbers of images (default: 200)")
    bulk.add_argument("--kills", type=int, default=10, help="number of kills (default: %(default)s)")
    bulk.add_argument("--rounds", type=int, default=3, help="number of measurements of each (default: %(default)s)")
    bulk.add_argument("--checkpoint", default=DEFAULT, metavar="MODEL", help="default: %(default)s")
    add_json(bulk)
    bulk.set_defaults(run=_bulk)
    evaluation = parts.add_parser("eval", help="COCO metrics of a large generated test by each backend; OKS-NMS")
    for name, number in (("images", 5000), ("persons", 6352), ("results", 100_000), ("rounds", 3)):
        evaluation.add_argument(f"--{name}", type=int, default=number, help=f"default: {number}")
    add_json(evaluation)
    evaluation.set_defaults(run=_evaluation)
    end_to_end = parts.add_parser(
        "end-to-end", help="`posedy predict VIDEO` compared with the poses alone and with another checkout"
    )
    _add_checkpoint(end_to_end)
    end_to_end.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, such as a git worktree")
    end_to_end.add_argument(
        "--people", type=int, nargs="+", default=[1, 3], metavar="N", help="numbers of people (default: 1 3)"
    )
    end_to_end.add_argument("--frames", type=int, default=300, help="frames of each video (default: 300)")
    end_to_end.add_argument("--rounds", type=int, default=3, help="number of measurements of each (default: 3)")
    add_json(end_to_end)
    end_to_end.set_defaults(run=_end_to_end)
    estimator = parts.add_parser(
        "estimator", help="the default estimator per person, alone, beside busy processes and in another checkout"
    )
    _add_checkpoint(estimator)
    estimator.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, such as a git worktree")
    estimator.add_argument(
        "--persons", type=int, nargs="+", default=[1, 8], metavar="N", help="persons in a call (default: 1 8)"
    )
    estimator.add_argument("--busy", type=int, default=2, metavar="N", help="busy processes (default: 2)")
    estimator.add_argument("--rounds", type=int, default=5, help="number of measurements of each (default: 5)")
    add_json(estimator)
    estimator.set_defaults(run=_estimator)
    smoothing = parts.add_parser(
        "smoothing", help="synthetic video: jitter, error and lag of online and offline smoothing"
    )
    _add_checkpoint(smoothing)
    smoothing.add_argument("--frames", type=int, default=300, help="frames of each video (default: 300)")
    smoothing.add_argument("--seed", type=int, nargs="+", default=[0], metavar="N", help="seeds (default: 0)")
    smoothing.add_argument("--speed", type=float, default=1.0, help="how many times as fast people move (default: 1)")
    add_device(smoothing)
    add_json(smoothing)
    smoothing.set_defaults(run=_smoothing)
    tracking = parts.add_parser(
        "tracking", help="posedy's tracker compared with ByteTrack, OC-SORT, SORT and C-BIoU of the package trackers"
    )
    tracking.add_argument("--checkpoint", metavar="MODEL", help="predicts the poses (default: simulated poses)")
    tracking.add_argument("--frames", type=int, default=240, help="frames of each video (default: 240)")
    tracking.add_argument(
        "--seed", type=int, nargs="+", default=[0, 1, 2, 3], metavar="N", help="seeds of the videos (default: 0 1 2 3)"
    )
    tracking.add_argument(
        "--tune", type=int, metavar="TRIALS", help="search the parameters again instead of known ones"
    )
    add_json(tracking)
    tracking.set_defaults(run=_tracking)
    layers = parts.add_parser("layers", help="implementations of per-image convolution, layer by layer")
    _add_batch(layers)
    layers.add_argument("--threads", type=int, default=1, help="number of threads (default: 1)")
    layers.add_argument("--rounds", type=int, default=5, help="number of measurements of each (default: 5)")
    layers.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default: cpu)")
    add_json(layers)
    layers.set_defaults(run=_layers)
    aggregation = parts.add_parser(
        "aggregation", help="storage and aggregation of the kernels of dynamic convolutions in exported graphs"
    )
    aggregation.add_argument("--pairs", type=int, default=6, help="number of pairs of layers (default: %(default)s)")
    _add_timing(aggregation, rounds=9)
    add_json(aggregation)
    aggregation.set_defaults(run=_aggregation)
    latency = parts.add_parser(
        "latency", help="networks in each runtime, compared with their static counterparts and a ResNet-50"
    )
    latency.add_argument("--models", nargs="+", metavar="NAME", help="dynamic networks or backbones")
    latency.add_argument(
        "--runtimes",
        nargs="+",
        metavar="NAME",
        help="fused grouped training training_bf16 onnxruntime openvino openvino_float16 openvino_int8 (default: all)",
    )
    _add_timing(latency, rounds=5)
    _add_batch(latency)
    latency.add_argument("--plot", type=Path, metavar="FILE", help="plot the ratios, for example to latency.png")
    add_json(latency)
    latency.set_defaults(run=_latency)
    networks = parts.add_parser(
        "networks", help="pretrained and other networks in PyTorch and OpenVINO, compared with one of them"
    )
    networks.add_argument("--models", nargs="+", metavar="NAME", help="default: pretrained ones and two baselines")
    networks.add_argument("--reference", metavar="NAME", help="default: dy_mobilenetv2_050-dy_bneck")
    networks.add_argument("--runtimes", nargs="+", metavar="NAME", help="torch openvino (default: both)")
    _add_timing(networks, rounds=9)
    _add_batch(networks)
    add_json(networks)
    networks.set_defaults(run=_networks)
    peers = parts.add_parser(
        "peers",
        help="the presets and networks of others, alone in OpenVINO and ONNX Runtime, and called with an image",
        epilog=MEDIAPIPE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    peers.add_argument("--networks", nargs="+", metavar="NAME", help="default: all presets and peers")
    peers.add_argument("--runtimes", nargs="+", metavar="NAME", help="openvino onnxruntime (default: both)")
    peers.add_argument("--mediapipe-python", type=Path, metavar="PATH", help="times BlazePose, too; see below")
    _add_timing(peers, rounds=7)
    peers.add_argument("--plot", type=Path, metavar="FILE", help="plot AP against time, NAME.png")
    add_json(peers)
    peers.set_defaults(run=_peers)
    files = parts.add_parser("files", help="exported files, such as float and int8, in ONNX Runtime and OpenVINO")
    files.add_argument("files", type=Path, nargs="+", metavar="FILE", help=".onnx files; the first is the reference")
    files.add_argument("--runtimes", nargs="+", metavar="NAME", help="onnxruntime openvino (default: both)")
    _add_timing(files, rounds=15)
    add_json(files)
    files.set_defaults(run=_files)
    detector = parts.add_parser(
        "detector", help="the person detector, compared with one pose and with torchvision's Faster R-CNN"
    )
    detector.add_argument("--runtimes", nargs="+", metavar="NAME", help="torch openvino (default: both)")
    detector.add_argument(
        "--sizes", type=int, nargs="+", default=[416, 320], metavar="N", help="sizes of the detector (default: 416 320)"
    )
    _add_timing(detector, rounds=15)
    detector.add_argument("--image", type=Path, metavar="FILE", help="an image (default: one of data/coco_mini)")
    add_json(detector)
    detector.set_defaults(run=_detector)
    accuracy = parts.add_parser("accuracy", help="plot of AP against the times of `networks`")
    accuracy.add_argument("times", type=Path, help="the file of `networks --json`")
    accuracy.add_argument("metrics", nargs="+", metavar="NAME=FILE", help="a network, its file of eval --ci --json")
    accuracy.add_argument("--runtime", default="openvino", metavar="NAME", help="torch or openvino (the default)")
    accuracy.add_argument("--threads", type=int, default=2, metavar="N", help="number of threads (default: 2)")
    accuracy.add_argument(
        "--marks", nargs="+", default=[], metavar="NAME", help="networks without a comparable AP: their times as lines"
    )
    accuracy.add_argument("--out", type=Path, required=True, metavar="FILE", help="NAME.png")
    accuracy.set_defaults(run=_accuracy)
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        # key=value overrides may follow options
        if not hasattr(arguments, "overrides") or any(item.startswith("-") or "=" not in item for item in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.overrides += rest
    arguments.run(arguments)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        default=DEFAULT,
        metavar="MODEL",
        help="a file, or the name of a pretrained model (default: %(default)s)",
    )


def _add_timing(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="numbers of threads (default: 1 2)"
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="number of measurements of each (default: %(default)s)"
    )


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="batch sizes (default: 1 8)")


def _check_positive(arguments: argparse.Namespace, *options: str) -> None:
    """Checks that the values of options, numbers or lists of numbers, are at least 1."""
    values = [getattr(arguments, option) for option in options]
    if min(number for value in values for number in (value if isinstance(value, list) else [value])) < 1:
        *others, last = [f"--{option}" for option in options]
        raise ValueError(f"{', '.join(others)} and {last} must be at least 1")


def _log(message: str) -> None:
    print(message, file=sys.stderr)


def _report(arguments: argparse.Namespace, report: Any, format_report: Callable[[Any], str]) -> None:
    print(format_report(report))
    write_json(arguments.json, report)


def _data(arguments: argparse.Namespace) -> None:
    from posedy.config import load_config
    from tools.lab.benchmarks.data import benchmark_data, format_data_benchmark

    config = load_config(arguments.config, arguments.overrides)
    report = benchmark_data(config, arguments.persons, arguments.rounds)
    _report(arguments, report, format_data_benchmark)


def _shards(arguments: argparse.Namespace) -> None:
    from posedy.config import load_config
    from tools.lab.benchmarks.shards import benchmark_shards, format_shards_benchmark

    _check_positive(arguments, "persons", "rounds")
    report = benchmark_shards(load_config(None, arguments.overrides), arguments.persons, arguments.rounds)
    _report(arguments, report, format_shards_benchmark)


def _bulk(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks import bulk

    _check_positive(arguments, "count", "kills", "rounds")
    images, count, checkpoint = arguments.images, arguments.count, arguments.checkpoint
    if arguments.measurement == "throughput":
        result = bulk.benchmark_throughput(images, count[0], arguments.rounds, checkpoint)
        print(bulk.format_throughput(result))
    elif arguments.measurement == "kills":
        result = bulk.benchmark_kills(images, count[0], arguments.kills, checkpoint)
        print(bulk.format_kills(result))
    else:
        result = bulk.benchmark_memory(images, count, checkpoint)
        print(bulk.format_memory(result))
    write_json(arguments.json, result)


def _evaluation(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.evaluation import benchmark_evaluation, format_evaluation_benchmark

    sizes = (arguments.images, arguments.persons, arguments.results, arguments.rounds)
    if min(sizes) < 1:
        raise ValueError(f"--images, --persons, --results and --rounds must be at least 1, got {sizes}")
    report = benchmark_evaluation(*sizes)
    _report(arguments, report, format_evaluation_benchmark)


def _end_to_end(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.end_to_end import benchmark_end_to_end, format_end_to_end

    _check_positive(arguments, "frames", "rounds", "people")
    report = benchmark_end_to_end(
        arguments.checkpoint,
        arguments.people,
        arguments.frames,
        arguments.rounds,
        arguments.before,
        log=_log,
    )
    _report(arguments, report, format_end_to_end)


def _estimator(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.estimator import benchmark_estimator, format_estimator

    _check_positive(arguments, "persons", "busy", "rounds")
    report = benchmark_estimator(
        arguments.checkpoint, arguments.persons, arguments.busy, arguments.rounds, arguments.before
    )
    _report(arguments, report, format_estimator)


def _smoothing(arguments: argparse.Namespace) -> None:
    from posedy.inference.estimator import PoseEstimator
    from tools.lab.benchmarks.smoothing import benchmark_smoothing, format_smoothing

    if arguments.frames < 3 or arguments.speed <= 0 or min(arguments.seed) < 0:
        raise ValueError("--frames must be at least 3, --speed more than 0, and --seed at least 0")
    estimator = PoseEstimator(arguments.checkpoint, arguments.device, flip=False)
    reports = []
    for seed in arguments.seed:
        reports.append(benchmark_smoothing(estimator, arguments.frames, people=3, seed=seed, speed=arguments.speed))
        print(format_smoothing(reports[-1]))
    write_json(arguments.json, reports)


def _tracking(arguments: argparse.Namespace) -> None:
    from posedy.inference.estimator import PoseEstimator
    from tools.lab.benchmarks.tracking import TUNED, benchmark_trackers, format_trackers, tune_trackers

    trials = 1 if arguments.tune is None else arguments.tune
    if min(arguments.frames, trials) < 1 or min(arguments.seed) < 0:
        raise ValueError("--frames and --tune must be at least 1, --seed at least 0")
    tuned = TUNED if arguments.tune is None else tune_trackers(arguments.tune, arguments.frames)
    estimator = PoseEstimator(arguments.checkpoint, flip=False) if arguments.checkpoint else None
    report = benchmark_trackers(
        estimator,
        arguments.frames,
        arguments.seed,
        tuned,
        log=_log,
    )
    _report(arguments, report, format_trackers)


def _layers(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.layers import benchmark_layers, format_layers

    _check_positive(arguments, "batch", "threads", "rounds")
    report = benchmark_layers(arguments.batch, arguments.threads, arguments.rounds, arguments.device)
    _report(arguments, report, format_layers)


def _aggregation(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.aggregation import benchmark_aggregation, format_aggregation

    _check_positive(arguments, "pairs", "threads", "rounds")
    report = benchmark_aggregation(arguments.pairs, arguments.threads, arguments.rounds)
    _report(arguments, report, format_aggregation)


def _latency(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.latency import MODELS, RUNTIMES, benchmark_latency, format_latency, plot_latency

    _check_positive(arguments, "batch", "threads", "rounds")
    report = benchmark_latency(
        arguments.models or MODELS,
        arguments.runtimes or RUNTIMES,
        arguments.batch,
        arguments.threads,
        arguments.rounds,
        log=_log,
    )
    print(format_latency(report))
    if arguments.plot is not None:
        plot_latency(report, arguments.plot)
    write_json(arguments.json, report)


def _networks(arguments: argparse.Namespace) -> None:
    from posedy.models.registry import list_pretrained
    from tools.lab.benchmarks.networks import OTHERS, REFERENCE, RUNTIMES, benchmark_networks, format_networks

    _check_positive(arguments, "batch", "threads", "rounds")
    report = benchmark_networks(
        arguments.models or (*list_pretrained(), *OTHERS),
        arguments.reference or REFERENCE,
        arguments.runtimes or RUNTIMES,
        arguments.batch,
        arguments.threads,
        arguments.rounds,
        log=_log,
    )
    _report(arguments, report, format_networks)


def _peers(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.peers import RUNTIMES, benchmark_peers, format_peers, plot_peers

    _check_positive(arguments, "threads", "rounds")
    report = benchmark_peers(
        arguments.runtimes or RUNTIMES,
        arguments.threads,
        arguments.rounds,
        arguments.mediapipe_python,
        arguments.networks,
        log=_log,
    )
    _report(arguments, report, format_peers)
    if arguments.plot is not None:
        write_bytes_atomically(arguments.plot, plot_peers(report, threads=max(arguments.threads)))


def _files(arguments: argparse.Namespace) -> None:
    from posedy.export.runtimes import RUNTIMES
    from tools.lab.benchmarks.files import benchmark_files, format_files

    _check_positive(arguments, "threads", "rounds")
    report = benchmark_files(arguments.files, arguments.runtimes or RUNTIMES, arguments.threads, arguments.rounds)
    _report(arguments, report, format_files)


def _detector(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.detector import IMAGE, RUNTIMES, benchmark_detector, format_detector

    _check_positive(arguments, "threads", "rounds")
    report = benchmark_detector(
        arguments.runtimes or RUNTIMES,
        arguments.sizes,
        arguments.threads,
        arguments.rounds,
        arguments.image or IMAGE,
        log=_log,
    )
    _report(arguments, report, format_detector)


def _accuracy(arguments: argparse.Namespace) -> None:
    from posedy.models.registry import list_presets
    from tools.lab.benchmarks.accuracy import plot_accuracy

    metrics = {}
    for item in arguments.metrics:
        name, separator, file = item.partition("=")
        if not separator:
            raise ValueError(f"expected NAME=FILE, got {item!r}")
        metrics[name] = json.loads(Path(file).read_bytes())
    labels = {name: preset for preset, name in list_presets().items()}
    times = json.loads(arguments.times.read_bytes())
    plot = plot_accuracy(times, metrics, labels, arguments.runtime, arguments.threads, arguments.marks)
    write_bytes_atomically(arguments.out, plot)


if __name__ == "__main__":
    run_and_exit(main, "benchmarks")

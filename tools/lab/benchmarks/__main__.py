"""Times a part of posedy beside a baseline: `python -m tools.lab.benchmarks PART`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from posedy.cli.options import add_json, write_json
from posedy.models.pretrained import DEFAULT
from tools.lab.entry import run_and_exit


def main(argv: list[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.benchmarks", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    data = parts.add_parser("data", help="feeding: samples/s of a worker beside decode + warp alone and the usual way")
    data.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.root=/data/coco")
    data.add_argument("--config", type=Path, help="a YAML file; default: the paper's settings")
    data.add_argument("--persons", type=int, default=300, help="how many take part")
    data.add_argument("--rounds", type=int, default=10, help="how often each way is timed")
    add_json(data)
    data.set_defaults(run=_data)
    evaluation = parts.add_parser("eval", help="COCO's numbers of a large made test, by each backend; suppression")
    for name, number in (("images", 5000), ("persons", 6352), ("results", 100_000), ("rounds", 3)):
        evaluation.add_argument(f"--{name}", type=int, default=number, help=f"default: {number}")
    add_json(evaluation)
    evaluation.set_defaults(run=_evaluation)
    video = parts.add_parser("video", help="drawn people in a film: ids, smoothing, frames/s beside the poses alone")
    video.add_argument(
        "--checkpoint",
        default=DEFAULT,
        metavar="MODEL",
        help="a file, or a shipped model's name (default: %(default)s)",
    )
    video.add_argument("--frames", type=int, default=600, help="of the film that ids are followed in (default: 600)")
    video.add_argument("--seed", type=int, nargs="+", default=[0], metavar="N", help="of such films (default: 0)")
    video.add_argument("--timed-frames", type=int, default=150, help="of the films that are timed (default: 150)")
    video.add_argument("--rounds", type=int, default=3, help="how often each is timed (default: 3)")
    video.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    add_json(video)
    video.set_defaults(run=_video)
    layers = parts.add_parser("layers", help="the ways of convolving each image with its own kernel, layer by layer")
    layers.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="images (default: 1 8)")
    layers.add_argument("--threads", type=int, default=1, help="default: 1")
    layers.add_argument("--rounds", type=int, default=5, help="how often each is timed (default: 5)")
    layers.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default: cpu)")
    add_json(layers)
    layers.set_defaults(run=_layers)
    latency = parts.add_parser("latency", help="whole networks by each runtime, beside static twins and a ResNet-50")
    latency.add_argument("--models", nargs="+", metavar="NAME", help="dynamic networks or backbones")
    latency.add_argument(
        "--runtimes", nargs="+", metavar="NAME", help="fused usual training training_bf16 onnxruntime openvino"
    )
    latency.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="N", help="crops (default: 1 8)")
    latency.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2")
    latency.add_argument("--rounds", type=int, default=5, help="turns of each network (default: 5)")
    latency.add_argument("--picture", type=Path, metavar="FILE", help="draw the ratios, such as latency.png")
    add_json(latency)
    latency.set_defaults(run=_latency)
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        # settings may stand after options too
        if not hasattr(arguments, "overrides") or any(word.startswith("-") or "=" not in word for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.overrides += rest
    arguments.run(arguments)


def _data(arguments: argparse.Namespace) -> None:
    from posedy.config import load_config
    from tools.lab.benchmarks.data import benchmark_data, format_data_benchmark

    config = load_config(arguments.config, arguments.overrides)
    numbers = benchmark_data(config, arguments.persons, arguments.rounds)
    print(format_data_benchmark(numbers))
    write_json(arguments.json, numbers)


def _evaluation(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.evaluation import benchmark_evaluation, format_evaluation_benchmark

    sizes = (arguments.images, arguments.persons, arguments.results, arguments.rounds)
    if min(sizes) < 1:
        raise ValueError(f"--images, --persons, --results and --rounds count from 1, got {sizes}")
    numbers = benchmark_evaluation(*sizes)
    print(format_evaluation_benchmark(numbers))
    write_json(arguments.json, numbers)


def _video(arguments: argparse.Namespace) -> None:
    from posedy.inference.estimator import PoseEstimator
    from tools.lab.benchmarks.video import benchmark_tracking, benchmark_video, format_tracking, format_video

    if arguments.rounds < 1 or min(arguments.frames, arguments.timed_frames) < 2:
        raise ValueError("--rounds counts from 1, --frames and --timed-frames from 2")
    if min(arguments.seed) < 0:
        raise ValueError("--seed counts from 0")
    estimator = PoseEstimator(arguments.checkpoint, arguments.device, flip=False)
    numbers: dict[str, Any] = {"tracking": []}
    for seed in arguments.seed:
        tracking = benchmark_tracking(estimator, arguments.frames, people=3, seed=seed)
        print(format_tracking(tracking))
        numbers["tracking"].append(tracking)
    for people in (1, 5):
        timed = numbers[f"video_{people}"] = benchmark_video(
            estimator, arguments.timed_frames, people, arguments.rounds
        )
        print(format_video(timed))
    write_json(arguments.json, numbers)


def _layers(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.layers import benchmark_layers, format_layers

    if min(arguments.threads, arguments.rounds, *arguments.batch) < 1:
        raise ValueError("--batch, --threads and --rounds count from 1")
    numbers = benchmark_layers(arguments.batch, arguments.threads, arguments.rounds, arguments.device)
    print(format_layers(numbers))
    write_json(arguments.json, numbers)


def _latency(arguments: argparse.Namespace) -> None:
    from tools.lab.benchmarks.latency import MODELS, RUNTIMES, benchmark_latency, draw_latency, format_latency

    if min(arguments.rounds, *arguments.threads, *arguments.batch) < 1:
        raise ValueError("--batch, --threads and --rounds count from 1")
    numbers = benchmark_latency(
        arguments.models or MODELS,
        arguments.runtimes or RUNTIMES,
        arguments.batch,
        arguments.threads,
        arguments.rounds,
        say=lambda words: print(words, file=sys.stderr),
    )
    print(format_latency(numbers))
    if arguments.picture is not None:
        draw_latency(numbers, arguments.picture)
    write_json(arguments.json, numbers)


if __name__ == "__main__":
    run_and_exit(main, "benchmarks")

"""`posedy predict --format`: keypoints of any number of images as tables, resumable and over several processes."""

import argparse
import os
from functools import partial
from typing import Any

from posedy.cli.options import DETECTOR, check_detector_weights, ended_by_signals

_FORMATS = ("parquet", "jsonl", "coco")
# options of the command that have no meaning for tables, with their defaults
_OTHER_OPTIONS = {
    "--box": ("box", None),
    "--boxes": ("boxes", None),
    "--annotations": ("annotations", None),
    "--webcam": ("webcam", None),
    "--examples": ("examples", False),
    "--keypoint-threshold": ("keypoint_threshold", None),
    "--smooth": ("smooth", None),
    "--from": ("start", 0.0),
    "--to": ("end", None),
    "--stride": ("stride", 1),
    "--detect-every": ("detect_every", None),
    "--tracks": ("tracks", None),
    "--plots": ("plots", False),
    "--show": ("show", False),
}


def add_bulk(parser: argparse.ArgumentParser) -> None:
    """Adds the options of prediction to tables."""
    group = parser.add_argument_group(
        "many images",
        "With --format, images are written to tables instead of drawings: of folders with their subfolders, glob "
        "patterns, .txt files with a path or URL in each line, .tar files and .parquet files. After an interruption, "
        "the same command resumes. Under torchrun, and with RANK and WORLD_SIZE in the environment, each process "
        "predicts its share. Images that fail are listed in errors.jsonl; the exit status is then 0.",
    )
    group.add_argument(
        "--format",
        choices=_FORMATS,
        help="write part-00000.parquet and so on, with a row for each image; jsonl has a line for each image; coco is "
        "COCO's results format, with names as image ids",
    )
    group.add_argument(
        "--image-column", metavar="NAME", help="the column of .parquet files with the bytes of images (default: image)"
    )
    group.add_argument(
        "--draw",
        type=int,
        metavar="N",
        help="also write small drawings of N images, evenly over the inputs (default: 0)",
    )


def check_no_bulk(arguments: argparse.Namespace) -> None:
    """Exits with a usage error if an option for tables is given without `--format`."""
    for option, value in {"--image-column": arguments.image_column, "--draw": arguments.draw}.items():
        if value is not None:
            arguments.parser.error(f"{option} needs --format: add --format parquet, or leave it out")


def run_bulk(arguments: argparse.Namespace) -> int:
    """Runs `posedy predict --format`: predicts keypoints in images and writes them as tables.

    Raises:
        OSError, ValueError: if an argument is invalid or nothing can be written.
    """
    for option, (name, default) in _OTHER_OPTIONS.items():
        if getattr(arguments, name) != default:
            arguments.parser.error(f"{option} has no meaning with --format: leave it out")
    if not arguments.inputs:
        arguments.parser.error("no input: give images, folders, .txt, .tar or .parquet files")
    if arguments.draw is not None and arguments.draw < 0:
        arguments.parser.error(f"--draw: expected at least 0, got {arguments.draw}")
    rank, world_size = _process(arguments)
    arguments.detector = arguments.detector or DETECTOR
    check_detector_weights(arguments)
    from posedy.files import check_writable, file_digest
    from posedy.inference.bulk import predict_bulk
    from posedy.inference.detectors import create_detector, detector_thresholds
    from posedy.inference.estimator import PoseEstimator
    from posedy.models.pretrained import DEFAULT, find_weights
    from posedy.system import default_num_workers, keep_freed_memory, local_device

    check_writable(arguments.out / "manifest.json")
    keep_freed_memory()
    model, choice = arguments.checkpoint or DEFAULT, arguments.detector
    device, flip = local_device(arguments.device), arguments.flip is not False
    threshold = detector_thresholds(choice).with_box_threshold(arguments.box_threshold).display
    detector = create_detector(choice, device, arguments.detector_weights, threshold)
    estimator = PoseEstimator(
        model, device, detector, flip, runtime=arguments.runtime, box_threshold=arguments.box_threshold
    )
    digest = file_digest(find_weights(model))
    settings: dict[str, Any] = {
        "weights": digest,
        "runtime": estimator.runtime,
        "device": estimator.device.type,
        "flip": flip,
        "detector": choice,
        "detector weights": file_digest(arguments.detector_weights) if arguments.detector_weights else None,
        "box threshold": threshold,
        "threads": _result_threads(estimator.runtime, choice),
    }
    print(estimator.description)
    with ended_by_signals():
        predict_bulk(
            arguments.inputs,
            arguments.out,
            estimator,
            model=f"{estimator.name}@{digest[:8]}",
            settings=settings,
            format=arguments.format,
            image_column=arguments.image_column,
            num_drawings=arguments.draw or 0,
            workers=default_num_workers(),
            rank=rank,
            world_size=world_size,
            report=partial(print, flush=True),  # a log file would otherwise show them late
        )
    return 0


def _result_threads(runtime: str, detector: str) -> int | None:
    """Returns the number of threads if the last bits of results depend on it, as in PyTorch but not in OpenVINO."""
    import torch

    from posedy.export.runtimes import prefers_openvino

    if runtime == "openvino" and (detector == "full-image" or (detector == DETECTOR and prefers_openvino())):
        return None
    return torch.get_num_threads()


def _process(arguments: argparse.Namespace) -> tuple[int, int]:
    """Returns the number of this process and the number of processes, from the environment."""
    values = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (all(value.isdecimal() for value in values) and int(values[0]) < int(values[1])):
        arguments.parser.error(
            f"expected the environment variables RANK from 0 and below WORLD_SIZE, got RANK={values[0]} and "
            f"WORLD_SIZE={values[1]}"
        )
    return int(values[0]), int(values[1])

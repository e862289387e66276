"""`posedy export`: write a trained network to a file for PyTorch or another runtime."""

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posedy.cli.options import add_command, add_import, add_json, ended_by_signals, write_json

if TYPE_CHECKING:
    from posedy.export.onnx import ExportReport
    from posedy.models.pose_net import PoseNet

_EXAMPLE = """
posedy export runs/dy050/best.pt --out dy050.safetensors --half
posedy export balanced --out pose.onnx --runtime openvino
posedy export balanced --out pose.onnx --int8
posedy export balanced --out pose.onnx --int8 --calibrate val2017 --annotations person_keypoints_val2017.json
posedy export nanodet_g_person --out detector.onnx
"""

_DETECTOR = "nanodet_g_person"  # the stem of PERSON_WEIGHTS, whose module imports torch


def register_parser(commands: Any) -> None:
    """Adds the command `posedy export` to the parser of all commands."""
    parser = add_command(commands, "export", "write a trained network to an ONNX or .safetensors file", _EXAMPLE)
    parser.set_defaults(run=run)
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="NAME|CHECKPOINT",
        help="a preset or the name of a pretrained network, nanodet_g_person for the person detector (ONNX only), or a "
        "file such as runs/dy050/best.pt",
    )
    parser.add_argument(
        "--out",
        type=_parse_out,
        required=True,
        metavar="FILE",
        help="NAME.onnx for other runtimes, NAME.safetensors for posedy",
    )
    parser.add_argument("--half", action="store_true", help="store weights in float16, at half the file size")
    parser.add_argument("--int8", action="store_true", help="store weights in int8, at a quarter (ONNX only)")
    add_import(parser)
    add_json(parser, "the measurements")
    onnx = parser.add_argument_group("ONNX files")
    onnx.add_argument(
        "--batch", choices=("free", "1"), help="batch size: free (any), or 1 (default: the fastest of the runtime)"
    )
    onnx.add_argument(
        "--runtime",
        choices=("onnxruntime", "openvino"),
        help="the runtime that verifies and by default runs the file (default: onnxruntime)",
    )
    onnx.add_argument(
        "--decode",
        action="store_true",
        help="take uint8 crops and return keypoints and scores instead of heatmaps or logits",
    )
    onnx.add_argument(
        "--no-flip",
        dest="flip",
        action="store_false",
        help="with --decode: leave out the flip test (half the time)",
    )
    int8 = parser.add_argument_group("ONNX files that compute in int8")
    int8.add_argument(
        "--calibrate",
        type=Path,
        metavar="FOLDER",
        help="with --int8: compute convolutions in int8, too, with the ranges of activations on the persons of these "
        "images (every other image; the others are for comparing keypoints with those of the float network)",
    )
    int8.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="with --calibrate: a COCO keypoint file whose images are in the folder, for its boxes and to compare AP "
        "(default: boxes of posedy's detector)",
    )
    int8.add_argument(
        "--allow-drop",
        action="store_true",
        help="with --calibrate: write the file also if AP drops by more than 0.01 or, without --annotations, more than "
        "5 %% of the keypoints move",
    )


def _parse_out(text: str) -> Path:
    if not text.lower().endswith((".onnx", ".safetensors")):
        raise argparse.ArgumentTypeError(
            f"expected NAME.onnx for other runtimes or NAME.safetensors for posedy, got {text}"
        )
    return Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy export`: writes a network to an ONNX or .safetensors file.

    Raises:
        OSError, ValueError: if the network cannot be read, the file cannot be written, or its outputs differ from
            PyTorch's.
    """
    out = arguments.out
    _check_options(arguments)
    if out.suffix.lower() == ".onnx":
        from posedy.export.runtimes import require

        require("onnx", "onnxscript", arguments.runtime or "onnxruntime")
    from posedy.files import check_writable

    check_writable(out)
    with ended_by_signals():
        name, numbers = (_write_detector if _is_detector(arguments) else _write_network)(arguments)
    size = out.stat().st_size
    print(f"wrote {out}: {name}, {size / 1e6:.1f} MB")
    write_json(arguments.json, {"file": str(out), "model": name, "bytes": size} | numbers)
    return 0


def _is_detector(arguments: argparse.Namespace) -> bool:
    return str(arguments.checkpoint) == _DETECTOR


def _check_options(arguments: argparse.Namespace) -> None:
    """Exits with a usage error if options do not fit together, or the network or the file."""
    if not arguments.flip and not arguments.decode:
        arguments.parser.error("--no-flip needs --decode: without it the caller runs the flip test")
    if arguments.half and arguments.int8:
        arguments.parser.error("--half and --int8 exclude each other: weights are stored in float16 or in int8")
    for option, value, needed, other in (
        ("--calibrate", arguments.calibrate, "--int8", arguments.int8),
        ("--annotations", arguments.annotations, "--calibrate", arguments.calibrate),
        ("--allow-drop", arguments.allow_drop, "--calibrate", arguments.calibrate),
    ):
        if value and not other:
            arguments.parser.error(f"{option} needs {needed}")
    if os.path.realpath(arguments.out) == os.path.realpath(arguments.checkpoint):
        arguments.parser.error(f"--out {arguments.out} would overwrite the network itself: choose another file")
    pose_options = {"--batch": arguments.batch, "--decode": arguments.decode, "--int8": arguments.int8}
    onnx_options = pose_options | {"--runtime": arguments.runtime}
    if _is_detector(arguments):
        if arguments.out.suffix.lower() != ".onnx":
            arguments.parser.error(f"{_DETECTOR} is exported to ONNX files: write --out NAME.onnx")
        if given := [option for option, value in pose_options.items() if value]:
            arguments.parser.error(f"{given[0]} is for pose networks: leave it out for {_DETECTOR}")
    elif arguments.out.suffix.lower() == ".safetensors" and (
        given := [name for name, value in onnx_options.items() if value]
    ):
        arguments.parser.error(f"{given[0]} is for ONNX files: write --out NAME.onnx, or leave it out")


def _write_network(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Writes a pose network, and returns its name and, for ONNX files, the numerical difference from PyTorch."""
    from posedy.models.network_file import save_weights
    from posedy.models.pretrained import load_checkpoint

    net = load_checkpoint(arguments.checkpoint)
    if arguments.out.suffix.lower() == ".onnx":
        return net.name, _write_onnx(net, arguments)
    save_weights(net, arguments.out, arguments.half)
    return net.name, {}


def _write_detector(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Writes the person detector as ONNX, and returns its name and the numerical difference from PyTorch."""
    from posedy.export.onnx_detector import export_detector_onnx

    report = export_detector_onnx(arguments.out, runtime=arguments.runtime or "onnxruntime", half=arguments.half)
    print(
        "images (1, H, W, 3) uint8 RGB, H and W multiples of 32 -> boxes (1, A, 4) x1, y1, x2, y2 in pixels, scores "
        "(1, A), with duplicates: apply NMS"
    )
    print(
        f"largest difference from PyTorch: {report.difference:.1e} of the largest output (tolerance "
        f"{report.tolerance:.0e}), on noise"
    )
    return _DETECTOR, {"difference": report.difference, "tolerance": report.tolerance}


def _write_onnx(net: "PoseNet", arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes an ONNX file, prints its inputs and outputs, and returns its numerical difference from PyTorch."""
    from posedy.export.onnx import TOLERANCE, export_onnx

    calibration = None
    if arguments.calibrate is not None:
        from posedy.inference.calibration import read_calibration

        calibration = read_calibration(net, arguments.calibrate, arguments.annotations, arguments.allow_drop)
    report = export_onnx(
        net,
        arguments.out,
        batch=1 if arguments.batch == "1" else arguments.batch,
        runtime=arguments.runtime or "onnxruntime",
        with_decoding=arguments.decode,
        flip=arguments.flip and (net.skeleton is not None or not arguments.decode),
        half=arguments.half,
        int8=arguments.int8,
        calibration=calibration,
    )
    info = report.info
    (width, height), N = info.input_size, "N" if info.batch == "free" else "1"
    if info.decodes:
        flip = "with the flip test" if info.flip else "without the flip test"
        print(
            f"crops ({N}, {height}, {width}, 3) uint8 RGB -> keypoints ({N}, {info.num_keypoints}, 2), "
            f"scores ({N}, {info.num_keypoints}), {flip}"
        )
    else:
        channels = 3 if net.in_channels == 1 else net.in_channels
        names = info.codec.output_names
        heatmaps = f"heatmaps ({N}, {info.num_keypoints}, {height // 4}, {width // 4})"
        outputs = heatmaps if names == ("heatmaps",) else ", ".join(names)
        print(f"images ({N}, {channels}, {height}, {width}) float32 -> {outputs}")
    print("\n".join(_describe_accuracy(report)))
    numbers: dict[str, Any] = {"difference": report.difference, "tolerance": TOLERANCE}
    if (arguments.half or arguments.int8) and report.agreement is None:
        numbers["rounding"] = report.rounding
    if info.decodes and report.agreement is None:
        numbers |= {"moved_fraction": report.moved_fraction, "largest_distance": report.largest_distance}
    if report.agreement is not None:
        numbers |= dataclasses.asdict(report.agreement)
        numbers |= {"float_layers": list(info.float_layers or ()), "accuracy": report.accuracy}
    return numbers


def _describe_accuracy(report: "ExportReport") -> list[str]:
    """Returns the lines about the differences from PyTorch."""
    from posedy.export.onnx import MOVED_PIXELS, TOLERANCE

    largest = "of the largest score" if report.info.decodes else "of the largest output"
    difference = f"{report.difference:.1e} {largest} (tolerance {TOLERANCE:.0e})"
    inputs = "on noise and smooth shapes"
    if report.agreement is not None:
        layers = report.info.float_layers or ()
        lines = [
            f"largest difference of the float graph from PyTorch: {difference}, {inputs}",
            f"layers in float32: {', '.join(layers) or 'none'}, and those that compute the outputs",
            f"int8 and float graph, on other images than those of the calibration: {report.agreement}",
        ]
        return lines if report.accuracy is None else [*lines, report.accuracy]
    if report.info.weights == "float32":
        lines = [f"largest difference from PyTorch: {difference}, {inputs}"]
    else:
        lines = [
            f"largest difference from the graph with the rounded weights in float32: {difference}, {inputs}",
            f"largest difference from PyTorch, by rounding the weights: {report.rounding:.1e} {largest}",
        ]
    if report.info.decodes:
        lines.append(
            f"keypoints that moved by more than {MOVED_PIXELS:g} px from PyTorch's: {report.moved_fraction:.1%}, the "
            f"farthest by {report.largest_distance:.3f} px of the crop"
        )
    return lines

"""`posedy export`: write a trained network to a file for PyTorch or another runtime."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posedy.cli.options import add_command, add_import, add_json, write_json

if TYPE_CHECKING:
    from posedy.models.pose_net import PoseNet

_EXAMPLE = """
posedy export runs/dy050/best.pt --out dy050.safetensors --half
posedy export balanced --out pose.onnx --runtime openvino
posedy export nanodet_g_person --out detector.onnx
"""

_DETECTOR = "nanodet_g_person"  # the stem of PERSON_WEIGHTS, whose module imports torch


def register_parser(commands: Any) -> None:
    """Adds the command to the main parser."""
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


def _parse_out(text: str) -> Path:
    if not text.lower().endswith((".onnx", ".safetensors")):
        raise argparse.ArgumentTypeError(
            f"expected NAME.onnx for other runtimes or NAME.safetensors for posedy, got {text}"
        )
    return Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

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
    pose_options = {"--batch": arguments.batch, "--decode": arguments.decode}
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
    from posedy.export.onnx import export_onnx

    report = export_onnx(
        net,
        arguments.out,
        batch=1 if arguments.batch == "1" else arguments.batch,
        runtime=arguments.runtime or "onnxruntime",
        with_decoding=arguments.decode,
        flip=arguments.flip and (net.skeleton is not None or not arguments.decode),
        half=arguments.half,
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
    print(
        f"largest difference from PyTorch: {report.difference:.1e} of the largest output (tolerance "
        f"{report.tolerance:.0e}), on noise and smooth shapes"
    )
    return {"difference": report.difference, "tolerance": report.tolerance}

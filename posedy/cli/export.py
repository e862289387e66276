"""`posedy export`: writes a trained network to a file of its own, for PyTorch or for other runtimes."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posedy.models.pose_net import PoseNet

_SUFFIXES = (".onnx", ".safetensors")


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser(
        "export", help="write a trained network to a file of its own, for PyTorch or for other runtimes"
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "checkpoint", type=Path, metavar="NAME|CHECKPOINT", help="a shipped network, or a file such as runs/x/best.pt"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="NAME.onnx for other runtimes, NAME.safetensors for posedy"
    )
    parser.add_argument("--half", action="store_true", help="weights in float16: half the size")
    of_onnx = parser.add_argument_group("ONNX files")
    of_onnx.add_argument(
        "--batch", choices=("free", "1"), help="images of a call: any number, or 1 (default: the runtime's fastest)"
    )
    of_onnx.add_argument(
        "--runtime", choices=("onnxruntime", "openvino"), help="what will run the file (default: onnxruntime)"
    )
    of_onnx.add_argument(
        "--decode", action="store_true", help="uint8 crops in, keypoints and scores out, instead of heatmaps"
    )
    of_onnx.add_argument(
        "--no-flip", dest="flip", action="store_false", help="with --decode, leave out the mirrored crop: half the time"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        OSError, ValueError: if the network cannot be read or the file not be written, or the two differ.
    """
    out = arguments.out
    if out.suffix not in _SUFFIXES:
        raise ValueError(f"--out is NAME.onnx for other runtimes or NAME.safetensors for posedy, got {out}")
    if not arguments.flip and not arguments.decode:
        raise ValueError("--no-flip belongs to --decode: graphs of heatmaps leave the mirrored crop to who runs them")
    if out.suffix == ".safetensors":
        given = {"--batch": arguments.batch, "--runtime": arguments.runtime, "--decode": arguments.decode}
        unfit = [option for option, value in given.items() if value]
        if unfit:
            raise ValueError(f"{unfit[0]} is for ONNX files: write --out NAME.onnx, or leave it out")
    else:
        from posedy.export.runtimes import require

        require("onnx", "onnxscript", arguments.runtime or "onnxruntime")
    from posedy.files import check_can_write
    from posedy.models.pretrained import load_checkpoint, save_weights

    check_can_write(out)
    net = load_checkpoint(arguments.checkpoint)
    if out.suffix == ".safetensors":
        save_weights(net, out, arguments.half)
    else:
        _write_onnx(net, arguments)
    print(f"wrote {out}: {net.name}, {out.stat().st_size / 1e6:.1f} MB")
    return 0


def _write_onnx(net: "PoseNet", arguments: argparse.Namespace) -> None:
    """Writes and tells what goes in, what comes out, and how close it is to PyTorch."""
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
        mirrored = "averaged with the mirrored crop" if info.flip else "without the mirrored crop"
        print(
            f"crops ({N}, {height}, {width}, 3) uint8 RGB -> keypoints ({N}, {info.num_keypoints}, 2), "
            f"scores ({N}, {info.num_keypoints}), {mirrored}"
        )
    else:
        channels = 3 if net.in_channels == 1 else net.in_channels
        print(
            f"images ({N}, {channels}, {height}, {width}) float32 -> "
            f"heatmaps ({N}, {info.num_keypoints}, {height // 4}, {width // 4})"
        )
    print(
        f"largest difference from PyTorch {report.difference:.1e} of the largest output "
        f"({report.tolerance:.0e} is allowed), on noise and soft shapes"
    )

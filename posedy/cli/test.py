"""`posedy test`: evaluate a network on a COCO dataset."""

import argparse
from pathlib import Path
from typing import Any

from posedy.cli.options import add_command, add_config, add_device, add_import, add_json, write_json

_EXAMPLE = """
posedy test configs/coco/dy_mobilenetv2_050-dy_bneck.yaml data.root=/data/coco \\
    --checkpoint runs/dy050/best.pt --boxes gt --out runs/dy050/test-gt
"""


def register_parser(commands: Any) -> None:
    """Adds the command `posedy test` to the parser of all commands."""
    parser = add_command(commands, "test", "evaluate a network on a COCO dataset", _EXAMPLE)
    add_config(parser, "data.root=/data/coco eval.flip=false")
    required = parser.add_argument_group("required options")
    required.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="MODEL",
        help="a .pt, .safetensors or .onnx file, a preset or the name of a pretrained network",
    )
    required.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for metrics.json, results.json and persons.jpg",
    )
    parser.add_argument(
        "--boxes",
        action="append",
        metavar="gt|FILE",
        help="ground-truth boxes (gt), or a COCO results file of a detector; repeatable: each gets its own folder in "
        "--out (default: data.boxes, or gt)",
    )
    add_device(parser)
    add_import(parser)
    add_json(parser)
    parser.description = (
        f"{parser.description}\n\nCONFIG gives the data and the evaluation, MODEL records the network. "
        "model.input_size=[W,H] tests with crops of another size.\n\n"
        "Under torchrun, each process predicts a share of the persons."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy test`: evaluates a network on a COCO dataset.

    Raises:
        OSError, ValueError: if a file is missing or invalid, or the files do not fit each other.
    """
    from posedy.config import load_config, override_keys
    from posedy.evaluation.processes import is_main, join_processes, printing_once
    from posedy.evaluation.testing import evaluate_checkpoint
    from posedy.system import keep_freed_memory, local_device

    keep_freed_memory()
    config = load_config(arguments.config, arguments.overrides)
    choices = arguments.boxes or [str(config.data.boxes or "gt")]
    explicit = [key.removeprefix("model.") for key in override_keys(arguments.overrides) if key.startswith("model.")]
    names = [Path(boxes).stem for boxes in choices]
    if len(set(names)) < len(names):
        arguments.parser.error(f"--boxes: expected distinct file names, as they name the folders, got {choices}")
    metrics = {}
    accelerator, device = join_processes(), local_device(arguments.device)
    with printing_once(accelerator):
        for boxes, name in zip(choices, names, strict=True):
            config.data.boxes = None if boxes == "gt" else Path(boxes)
            out = arguments.out if len(choices) == 1 else arguments.out / name
            metrics[name] = evaluate_checkpoint(config, arguments.checkpoint, out, device, accelerator, explicit)
        if len(choices) > 1:
            print("\n" + "\n".join(f"AP {numbers['AP']:.3f}  boxes={name}" for name, numbers in metrics.items()))
    if is_main(accelerator):
        write_json(arguments.json, metrics if len(choices) > 1 else metrics[names[0]])
    return 0

"""`posedy test`: measures a network on a COCO set."""

import argparse
from pathlib import Path
from typing import Any

from posedy.cli.options import add_config, add_json, write_json


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("test", help="measure a network on a COCO set")
    add_config(parser)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a .pt or .safetensors file")
    parser.add_argument(
        "--boxes",
        action="append",
        metavar="FILE",
        help="'gt', or a detector's boxes as COCO results; given several times, each has a folder of its own in OUT; "
        "default: data.boxes, else gt",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for metrics.json, results.json, persons.jpg")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        OSError, ValueError: if a file is missing or does not fit the others.
    """
    from posedy.config import load_config
    from posedy.evaluation.testing import measure_checkpoint
    from posedy.system import keep_freed_memory

    keep_freed_memory()
    config = load_config(arguments.config, arguments.overrides)
    choices = arguments.boxes or [str(config.data.boxes or "gt")]
    names = [Path(boxes).stem for boxes in choices]
    if len(set(names)) < len(names):
        arguments.parser.error(
            f"--boxes: the names of {', '.join(choices)} are those of their folders, and not distinct"
        )
    measured = {}
    for boxes, name in zip(choices, names, strict=True):
        config.data.boxes = None if boxes == "gt" else Path(boxes)
        out = arguments.out if len(choices) == 1 else arguments.out / name
        measured[name] = measure_checkpoint(config, arguments.checkpoint, out, arguments.device)
    if len(choices) > 1:
        print("\n" + "\n".join(f"AP {numbers['AP']:.3f}  boxes={name}" for name, numbers in measured.items()))
    write_json(arguments.json, measured if len(choices) > 1 else measured[names[0]])
    return 0

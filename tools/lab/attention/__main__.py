"""Inspects the attention of a trained dynamic network: `python -m tools.lab.attention runs/x/best.pt`."""

import argparse
from pathlib import Path

from posedy.cli.options import add_json, write_json
from posedy.config import load_classifier_config, load_config
from posedy.models.pretrained import is_classifier
from tools.lab.attention.inspection import find_config, inspect_checkpoint
from tools.lab.entry import run_and_exit


def main(argv: list[str] | None = None) -> None:
    """Measures AP or top-1 with replaced attention, and plots the attention of each layer."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.attention", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a .pt or .safetensors file, for example runs/x/best.pt")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for example data.root=/data/coco eval.flip=false"
    )
    parser.add_argument(
        "--config", type=Path, help="configuration file; default: config.yaml in the folder of CHECKPOINT"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="output folder for inspection.json and attention.png; default: inspect/ in the folder of CHECKPOINT",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    add_json(parser)
    arguments = parser.parse_intermixed_args(argv)
    checkpoint = arguments.checkpoint
    load = load_classifier_config if is_classifier(checkpoint) else load_config
    config = load(arguments.config or find_config(checkpoint), arguments.overrides)
    out = arguments.out or checkpoint.parent / "inspect"
    write_json(arguments.json, inspect_checkpoint(config, checkpoint, out, arguments.device))


if __name__ == "__main__":
    run_and_exit(main, "attention")

"""`posedy check`: says what is wrong with a COCO keypoint file."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from posedy.cli.options import add_json, write_json


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("check", help="say what is wrong with a COCO keypoint file")
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--images", type=Path, help="the folder of its images, to check them too")
    parser.add_argument("--decode", action="store_true", help="decode every image, to find damage inside")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; the exit status is 1 if the file cannot be used."""
    from posedy.data.check import check_coco

    report = check_coco(arguments.annotations, arguments.images, arguments.decode)
    print(report.format())
    write_json(arguments.json, {"ok": report.ok, "findings": [dataclasses.asdict(item) for item in report.findings]})
    return 0 if report.ok else 1

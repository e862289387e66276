"""`posedy check`: validate a COCO keypoint file."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from posedy.cli.options import add_command, add_json, write_json


def register_parser(commands: Any) -> None:
    """Adds the command `posedy check` to the parser of all commands."""
    parser = add_command(
        commands,
        "check",
        "validate a COCO keypoint file and its images",
        "posedy check annotations/person_keypoints_val2017.json --images val2017 --decode",
    )
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS", help="a COCO keypoint annotation file")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="also check the images in this folder")
    parser.add_argument("--decode", action="store_true", help="decode every image completely, to find damaged data")
    add_json(parser, "the issues")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy check`: validates an annotation file; returns 1 if it is invalid.

    Raises:
        OSError: if the file cannot be read.
    """
    from posedy.data.check import check_coco

    report = check_coco(arguments.annotations, arguments.images, arguments.decode)
    print(report.format())
    issues = [dataclasses.asdict(item) for item in report.issues]
    write_json(arguments.json, {"ok": report.ok, "flip_pairs": report.flip_pairs, "issues": issues})
    return 0 if report.ok else 1

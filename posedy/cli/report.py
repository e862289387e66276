"""`posedy report`: an HTML report of an evaluation."""

import argparse
from pathlib import Path
from typing import Any

from posedy.cli.options import add_command, add_skeleton, read_skeleton


def register_parser(commands: Any) -> None:
    """Adds the command `posedy report` to the parser of all commands."""
    parser = add_command(
        commands,
        "report",
        "write an HTML report of an evaluation",
        "posedy report runs/dy050/test-gt\n"
        "posedy report results.json --annotations person_keypoints_val2017.json --images val2017",
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="an output folder of posedy test, or a COCO keypoint results file"
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="the ground truth (default: as in posedy test)"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="the folder of images (default: as in posedy test, or no images)"
    )
    add_skeleton(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="output file (default: report.html next to the results)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy report`: writes an HTML report of an evaluation.

    Raises:
        OSError, ValueError: if a file is missing or invalid, or the files do not fit each other.
    """
    from posedy.evaluation.report.builder import write_report

    path = write_report(
        arguments.source, arguments.out, arguments.annotations, arguments.images, read_skeleton(arguments)
    )
    print(f"wrote {path}")
    return 0

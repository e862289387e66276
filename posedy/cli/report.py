"""`posedy report`: one HTML file that says what an AP is made of."""

import argparse
from pathlib import Path
from typing import Any

from posedy.cli.options import add_skeleton, read_skeleton


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("report", help="one HTML file that says what an AP is made of")
    parser.add_argument("source", type=Path, help="a folder that posedy test wrote, or a COCO keypoint results file")
    parser.add_argument("--annotations", type=Path, help="the truth; default: what the test was made on")
    parser.add_argument(
        "--images", type=Path, help="the folder of photos; default: those of the test, else no pictures"
    )
    add_skeleton(parser)
    parser.add_argument("--out", type=Path, help="default: report.html beside the results")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        OSError, ValueError: if a file is missing, damaged or does not fit the others.
    """
    from posedy.evaluation.report.builder import write_report

    given = (arguments.out, arguments.annotations, arguments.images, read_skeleton(arguments))
    print(f"wrote {write_report(arguments.source, *given)}")
    return 0

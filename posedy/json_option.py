"""The option `--json FILE` of commands that print numbers."""

import argparse
from pathlib import Path
from typing import Any

from posedy.files import write_json_atomically


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the option."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a JSON file too")


def write_json(path: Path | None, value: Any) -> None:
    """Writes the numbers, if a file was given."""
    if path is not None:
        write_json_atomically(path, value, indent=2)

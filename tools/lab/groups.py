"""Options and output of the comparisons of two groups, such as several seeds of two networks."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def add_groups(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the options `--first` and `--second`, the paths of both groups."""
    for name in ("first", "second"):
        parser.add_argument(
            f"--{name}", type=Path, nargs="+", required=True, metavar="PATH", help=f"{what} of the {name} group"
        )


def print_comparison(result: Mapping[str, Any], metric: str, decimals: int, source: Path) -> None:
    """Prints the metric of each member of both groups, and the difference of the means with its interval.

    Args:
        result: `first` and `second` with the values of the members, `difference`, `low`, `high` and `images`.
        metric: name of the metric.
        decimals: number of decimals.
        source: where the images are from.
    """
    for name in ("first", "second"):
        values = result[name]
        members = ", ".join(f"{value:.{decimals}f}" for value in values)
        print(f"{name}: {metric} {np.mean(values):.{decimals}f} ({members})")
    difference, low, high = (f"{result[key]:+.{decimals}f}" for key in ("difference", "low", "high"))
    print(f"second - first: {difference} ({low} to {high}) on {result['images']} images of {source}")

"""Options and output of the comparisons of two groups, such as several seeds of two networks."""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

_CONFIDENCE = 0.95


def interval_over_seeds(values: Sequence[float]) -> list[float]:
    """Returns the 95 % interval of the mean of at least two values, such as gains of several seeds.

    mean +- t s / sqrt(n),    with the standard deviation s and Student's t
    """
    mean, count = statistics.fmean(values), len(values)
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return [mean - reach, mean + reach]


def add_groups(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the options `--first` and `--second`, the paths of both groups."""
    for name in ("first", "second"):
        parser.add_argument(
            f"--{name}", type=Path, nargs="+", required=True, metavar="PATH", help=f"{what} of the {name} group"
        )


def print_comparison(result: Mapping[str, Any], metric: str, decimals: int, source: Path) -> None:
    """Prints the metric of each member of both groups, and the difference of the means with its intervals.

    One interval is over images, the other over the members, which are paired in their order: it takes two of each.

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
    gains = [after - before for before, after in zip(result["first"], result["second"], strict=False)]
    if len(gains) == len(result["first"]) == len(result["second"]) > 1:
        low, high = (f"{limit:+.{decimals}f}" for limit in interval_over_seeds(gains))
        each = ", ".join(f"{gain:+.{decimals}f}" for gain in gains)
        print(f"over the {len(gains)} pairs ({each}): {low} to {high}")

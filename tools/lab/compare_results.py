"""Compares two groups of results files, such as those of several seeds of two networks, on the same persons.

    python -m tools.lab.compare_results ANNOTATIONS --first runs/static-seed?/test --second runs/dynamic-seed?/test

The AP of a group is the mean over its files. The interval of the difference is a paired bootstrap over images, so it is
that of other images, not of other seeds; the AP of each file is printed, too.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posedy.cli.options import add_json, write_json
from posedy.data.coco import GroundTruth
from posedy.data.coco_results import read_results
from posedy.evaluation.bootstrap import RESAMPLES, MeanMetrics, WeightedMetrics, paired_difference
from posedy.evaluation.coco_eval import match_results
from tools.lab.entry import run_and_exit
from tools.lab.groups import add_groups, print_comparison


def compare_results(
    ground_truth: GroundTruth, first: Sequence[Path], second: Sequence[Path], resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Compares the AP of two groups of results files.

    Args:
        ground_truth: the ground truth of all files.
        first: COCO keypoint results, or folders with results.json.
        second: likewise.
        resamples: number of bootstrap resamples.

    Returns:
        The AP of each file of both groups, and the difference of the means, second minus first, with its 95 % interval.

    Raises:
        OSError, ValueError: if a file is missing or invalid.
    """
    groups = []
    for paths in (first, second):
        files = [path / "results.json" if path.is_dir() else path for path in paths]
        results = [read_results(file, ground_truth.num_keypoints) for file in files]
        groups.append(MeanMetrics([WeightedMetrics(match_results(ground_truth, each)) for each in results]))
    difference, interval = paired_difference(*groups, resamples)["AP"]
    ones = np.ones(groups[0].num_images, dtype=np.int64)
    before, after = ([metrics(ones)["AP"] for metrics in group.each] for group in groups)
    return {
        "images": len(ones),
        "first": before,
        "second": after,
        "difference": difference,
        "low": interval.low,
        "high": interval.high,
    }


def main(argv: list[str] | None = None) -> None:
    """Prints the AP of two groups of results files, and the difference of their means with a 95 % interval."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.compare_results", description=main.__doc__)
    parser.add_argument("annotations", type=Path, help="the ground truth, a COCO keypoint file")
    add_groups(parser, "results files, or folders with results.json,")
    add_json(parser)
    arguments = parser.parse_args(argv)
    result = compare_results(GroundTruth.from_coco(arguments.annotations), arguments.first, arguments.second)
    print_comparison(result, "AP", 3, arguments.annotations)
    write_json(arguments.json, result)


if __name__ == "__main__":
    run_and_exit(main, "compare_results")

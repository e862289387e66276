"""`posedy compare`: the difference in AP and AR between two results files, with confidence intervals."""

import argparse
import math
from pathlib import Path
from typing import Any

from posedy.cli.options import (
    add_command,
    add_ground_truth,
    add_json,
    format_sigmas,
    read_ground_truth,
    write_json,
)


def register_parser(commands: Any) -> None:
    """Adds the command `posedy compare` to the parser of all commands."""
    parser = add_command(
        commands,
        "compare",
        "compare two results files, with confidence intervals",
        "posedy compare baseline/results.json mine/results.json --annotations person_keypoints_val2017.json",
    )
    parser.add_argument(
        "results", type=Path, nargs=2, metavar="RESULTS", help="two COCO keypoint results files, the baseline first"
    )
    add_ground_truth(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy compare`: compares two results files, with confidence intervals.

    Raises:
        OSError, ValueError: if a file is missing or invalid, or the files do not fit each other.
    """
    from posedy.data.coco_results import read_results
    from posedy.evaluation.bootstrap import bootstrap_difference
    from posedy.evaluation.coco_eval import METRIC_NAMES, evaluate_keypoints, format_number, metrics_to_json
    from posedy.evaluation.plausibility import warn_of_doubts

    ground_truth = read_ground_truth(arguments)
    first, second = (read_results(path, ground_truth.num_keypoints) for path in arguments.results)
    before, after = (
        evaluate_keypoints(ground_truth, results, backend=arguments.backend) for results in (first, second)
    )
    warn_of_doubts(ground_truth, first, before, str(arguments.results[0]))
    warn_of_doubts(ground_truth, second, after, str(arguments.results[1]))
    gains = bootstrap_difference(ground_truth, (first, second))
    protocol = (
        f"{arguments.results[1]} ({len(second)} poses) against {arguments.results[0]} ({len(first)} poses), all "
        f"{len(ground_truth.image_ids)} images, no rescoring or suppression{format_sigmas(ground_truth)}; 95 % "
        "confidence interval of the difference: paired bootstrap over images"
    )
    print(f"{protocol}\n{'':>5}{'first':>8}{'second':>8}{'gain':>8}  95 %")
    for name in METRIC_NAMES:
        gain, interval = gains[name]
        numbers = [format_number(before[name]), format_number(after[name]), format_number(gain, "+.3f")]
        span = f"  {interval.low:+.3f} to {interval.high:+.3f}" if not math.isnan(interval.low) else ""
        print(f"{name:>5}{''.join(f'{number:>8}' for number in numbers)}{span}")
    record = {
        name: metrics_to_json({"before": before[name], "after": after[name], "difference": gain, **vars(interval)})
        for name, (gain, interval) in gains.items()
    }
    write_json(arguments.json, {**record, "protocol": protocol})
    return 0

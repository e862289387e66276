"""`posedy compare`: what a results file is better by than another, with intervals."""

import argparse
import math
from pathlib import Path
from typing import Any

from posedy.cli.options import add_backend, add_json, add_skeleton, describe_sigmas, read_ground_truth, write_json


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("compare", help="what a results file is better by than another, with intervals")
    parser.add_argument("results", type=Path, nargs=2, help="two COCO keypoint results files, the baseline first")
    parser.add_argument("--annotations", type=Path, required=True, help="the truth, like person_keypoints_val2017.json")
    add_skeleton(parser)
    add_backend(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        OSError, ValueError: if a file is missing, damaged or does not fit the others.
    """
    from posedy.data.coco_results import read_results
    from posedy.evaluation.bootstrap import bootstrap_difference
    from posedy.evaluation.coco_eval import METRIC_NAMES, evaluate_keypoints, format_number, metrics_to_json

    truth = read_ground_truth(arguments)
    first, second = (read_results(path, truth.num_keypoints) for path in arguments.results)
    before, after = (evaluate_keypoints(truth, results, backend=arguments.backend) for results in (first, second))
    gains = bootstrap_difference(truth, (first, second))
    protocol = (
        f"{arguments.results[1]} ({len(second)} poses) against {arguments.results[0]} ({len(first)}), all "
        f"{len(truth.image_ids)} images, nothing rescored or suppressed{describe_sigmas(truth)}; 95 % interval of the "
        "difference: bootstrap over images, the same draws for both"
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

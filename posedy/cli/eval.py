"""`posedy eval`: COCO's numbers of a results file."""

import argparse
from pathlib import Path
from typing import Any

from posedy.cli.options import add_backend, add_json, add_skeleton, describe_sigmas, read_ground_truth, write_json


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("eval", help="COCO's numbers of a results file, as it is; needs no photos")
    parser.add_argument("results", type=Path, help="COCO keypoint results")
    parser.add_argument("--annotations", type=Path, required=True, help="the truth, like person_keypoints_val2017.json")
    parser.add_argument(
        "--images", choices=("all", "detected"), default="all", help="count all images, or those with results only"
    )
    add_skeleton(parser)
    add_backend(parser)
    parser.add_argument(
        "--ci", action="store_true", help="add 95 %% intervals: bootstrap over images, 1000 draws with seed 0"
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="add keypoints with PCK, error classes, parts of the persons; in JSON curves",
    )
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        OSError, ValueError: if a file is missing, damaged or does not fit the others.
    """
    from posedy.data.coco_results import read_results
    from posedy.evaluation.analysis import details_to_json, format_details, measure_details
    from posedy.evaluation.bootstrap import bootstrap_intervals
    from posedy.evaluation.coco_eval import evaluate_keypoints, evaluated_images, format_metrics, metrics_to_json

    if arguments.details and arguments.images != "all":
        arguments.parser.error("--details are of all images: leave out --images detected")
    truth = read_ground_truth(arguments)
    results = read_results(arguments.results, truth.num_keypoints)
    metrics = evaluate_keypoints(truth, results, arguments.images, backend=arguments.backend)
    counted = len(evaluated_images(truth, results, arguments.images))
    which = "all images" if arguments.images == "all" else "only images with results"
    protocol = (
        f"{arguments.results.name}, {len(results)} poses, {which} ({counted} of {len(truth.image_ids)}), nothing "
        f"rescored or suppressed{describe_sigmas(truth)}"
    )
    print(format_metrics(metrics, protocol))
    numbers: dict[str, Any] = {**metrics_to_json(metrics), "protocol": protocol}
    if arguments.ci:
        intervals = bootstrap_intervals(truth, results, arguments.images)
        print(f"95 %: {', '.join(f'{name} {interval}' for name, interval in intervals.items())}")
        if scarce := [
            f"{name} in {interval.undefined:.1%}" for name, interval in intervals.items() if interval.undefined
        ]:
            print(f"draws without any person of the size, left out of the interval: {', '.join(scarce)}")
        numbers["intervals"] = {name: metrics_to_json(vars(interval)) for name, interval in intervals.items()}
    if arguments.details:
        details = measure_details(truth, results, backend=arguments.backend)
        print(format_details(details))
        numbers |= details_to_json(details)
    write_json(arguments.json, numbers)
    return 0

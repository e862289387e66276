"""`posedy eval`: AP and AR of a COCO results file."""

import argparse
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
    """Adds the command `posedy eval` to the parser of all commands."""
    parser = add_command(
        commands,
        "eval",
        "compute AP and AR of a COCO results file",
        "posedy eval results.json --annotations person_keypoints_val2017.json --ci --details",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a COCO keypoint results file")
    add_ground_truth(parser)
    parser.add_argument(
        "--images",
        choices=("all", "detected"),
        default="all",
        help="evaluate all images, or only those with results (default: all)",
    )
    parser.add_argument(
        "--ci",
        action="store_true",
        help="add 95 %% confidence intervals: bootstrap over images, 1000 resamples, seed 0",
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="add similarity and PCK per keypoint, error types, and AP of subsets of persons; curves in the JSON file",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy eval`: computes AP and AR of a COCO results file.

    Raises:
        OSError, ValueError: if a file is missing or invalid, or the files do not fit each other.
    """
    if arguments.details and arguments.images != "all":
        arguments.parser.error("--details evaluates all images: leave out --images detected")
    from posedy.data.coco_results import read_results
    from posedy.evaluation.analysis import compute_details, details_to_json, format_details
    from posedy.evaluation.bootstrap import bootstrap_intervals, format_intervals
    from posedy.evaluation.coco_eval import evaluate_keypoints, evaluated_images, format_metrics, metrics_to_json
    from posedy.evaluation.plausibility import warn_of_doubts
    from posedy.poses import format_count

    ground_truth = read_ground_truth(arguments)
    results = read_results(arguments.results, ground_truth.num_keypoints)
    metrics = evaluate_keypoints(ground_truth, results, arguments.images, backend=arguments.backend)
    num_images = len(evaluated_images(ground_truth, results, arguments.images))
    subset = "all images" if arguments.images == "all" else "only images with results"
    protocol = (
        f"{arguments.results.name}, {format_count(len(results), 'pose')}, {subset} "
        f"({num_images} of {len(ground_truth.image_ids)}), no rescoring or suppression{format_sigmas(ground_truth)}"
    )
    print(format_metrics(metrics, protocol))
    warn_of_doubts(ground_truth, results, metrics, str(arguments.results), arguments.images)
    numbers: dict[str, Any] = {**metrics_to_json(metrics), "protocol": protocol}
    if arguments.ci:
        intervals = bootstrap_intervals(ground_truth, results, arguments.images)
        print(format_intervals(intervals))
        numbers["intervals"] = {name: metrics_to_json(vars(interval)) for name, interval in intervals.items()}
    if arguments.details:
        details = compute_details(ground_truth, results, backend=arguments.backend)
        print(format_details(details))
        numbers |= details_to_json(details)
    write_json(arguments.json, numbers)
    return 0

"""The commands `posedy eval`, `compare` and `report`: parse, call, print.

Everything heavy is imported by the command that needs it, so that --help answers at once.
"""

import argparse
from pathlib import Path
from typing import Any

from posedy.json_option import add_json, write_json


def add_eval(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("eval", help="COCO's numbers of a results file, as it is; needs no photos")
    parser.add_argument("results", type=Path, help="COCO keypoint results")
    parser.add_argument("--annotations", type=Path, required=True, help="the truth, like person_keypoints_val2017.json")
    parser.add_argument(
        "--images", choices=("all", "detected"), default="all", help="count all images, or those with results only"
    )
    parser.add_argument(
        "--sigmas", type=float, nargs="+", metavar="S", help="of OKS, one for all or one for each; default: the file's"
    )
    parser.add_argument(
        "--backend", choices=("pycocotools", "hotcoco"), default="pycocotools", help="what computes the numbers"
    )
    parser.add_argument(
        "--ci", action="store_true", help="add 95 %% intervals: bootstrap over images, 1000 draws with seed 0"
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="add keypoints with PCK, error classes, parts of the persons; in JSON curves",
    )
    add_json(parser)
    parser.set_defaults(run=_eval, parser=parser)


def _eval(arguments: argparse.Namespace) -> int:
    from posedy.evaluation.bootstrap import bootstrap_intervals
    from posedy.evaluation.coco_metrics import evaluate_keypoints, evaluated_images, format_metrics, metrics_to_json
    from posedy.evaluation.details import details_to_json, format_details, measure_details
    from posedy.evaluation.results import read_results
    from posedy.evaluation.truth import KeypointTruth

    if arguments.details and arguments.images != "all":
        arguments.parser.error("--details are of all images: leave out --images detected")
    truth = KeypointTruth.from_coco(arguments.annotations)
    results = read_results(arguments.results, truth.num_keypoints)
    sigmas = arguments.sigmas
    if sigmas is not None and len(sigmas) == 1:
        sigmas *= truth.num_keypoints
    metrics = evaluate_keypoints(truth, results, arguments.images, sigmas, arguments.backend)
    counted = len(evaluated_images(truth, results, arguments.images))
    which = "all images" if arguments.images == "all" else "only images with results"
    protocol = (
        f"{arguments.results.name}, {which} ({counted} of {len(truth.image_ids)}), nothing rescored or suppressed"
        + (f", sigmas {', '.join(map('{:g}'.format, sorted(set(sigmas))))}" if sigmas is not None else "")
    )
    print(format_metrics(metrics, protocol))
    numbers: dict[str, Any] = {**metrics_to_json(metrics), "protocol": protocol}
    if arguments.ci:
        intervals = bootstrap_intervals(truth, results, arguments.images, sigmas)
        print(f"95 %: {', '.join(f'{name} {interval}' for name, interval in intervals.items())}")
        numbers["intervals"] = {name: metrics_to_json(vars(interval)) for name, interval in intervals.items()}
    if arguments.details:
        details = measure_details(truth, results, sigmas)
        print(format_details(details))
        numbers |= details_to_json(details)
    write_json(arguments.json, numbers)
    return 0


def add_compare(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("compare", help="what a results file is better by than another, with intervals")
    parser.add_argument("results", type=Path, nargs=2, help="two COCO keypoint results files, the baseline first")
    parser.add_argument("--annotations", type=Path, required=True, help="the truth, like person_keypoints_val2017.json")
    add_json(parser)
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from posedy.evaluation.bootstrap import bootstrap_difference
    from posedy.evaluation.coco_metrics import METRIC_NAMES, evaluate_keypoints, metrics_to_json
    from posedy.evaluation.results import read_results
    from posedy.evaluation.truth import KeypointTruth

    truth = KeypointTruth.from_coco(arguments.annotations)
    first, second = (read_results(path, truth.num_keypoints) for path in arguments.results)
    before, after = (evaluate_keypoints(truth, results) for results in (first, second))
    gains = bootstrap_difference(truth, (first, second))
    protocol = (
        f"{arguments.results[1]} against {arguments.results[0]}, all {len(truth.image_ids)} images, nothing rescored "
        "or suppressed; 95 % interval of the difference: bootstrap over images, the same draws for both"
    )
    print(protocol)
    for name in METRIC_NAMES:
        difference, interval = gains[name]
        span = f"({interval.low:+.3f} to {interval.high:+.3f})"
        print(f"{name:>5} {before[name]:7.3f} {after[name]:7.3f} {difference:+7.3f} {span}")
    numbers = {
        name: metrics_to_json({"before": before[name], "after": after[name], "difference": gain, **vars(interval)})
        for name, (gain, interval) in gains.items()
    }
    write_json(arguments.json, {**numbers, "protocol": protocol})
    return 0


def add_report(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("report", help="one HTML file that says what an AP is made of")
    parser.add_argument("source", type=Path, help="a folder that posedy test wrote, or a COCO keypoint results file")
    parser.add_argument("--annotations", type=Path, help="the truth; default: what the test was made on")
    parser.add_argument(
        "--images", type=Path, help="the folder of photos; default: those of the test, else no pictures"
    )
    parser.add_argument(
        "--sigmas", type=float, nargs="+", metavar="S", help="of OKS, one for all or one for each; default: the file's"
    )
    parser.add_argument("--out", type=Path, help="default: report.html beside the results")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from posedy.report.command import write_report

    given = (arguments.out, arguments.annotations, arguments.images, arguments.sigmas)
    print(f"wrote {write_report(arguments.source, *given)}")
    return 0

"""The commands `posedy eval`, `compare` and `report`: parse, call, print.

Everything heavy is imported by the command that needs it, so that --help answers at once.
"""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posedy.json_option import add_json, write_json

if TYPE_CHECKING:
    from posedy.config import SkeletonConfig
    from posedy.evaluation.truth import KeypointTruth


def add_eval(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("eval", help="COCO's numbers of a results file, as it is; needs no photos")
    parser.add_argument("results", type=Path, help="COCO keypoint results")
    parser.add_argument("--annotations", type=Path, required=True, help="the truth, like person_keypoints_val2017.json")
    parser.add_argument(
        "--images", choices=("all", "detected"), default="all", help="count all images, or those with results only"
    )
    _add_skeleton(parser)
    _add_backend(parser)
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

    if arguments.details and arguments.images != "all":
        arguments.parser.error("--details are of all images: leave out --images detected")
    truth = _truth(arguments)
    results = read_results(arguments.results, truth.num_keypoints)
    metrics = evaluate_keypoints(truth, results, arguments.images, backend=arguments.backend)
    counted = len(evaluated_images(truth, results, arguments.images))
    which = "all images" if arguments.images == "all" else "only images with results"
    protocol = (
        f"{arguments.results.name}, {len(results)} poses, {which} ({counted} of {len(truth.image_ids)}), nothing "
        f"rescored or suppressed{_sigmas_in_words(truth)}"
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


def add_compare(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("compare", help="what a results file is better by than another, with intervals")
    parser.add_argument("results", type=Path, nargs=2, help="two COCO keypoint results files, the baseline first")
    parser.add_argument("--annotations", type=Path, required=True, help="the truth, like person_keypoints_val2017.json")
    _add_skeleton(parser)
    _add_backend(parser)
    add_json(parser)
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from posedy.evaluation.bootstrap import bootstrap_difference
    from posedy.evaluation.coco_metrics import METRIC_NAMES, evaluate_keypoints, format_number, metrics_to_json
    from posedy.evaluation.results import read_results

    truth = _truth(arguments)
    first, second = (read_results(path, truth.num_keypoints) for path in arguments.results)
    before, after = (evaluate_keypoints(truth, results, backend=arguments.backend) for results in (first, second))
    gains = bootstrap_difference(truth, (first, second))
    protocol = (
        f"{arguments.results[1]} ({len(second)} poses) against {arguments.results[0]} ({len(first)}), all "
        f"{len(truth.image_ids)} images, nothing rescored or suppressed{_sigmas_in_words(truth)}; 95 % interval of the "
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


def _add_skeleton(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a configuration whose data.skeleton holds here too"
    )
    parser.add_argument(
        "--sigmas", type=float, nargs="+", metavar="S", help="of OKS, one for all or one for each; default: the file's"
    )


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=("pycocotools", "hotcoco"),
        default="pycocotools",
        help="what computes AP and AR; intervals are always of what pycocotools matches",
    )


def _truth(arguments: argparse.Namespace) -> "KeypointTruth":
    """The annotation file, with what the configuration and --sigmas say about its keypoints."""
    from posedy.evaluation.truth import KeypointTruth

    return KeypointTruth.from_coco(arguments.annotations, _skeleton(arguments))


def _skeleton(arguments: argparse.Namespace) -> "SkeletonConfig":
    from posedy.config import SkeletonConfig, load_config

    skeleton = load_config(arguments.config).data.skeleton if arguments.config is not None else SkeletonConfig()
    if arguments.sigmas is not None:
        [first, *others] = arguments.sigmas
        skeleton = skeleton.model_copy(update={"sigmas": arguments.sigmas if others else first})
    return skeleton


def _sigmas_in_words(truth: "KeypointTruth") -> str:
    """The sigmas in the order of the keypoints, if the category does not leave them to COCO."""
    sigmas = truth.category.get("sigmas")
    return "" if sigmas is None else f", sigmas {', '.join(f'{sigma:g}' for sigma in sigmas)}"


def add_report(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("report", help="one HTML file that says what an AP is made of")
    parser.add_argument("source", type=Path, help="a folder that posedy test wrote, or a COCO keypoint results file")
    parser.add_argument("--annotations", type=Path, help="the truth; default: what the test was made on")
    parser.add_argument(
        "--images", type=Path, help="the folder of photos; default: those of the test, else no pictures"
    )
    _add_skeleton(parser)
    parser.add_argument("--out", type=Path, help="default: report.html beside the results")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from posedy.report.command import write_report

    given = (arguments.out, arguments.annotations, arguments.images, _skeleton(arguments))
    print(f"wrote {write_report(arguments.source, *given)}")
    return 0

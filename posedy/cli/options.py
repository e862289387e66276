"""Options that several commands share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posedy.files import write_json_atomically

if TYPE_CHECKING:
    from posedy.config import SkeletonConfig
    from posedy.data.coco import GroundTruth


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json FILE`, of commands that print numbers."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a JSON file too")


def write_json(path: Path | None, value: Any) -> None:
    """Writes the numbers, if a file was given."""
    if path is not None:
        write_json_atomically(path, value, indent=2)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds a configuration file and settings as `key=value`."""
    parser.add_argument("config", type=Path, help="a YAML file, such as configs/coco/dy_mobilenetv2_050-dy_bneck.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as data.root=/data/coco train.epochs=210"
    )


def add_skeleton(parser: argparse.ArgumentParser) -> None:
    """Adds what is said about keypoints in place of the annotation file."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a configuration whose data.skeleton holds here too"
    )
    parser.add_argument(
        "--sigmas", type=float, nargs="+", metavar="S", help="of OKS, one for all or one for each; default: the file's"
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of what computes AP."""
    parser.add_argument(
        "--backend",
        choices=("pycocotools", "hotcoco"),
        default="pycocotools",
        help="what computes AP and AR; intervals are always of what pycocotools matches",
    )


def read_ground_truth(arguments: argparse.Namespace) -> "GroundTruth":
    """The annotation file, with what the configuration and --sigmas say about its keypoints."""
    from posedy.data.coco import GroundTruth

    return GroundTruth.from_coco(arguments.annotations, read_skeleton(arguments))


def read_skeleton(arguments: argparse.Namespace) -> "SkeletonConfig":
    """What `--config` and `--sigmas` say about the keypoints."""
    from posedy.config import SkeletonConfig, load_config

    skeleton = load_config(arguments.config).data.skeleton if arguments.config is not None else SkeletonConfig()
    if arguments.sigmas is not None:
        [first, *others] = arguments.sigmas
        skeleton = skeleton.model_copy(update={"sigmas": arguments.sigmas if others else first})
    return skeleton


def describe_sigmas(truth: "GroundTruth") -> str:
    """The sigmas in the order of the keypoints, if the category does not leave them to COCO."""
    sigmas = truth.category.get("sigmas")
    return "" if sigmas is None else f", sigmas {', '.join(f'{sigma:g}' for sigma in sigmas)}"


def box_threshold(text: str) -> float:
    """The score from 0 to 1 that a word of a command line means.

    Raises:
        argparse.ArgumentTypeError: if it is another.
    """
    try:
        score = float(text)
    except ValueError:
        score = float("nan")
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a score from 0 to 1")
    return score

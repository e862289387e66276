"""Compares two groups of classifiers, such as several seeds of two architectures, on the same images.

    python -m tools.lab.compare_classifiers ROOT --first runs/static-seed?/last.pt --second runs/dynamic-seed?/last.pt

The top-1 of a group is the mean over its networks. The interval of the difference is a bootstrap over images, so it is
that of other images, not of other seeds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from posedy.cli.options import add_json, write_json
from posedy.config import ClassifierEvalConfig
from posedy.data.image_folder import LabeledImages
from posedy.evaluation.classifier_eval import ClassifierTest
from posedy.models.pretrained import load_classifier
from tools.lab.entry import run_and_exit
from tools.lab.groups import add_groups, print_comparison

_RESAMPLES = 10_000


def compare_classifiers(first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int = 0) -> dict[str, Any]:
    """Compares the correct predictions of two groups of networks.

    Args:
        first: (A, N) whether each of A networks is right on each of N images.
        second: (B, N).
        seed: seed of the bootstrap.

    Returns:
        The mean top-1 of both, by network, and the difference with its 95 % interval.
    """
    difference = second.mean(axis=0) - first.mean(axis=0)
    rng = np.random.default_rng(seed)
    uniform = np.full(len(difference), 1 / len(difference))
    means = [rng.multinomial(len(difference), uniform) @ difference / len(difference) for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "images": len(difference),
        "first": first.mean(axis=1).tolist(),
        "second": second.mean(axis=1).tolist(),
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
    }


def _predict(paths: Sequence[Path], images: LabeledImages, config: ClassifierEvalConfig) -> NDArray[np.bool_]:
    """Returns whether each network is right on each image."""
    accelerator, right = Accelerator(cpu=True), []
    for path in paths:
        net = load_classifier(path)
        test = ClassifierTest(
            images.with_classes(net.classes, str(path)), net.input_size[0], config, accelerator, progress=True
        )
        right.append(test.predict_ranks(net).numpy() == 0)
    return np.stack(right)


def main(argv: list[str] | None = None) -> None:
    """Prints the top-1 of two groups of classifiers, and their difference with a 95 % interval."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.compare_classifiers", description=main.__doc__)
    parser.add_argument("root", type=Path, help="folder with val/CLASS/IMAGE")
    parser.add_argument("--split", default="val", help="folder of ROOT (default: val)")
    parser.add_argument(
        "--resize",
        type=float,
        default=256 / 224,
        help="shorter side of the resized images relative to the crops (default: 256 / 224)",
    )
    add_groups(parser, "checkpoints")
    add_json(parser)
    arguments = parser.parse_args(argv)
    images = LabeledImages.read(arguments.root, arguments.split)
    config = ClassifierEvalConfig(resize=arguments.resize)
    result = compare_classifiers(*(_predict(group, images, config) for group in (arguments.first, arguments.second)))
    print_comparison(result, "top-1", 4, images.folder)
    write_json(arguments.json, result)


if __name__ == "__main__":
    run_and_exit(main, "compare_classifiers")

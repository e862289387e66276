"""Generates a dataset of synthetic people in COCO's format: `python -m tools.lab.synthetic data/synthetic`."""

import argparse
from pathlib import Path

from posedy.cli.options import add_json, write_json
from tools.lab.difficulty import measure_difficulty
from tools.lab.entry import run_and_exit
from tools.lab.synthetic import generate_dataset
from tools.lab.synthetic.layout import keypoints_file


def main(argv: list[str] | None = None) -> None:
    """Generates the dataset and prints its difficulty."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.synthetic", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the dataset, for example data/synthetic")
    parser.add_argument("--train", type=int, default=700, help="number of training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=128, help="number of validation images (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed; it determines the dataset (default: %(default)s)"
    )
    add_json(parser)
    arguments = parser.parse_args(argv)
    statistics = generate_dataset(arguments.out, arguments.train, arguments.val, arguments.seed, progress=True)
    report = {}
    for split, split_statistics in statistics.items():
        report[split] = measure_difficulty(split_statistics, arguments.out / keypoints_file(split))
        values = [
            f"{name} {value if isinstance(value, int) else f'{value:.3f}'}" for name, value in report[split].items()
        ]
        print(f"{split}: {', '.join(values)}")
    write_json(arguments.json, report)


if __name__ == "__main__":
    run_and_exit(main, "synthetic")

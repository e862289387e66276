"""Draws a synthetic data set of people in COCO's format: `python -m tools.lab.synthetic data/drawn --train 2000`."""

import argparse
from pathlib import Path

from posedy.cli.options import add_json, write_json
from tools.lab.difficulty import difficulty
from tools.lab.entry import run_and_exit
from tools.lab.synthetic import draw_dataset
from tools.lab.synthetic.layout import keypoints_file


def main(argv: list[str] | None = None) -> None:
    """Draws the set and prints how hard it is."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.synthetic", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder of the data set, such as data/drawn")
    parser.add_argument("--train", type=int, default=700, help="images to train on")
    parser.add_argument("--val", type=int, default=128, help="images to test on")
    parser.add_argument("--seed", type=int, default=0, help="which decides everything drawn")
    add_json(parser)
    arguments = parser.parse_args(argv)
    statistics = draw_dataset(arguments.out, arguments.train, arguments.val, arguments.seed, progress=True)
    report = {}
    for split, drawn in statistics.items():
        report[split] = difficulty(drawn, arguments.out / keypoints_file(split))
        numbers = [
            f"{name} {value if isinstance(value, int) else f'{value:.3f}'}" for name, value in report[split].items()
        ]
        print(f"{split}: {', '.join(numbers)}")
    write_json(arguments.json, report)


if __name__ == "__main__":
    run_and_exit(main, "synthetic")

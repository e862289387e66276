"""The steps of `make quickstart`: run the pretrained network on synthetic people, then train and test a small one.

With an image as argument (`make quickstart IMAGE=me.jpg`), the pretrained network is run on it first; it should show
the full body of one person. Each step is an ordinary command, which is printed before it runs.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from posedy.cli.main import main
from tools.lab.synthetic.__main__ import main as generate

DATA = Path("data/synthetic")
RUN = Path("runs/quickstart")
CONFIG = "configs/synthetic/quickstart.yaml"
BEST = str(RUN / "best.pt")
BOXES = str(DATA / "annotations/person_detections_val2017.json")
ANNOTATIONS = str(DATA / "annotations/person_keypoints_val2017.json")
IMAGES = [str(DATA / f"val2017/{number:012d}.jpg") for number in range(1, 13)]

BOX_OPTIONS = ["--boxes", BOXES, "--annotations", ANNOTATIONS]

STEPS = [
    ["tools.lab.synthetic", str(DATA), "--train", "2000", "--val", "128", "--seed", "0"],
    ["predict", *IMAGES, *BOX_OPTIONS, "--out", str(RUN / "pretrained")],
    ["train", CONFIG, "--out", str(RUN)],
    ["test", CONFIG, "--checkpoint", BEST, "--boxes", "gt", "--out", str(RUN / "test-gt")],
    ["test", CONFIG, "--checkpoint", BEST, "--boxes", BOXES, "--out", str(RUN / "test-detections")],
    ["predict", *IMAGES, "--checkpoint", BEST, *BOX_OPTIONS, "--out", str(RUN / "predictions")],
]


def steps(image: str | None) -> list[list[str]]:
    """Returns all steps; with an image of the user, the first one predicts it."""
    return ([["predict", image, "--full-image", "--out", str(RUN / "image")]] if image is not None else []) + STEPS


def run(argv: list[str] | None = None) -> int:
    """Runs the steps in order, stops at the first failure, and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", help="an image of one person for the pretrained network")
    image = parser.parse_args(argv).image
    started = time.monotonic()
    for step in steps(image):
        if step[0] == "tools.lab.synthetic":
            print(f"\n$ python -m {shlex.join(step)}", flush=True)
            generate(step[1:])
            continue
        print(f"\n$ posedy {shlex.join(step)}", flush=True)
        status = main(step)
        if status:
            return status
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\nDone in {minutes} min {seconds} s.")
    if image is not None:
        print(f"Pretrained network, your image: {RUN / 'image'}")
    print(f"Pretrained network, synthetic people: {RUN / 'pretrained'}")
    print(f"New network: {RUN / 'predictions'} and {RUN / 'test-gt' / 'persons.jpg'}")
    return 0


if __name__ == "__main__":
    sys.exit(run())

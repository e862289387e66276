"""What `make quickstart` runs: the shipped network on drawn people, then a small one trained on them in minutes.

A photo as argument (`make quickstart PHOTO=me.jpg`) is shown to the shipped network first; it should show one person as
a whole. Each step is a command that you can run yourself; they are printed as they start.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from posedy.cli.main import main
from tools.lab.synthetic.__main__ import main as draw

DATA = Path("data/drawn")
RUN = Path("runs/quickstart")
CONFIG = "configs/drawn/quickstart.yaml"
BEST = str(RUN / "best.pt")
BOXES = str(DATA / "annotations/person_detections_val2017.json")
ANNOTATIONS = str(DATA / "annotations/person_keypoints_val2017.json")
PHOTOS = [str(DATA / f"val2017/{number:012d}.jpg") for number in range(1, 13)]

BOXES_OF_PHOTOS = ["--boxes", BOXES, "--annotations", ANNOTATIONS]

STEPS = [
    ["tools.lab.synthetic", str(DATA), "--train", "2000", "--val", "128", "--seed", "0"],
    ["predict", *PHOTOS, *BOXES_OF_PHOTOS, "--out", str(RUN / "shipped")],
    ["train", CONFIG, "--out", str(RUN)],
    ["test", CONFIG, "--checkpoint", BEST, "--boxes", "gt", "--out", str(RUN / "test-gt")],
    ["test", CONFIG, "--checkpoint", BEST, "--boxes", BOXES, "--out", str(RUN / "test-detections")],
    ["predict", *PHOTOS, "--checkpoint", BEST, *BOXES_OF_PHOTOS, "--out", str(RUN / "pictures")],
]


def steps(photo: str | None) -> list[list[str]]:
    """The steps, after the user's own photo if one is given."""
    return ([["predict", photo, "--whole", "--out", str(RUN / "photo")]] if photo is not None else []) + STEPS


def run(words: list[str] | None = None) -> int:
    """Runs the steps one after another; stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", help="of one person, to show to the shipped network")
    photo = parser.parse_args(words).photo
    started = time.monotonic()
    for step in steps(photo):
        if step[0] == "tools.lab.synthetic":
            print(f"\n$ python -m {shlex.join(step)}", flush=True)
            draw(step[1:])
            continue
        print(f"\n$ posedy {shlex.join(step)}", flush=True)
        status = main(step)
        if status:
            return status
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    seen = [*([f"your photo in {RUN / 'photo'}"] if photo is not None else []), f"drawn people in {RUN / 'shipped'}"]
    print(f"\nDone in {minutes} min {seconds} s. What the shipped network sees: {', '.join(seen)}.")
    print(f"The one just trained: {RUN / 'pictures'} and {RUN / 'test-gt' / 'persons.jpg'}.")
    return 0


if __name__ == "__main__":
    sys.exit(run())

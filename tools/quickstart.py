"""What `make quickstart` runs: draws people, trains a small dynamic network on them, tests it and draws what it sees.

Each step is a command that you can run yourself; they are printed as they start.
"""

import shlex
import sys
import time
from pathlib import Path

from posedy.cli import main

DATA = Path("data/drawn")
RUN = Path("runs/quickstart")
CONFIG = "configs/drawn/quickstart.yaml"
BEST = str(RUN / "best.pt")
BOXES = str(DATA / "annotations/person_detections_val2017.json")
ANNOTATIONS = str(DATA / "annotations/person_keypoints_val2017.json")
PHOTOS = [str(DATA / f"val2017/{number:012d}.jpg") for number in range(1, 13)]

STEPS = [
    ["synth", str(DATA), "--train", "2000", "--val", "128", "--seed", "0"],
    ["train", CONFIG, "--out", str(RUN)],
    ["test", CONFIG, "--checkpoint", BEST, "--boxes", "gt", "--out", str(RUN / "test-gt")],
    ["test", CONFIG, "--checkpoint", BEST, "--boxes", BOXES, "--out", str(RUN / "test-detections")],
    [
        *["demo", *PHOTOS, "--checkpoint", BEST, "--boxes", BOXES, "--annotations", ANNOTATIONS],
        *["--out", str(RUN / "pictures")],
    ],
]


def run() -> int:
    """Runs the steps one after another; stops at the first that fails."""
    started = time.monotonic()
    for step in STEPS:
        print(f"\n$ posedy {shlex.join(step)}", flush=True)
        status = main(step)
        if status:
            return status
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\nDone in {minutes} min {seconds} s. Look at {RUN / 'pictures'} and {RUN / 'test-gt' / 'persons.jpg'}.")
    return 0


if __name__ == "__main__":
    sys.exit(run())

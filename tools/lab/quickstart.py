"""The steps of `make quickstart`: predict, test, fine-tune and export the pretrained network on real images, offline.

With an image as argument (`make quickstart IMAGE=me.jpg`), it is predicted first. Each step is an ordinary command,
which is printed before it runs. The exit status is 1 if a step fails or an AP is not as expected.
"""

import argparse
import glob
import importlib
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from posedy.cli.main import main
from posedy.examples import example_images
from posedy.models.pretrained import DEFAULT
from posedy.urls import is_url
from tools.lab.golden import EXPECTED_AP, TOLERANCE

MINI = Path("data/coco_mini")
RUN = Path("runs/quickstart")
FIVE = Path("data/five_keypoints")
KEYPOINTS = ("nose", "left_wrist", "right_wrist", "left_ankle", "right_ankle")
IMAGES = [str(MINI / f"val2017/{image.coco_id:012d}.jpg") for image in example_images()]

_VAL = MINI / "annotations/person_keypoints_val2017.json"
_TRAIN = MINI / "annotations/person_keypoints_train2017.json"
_CONFIG = "configs/real/fine_tune.yaml"  # of the pretrained network
_CONFIG_OF_FIVE = "configs/real/five_keypoints.yaml"
_BEST = RUN / "fine_tuned/best.pt"


@dataclass(frozen=True)
class Part:
    """A part of the quickstart.

    Attributes:
        title: what it shows.
        commands: the commands, which run one after the other; the first word is posedy or the name of a lab command.
        check: prints the result and returns whether it is as expected.
    """

    title: str
    commands: list[str]
    check: Callable[[], bool]


def parts(image: str | None = None) -> list[Part]:
    """Returns the parts of the quickstart; an image of the user is predicted before the others."""
    images = shlex.join(IMAGES if image is None else [image, *IMAGES])
    return [
        Part(
            "Persons in images, by the detector and the pretrained network",
            [f"posedy predict {images} --out {RUN}/images"],
            lambda: _list_drawings(RUN / "images"),
        ),
        Part(
            "Accuracy on 24 images that the network was not trained on",
            [
                f"posedy detect {MINI}/val2017 --annotations {_VAL} --box-threshold 0.3 --out {RUN}/detector.json",
                f"posedy test {_CONFIG} data.root={MINI} eval.flip=false --checkpoint {DEFAULT} "
                f"--boxes gt --boxes {RUN}/detector.json --out {RUN}/test",
            ],
            compare_with_expected,
        ),
        Part(
            "Fine-tuning to five keypoints on 24 other images; the last layer starts at random",
            [
                f"tools.lab.keypoint_subset {_TRAIN} {_VAL} --keypoints {' '.join(KEYPOINTS)} --out {FIVE}",
                f"tools.lab.initial_network {_CONFIG_OF_FIVE} --out {RUN}/before.pt",
                f"posedy test {_CONFIG_OF_FIVE} --checkpoint {RUN}/before.pt --out {RUN}/test_before",
                f"posedy train {_CONFIG_OF_FIVE} --out {_BEST.parent}",
                f"posedy test {_CONFIG_OF_FIVE} --checkpoint {_BEST} --out {RUN}/test_after",
                f"posedy predict {shlex.join(IMAGES)} --checkpoint {_BEST} --out {RUN}/five_keypoints",
            ],
            compare_before_and_after,
        ),
        Part(
            "Export to ONNX, compared with PyTorch, and prediction with the exported network",
            [
                f"posedy export {DEFAULT} --out {RUN}/{DEFAULT}.onnx",
                f"posedy predict {IMAGES[0]} --checkpoint {RUN}/{DEFAULT}.onnx --out {RUN}/onnx",
            ],
            lambda: _list_drawings(RUN / "onnx"),
        ),
    ]


def _list_drawings(folder: Path) -> bool:
    """Prints the drawings in a folder and returns whether there are any."""
    drawings = sorted(folder.glob("*.jpg"))
    print("\n".join(f"open {path}" for path in drawings))
    return bool(drawings)


def _read_ap(folder: Path) -> float:
    return float(json.loads((folder / "metrics.json").read_text())["AP"])


def compare_with_expected() -> bool:
    """Prints the AP of the pretrained network and returns whether it is as expected."""
    passed = True
    for name, boxes in (("gt", "ground-truth boxes"), ("detector", "the detector's boxes")):
        expected, ap = EXPECTED_AP[name], _read_ap(RUN / "test" / name)
        is_near = abs(ap - expected) <= TOLERANCE
        print(f"AP with {boxes}: expected {expected:.3f}, got {ap:.3f}{_verdict(is_near)}")
        passed = passed and is_near
    return passed


def compare_before_and_after() -> bool:
    """Prints the AP before and after the fine-tuning and returns whether it has risen."""
    before, after = _read_ap(RUN / "test_before"), _read_ap(RUN / "test_after")
    has_risen = after > before
    print(f"AP of the five keypoints: {before:.3f} before the fine-tuning, {after:.3f} after{_verdict(has_risen)}")
    return _list_drawings(RUN / "five_keypoints") and has_risen


def _verdict(passed: bool) -> str:
    return "" if passed else ": FAILED"


def run_command(command: str) -> int:
    """Prints and runs a command and returns its exit status."""
    name, *arguments = shlex.split(command)
    print(f"\n$ {command if name == 'posedy' else f'python -m {command}'}", flush=True)
    if name == "posedy":
        return main(arguments)
    try:
        importlib.import_module(name).main(arguments)
    except (OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def run(argv: list[str] | None = None) -> int:
    """Runs the parts in order, stops at the first failure, and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.quickstart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", nargs="?", help="an image of persons")
    image = parser.parse_args(argv).image
    # before the results of an earlier quickstart are deleted
    if image is not None and not (is_url(image) or Path(image).exists() or glob.glob(image)):  # noqa: PTH207
        print(f"python -m tools.lab.quickstart: no image at {image}", file=sys.stderr)
        return 1
    started = time.monotonic()
    if RUN.exists():
        print(f"\n$ rm -r {RUN}")  # training would resume the run of an earlier quickstart
        shutil.rmtree(RUN)
    for number, part in enumerate(parts(image), start=1):
        begin = time.monotonic()
        print(f"\n{number}. {part.title}", flush=True)
        for command in part.commands:
            status = run_command(command)
            if status:
                return status
        print()
        if not part.check():
            return 1
        print(f"{time.monotonic() - begin:.0f} s")
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"\nDone in {minutes} min {seconds} s; all files are in {RUN} and {FIVE}")
    print("`. .venv/bin/activate` makes the command posedy available")
    return 0


if __name__ == "__main__":
    sys.exit(run())

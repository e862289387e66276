"""Images without persons, to count the false boxes of a detector.

python -m tools.lab.no_persons --annotations COCO/annotations/person_keypoints_train2017.json --images COCO/train2017 \
    --out no_persons
posedy detect no_persons --out boxes.json --box-threshold 0.4

They are regions of training images and drawn backgrounds. A region is the largest of the strips to the left, to the
right, above and below all labeled persons of an image, at least 32 pixels from their boxes. The labels lack crowds and
persons without keypoints: regions in which the eye finds a person are left out by the image ids in `WITH_PERSONS`.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.geometry import xywh_to_xyxy
from posedy.images import read_image, rgb_to_bgr
from tools.lab.entry import run_and_exit
from tools.lab.synthetic.background import draw_background, draw_distractor
from tools.lab.synthetic.canvas import Canvas

WITH_PERSONS = frozenset(
    (39785, 48555, 107851, 132408, 160031, 184703, 190676, 210394, 225792, 229317, 262703, 397303, 462904)
)
"""Ids of the training images, among the first 60 with a region, whose region shows a person or may show one."""

MARGIN = 32
"""Smallest distance in pixels of a region from a labeled person."""

_MIN_SIDE = 160
_REGIONS, _BACKGROUNDS = 60, 20
_DISTRACTORS = 4


def find_region(size: tuple[int, int], boxes: NDArray[np.float64]) -> tuple[int, int, int, int] | None:
    """Finds the largest strip of an image beside all persons.

    Args:
        size: (width, height) of the image.
        boxes: (P, 4) xyxy of the persons in its pixels, at least one.

    Returns:
        x1, y1, x2, y2; None if each strip has a side of less than 160 pixels.
    """
    width, height = size
    left, top = np.floor(boxes[:, :2].min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(boxes[:, 2:].max(axis=0)).astype(int).tolist()
    strips = [
        (0, 0, left - MARGIN, height),
        (right + MARGIN, 0, width, height),
        (0, 0, width, top - MARGIN),
        (0, bottom + MARGIN, width, height),
    ]
    large = [strip for strip in strips if min(strip[2] - strip[0], strip[3] - strip[1]) >= _MIN_SIDE]
    return max(large, key=lambda strip: (strip[2] - strip[0]) * (strip[3] - strip[1]), default=None)


def find_regions(content: Mapping[str, Any]) -> dict[str, tuple[int, int, int, int]]:
    """Returns regions without persons of 60 random images of a COCO file: (x1, y1, x2, y2) by file name."""
    boxes: dict[int, list[Any]] = defaultdict(list)
    for annotation in content["annotations"]:
        boxes[annotation["image_id"]].append(annotation["bbox"])
    images = [image for image in content["images"] if boxes[image["id"]]]
    found = []
    for index in np.random.default_rng(0).permutation(len(images)):
        image = images[index]
        region = find_region((image["width"], image["height"]), xywh_to_xyxy(np.array(boxes[image["id"]], float)))
        if region is not None:
            found.append((image, region))
        if len(found) == _REGIONS:
            break
    return {image["file_name"]: region for image, region in found if image["id"] not in WITH_PERSONS}


def draw_backgrounds(count: int) -> list[NDArray[np.uint8]]:
    """Draws backgrounds (480, 640, 3) BGR with objects, as those of the synthetic dataset without its persons."""
    backgrounds = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        canvas = Canvas(draw_background(rng, 640, 480))
        for _ in range(_DISTRACTORS):
            draw_distractor(rng, canvas)
        backgrounds.append(canvas.image())
    return backgrounds


def main(argv: list[str] | None = None) -> None:
    """Writes the images as PNG files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--annotations", type=Path, required=True, help="COCO keypoint file of the training images")
    parser.add_argument("--images", type=Path, required=True, help="their folder")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    arguments = parser.parse_args(argv)
    regions = find_regions(json.loads(arguments.annotations.read_bytes()))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, (x1, y1, x2, y2) in regions.items():
        image = rgb_to_bgr(read_image(arguments.images / name))[y1:y2, x1:x2]
        cv2.imwrite(str(arguments.out / f"region_{Path(name).stem}.png"), image)
    for index, background in enumerate(draw_backgrounds(_BACKGROUNDS)):
        cv2.imwrite(str(arguments.out / f"background_{index:02d}.png"), background)
    print(f"wrote {len(regions)} regions and {_BACKGROUNDS} backgrounds to {arguments.out}")


if __name__ == "__main__":
    run_and_exit(main, "no_persons")

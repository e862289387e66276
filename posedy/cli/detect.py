"""`posedy detect`: person boxes of images, in a file for `posedy test` and `posedy predict`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from posedy.cli.options import box_threshold

# AP is taken over all scores: leaving boxes out here can only lower it. The demo leaves out what it does not show.
_THRESHOLD = 0.01


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("detect", help="find the persons of images with torchvision's detector")
    parser.set_defaults(run=run)
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders of photos, or patterns")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="an object with images and annotations, in upright pixels, for posedy demo --boxes FILE; with "
        "--annotations a COCO results list, in stored pixels, for posedy test --boxes FILE too",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="a COCO file that gives the photos their names and ids; posedy demo takes it beside the list, and knows "
        "photos without persons by it",
    )
    parser.add_argument("--detector-weights", type=Path, metavar="FILE", help="default: torchvision's, fetched once")
    parser.add_argument(
        "--box-threshold",
        type=box_threshold,
        default=_THRESHOLD,
        metavar="SCORE",
        help="leave out boxes under it, from 0 to 1 (default: %(default)s, since AP counts the unsure ones too)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command: 0 when all photos were looked at, 1 when some could not be.

    Raises:
        OSError, ValueError: if an argument does not fit, or no photo could be looked at; nothing is written then.
    """
    from tqdm import tqdm

    from posedy.data.detections import boxes_to_annotations, boxes_to_results
    from posedy.files import check_can_write, write_json_atomically
    from posedy.images import image_paths
    from posedy.inference.detect import (
        detect_images,
        photos_by_themselves,
        photos_of_annotations,
    )
    from posedy.inference.detectors import TorchvisionDetector

    check_can_write(arguments.out)
    paths = image_paths(arguments.photos)
    for given in (*paths, arguments.annotations, arguments.detector_weights):
        if given is not None and given.resolve() == arguments.out.resolve():
            raise ValueError(f"--out {arguments.out} would take the place of {given}: choose another --out")
    if arguments.annotations is not None:
        photos, category = photos_of_annotations(paths, arguments.annotations)
    else:
        photos = photos_by_themselves(paths)
    detector = TorchvisionDetector(arguments.detector_weights, arguments.device, arguments.box_threshold)
    # a progress bar stands on the same screen
    detected = detect_images(photos, detector, warn=lambda line: tqdm.write(line, file=sys.stderr))
    failed = len(photos) - len(detected)
    if not detected:
        raise ValueError(f"none of the {failed} photos could be looked at, and nothing was written: see above why")
    content = (
        boxes_to_results(detected, category) if arguments.annotations is not None else boxes_to_annotations(detected)
    )
    write_json_atomically(arguments.out, content)
    with_boxes = sum(len(photo.boxes) > 0 for photo in detected)
    print(f"{sum(len(photo.boxes) for photo in detected)} boxes on {with_boxes} of {len(detected)} photos")
    print(f"wrote {arguments.out}")
    if failed:
        print(f"posedy detect: {failed} of {len(photos)} photos NOT DONE: see above why", file=sys.stderr)
    return int(failed > 0)

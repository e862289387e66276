"""The command `posedy demo`: its arguments.

Nothing heavy is imported before the command runs, so that --help answers at once.
"""

import argparse
from pathlib import Path

from posedy.inference.photo_paths import photo_paths
from posedy.weights.shipped import DEFAULT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="photos, folders of photos, or patterns like 'a/*.jpg'"
    )
    parser.add_argument(
        "--checkpoint",
        default=DEFAULT,
        metavar="MODEL",
        help="a .pt or .safetensors file, or the name of a shipped model (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="FOLDER", help="for NAME.jpg and keypoints.json (default: out)"
    )
    persons = parser.add_mutually_exclusive_group(required=True)
    persons.add_argument(
        "--box",
        action="append",
        type=_box,
        metavar="x1,y1,x2,y2",
        help="a person of the photo in pixels, once for each; write --box=-5,... where it begins with a minus",
    )
    persons.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="boxes in COCO's form: annotations, or a list with bbox and file_name",
    )
    persons.add_argument("--whole", action="store_true", help="take each photo as a whole for one person")
    persons.add_argument(
        "--detect", action="store_true", help="find persons with torchvision's detector, whose weights it fetches once"
    )
    parser.add_argument(
        "--detector-weights", type=Path, metavar="FILE", help="the detector's weights, where nothing can be fetched"
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="the annotation file of --boxes with image_id instead of names"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument(
        "--no-flip", dest="flip", action="store_false", help="leave out the mirrored crop: half the time, less accurate"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="SCORE", help="draw keypoints up to this score faint (default: 0.2)"
    )
    parser.add_argument(
        "--box-threshold",
        type=float,
        default=0.3,
        metavar="SCORE",
        help="leave out boxes of the file or the detector under this score (default: 0.3)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command: 0 when every photo was done, 1 when some could not be."""
    from posedy.drawing import DRAW_THRESHOLD
    from posedy.inference.annotate import annotate_photos

    done = annotate_photos(
        photo_paths(arguments.photos),
        arguments.checkpoint,
        arguments.out,
        boxes=arguments.box,
        boxes_file=arguments.boxes,
        annotations=arguments.annotations,
        whole=arguments.whole,
        detect=arguments.detect,
        detector_weights=arguments.detector_weights,
        device=arguments.device,
        flip=arguments.flip,
        threshold=DRAW_THRESHOLD if arguments.threshold is None else arguments.threshold,
        box_threshold=arguments.box_threshold,
    )
    return 1 if done.failures else 0


def _box(text: str) -> list[float]:
    """x1,y1,x2,y2 as numbers."""
    try:
        x1, y1, x2, y2 = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers x1,y1,x2,y2") from None
    return [x1, y1, x2, y2]

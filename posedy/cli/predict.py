"""`posedy predict`: draws the keypoints of images, videos or a camera."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posedy.cli.options import box_threshold


def register_parser(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = commands.add_parser("predict", aliases=["demo"], help="draw the keypoints of images, videos or a camera")
    parser.set_defaults(run=run)
    parser.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="photos, folders of photos, patterns like 'a/*.jpg', or videos",
    )
    parser.add_argument("--webcam", type=int, metavar="N", help="the camera of this number, 0 for the first")
    parser.add_argument(
        "--checkpoint",
        metavar="MODEL",
        help="a .pt or .safetensors file, or the name of a shipped model (default: dy_mobilenetv2_050-dy_bneck)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="FOLDER",
        help="for NAME.jpg and keypoints.json, NAME.mp4 and NAME.jsonl (default: out)",
    )
    where = parser.add_argument_group("where the persons are", "one of these; --detect if none is given")
    persons = where.add_mutually_exclusive_group()
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
        "--annotations",
        type=Path,
        metavar="FILE",
        help="the annotation file of a list of boxes: it knows image_id, and photos without persons",
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
        type=box_threshold,
        metavar="SCORE",
        help="leave out boxes of the file or the detector under this score, from 0 to 1 (default: 0.3)",
    )
    of_videos = parser.add_argument_group("videos and cameras")
    of_videos.add_argument(
        "--detect-every", type=int, default=10, metavar="N", help="look for persons at every N-th frame (default: 10)"
    )
    of_videos.add_argument("--no-smooth", dest="smooth", action="store_false", help="leave out smoothing over time")
    of_videos.add_argument(
        "--show", action="store_true", help="show a window, as --webcam does if it can; Escape or q ends it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command: 0 when everything was done, 1 when something could not be.

    Raises:
        OSError, ValueError: if it is not clear what to do, or the work failed as a whole.
    """
    from posedy.images import VIDEO_SUFFIXES
    from posedy.inference.boxes import BOX_THRESHOLD
    from posedy.models.pretrained import DEFAULT
    from posedy.system import keep_freed_memory

    if arguments.checkpoint is None:
        arguments.checkpoint = DEFAULT
    if arguments.box_threshold is None:
        arguments.box_threshold = BOX_THRESHOLD
    videos: list[Path | int] = [Path(word) for word in arguments.photos if Path(word).suffix.lower() in VIDEO_SUFFIXES]
    photos = [word for word in arguments.photos if Path(word).suffix.lower() not in VIDEO_SUFFIXES]
    if arguments.webcam is not None:
        videos.append(arguments.webcam)
    if not videos and not photos:
        raise ValueError("nothing to look at: give photos, folders, videos, or --webcam 0")
    if videos and (arguments.box is not None or arguments.boxes is not None):
        raise ValueError(
            "persons move in videos: leave out --box and --boxes, or give --whole where one person fills the picture"
        )
    if arguments.box is None and arguments.boxes is None and not arguments.whole:
        arguments.detect = True
    if arguments.detector_weights is not None and not arguments.detect:
        raise ValueError("--detector-weights belongs to --detect")
    keep_freed_memory()
    failed = bool(photos) and _annotate_photos(arguments, photos)
    return int((bool(videos) and _annotate_videos(arguments, videos)) or failed)


def _annotate_photos(arguments: argparse.Namespace, photos: Sequence[str]) -> bool:
    """Whether something could not be done."""
    from posedy.drawing import DRAW_THRESHOLD
    from posedy.images import image_paths
    from posedy.inference.predict import predict_images

    done = predict_images(
        image_paths(photos),
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
    return bool(done.failures)


def _annotate_videos(arguments: argparse.Namespace, videos: Sequence[Path | int]) -> bool:
    """Whether something could not be done."""
    from posedy.drawing import DRAW_THRESHOLD
    from posedy.inference.detectors import FullImageDetector, TorchvisionDetector
    from posedy.inference.estimator import PoseEstimator
    from posedy.inference.predict import predict_videos

    detector = (
        TorchvisionDetector(arguments.detector_weights, arguments.device, arguments.box_threshold)
        if arguments.detect
        else FullImageDetector()
    )
    return bool(
        predict_videos(
            videos,
            PoseEstimator(arguments.checkpoint, arguments.device, flip=arguments.flip),
            detector,
            arguments.out,
            every=arguments.detect_every,
            smooth=arguments.smooth,
            threshold=DRAW_THRESHOLD if arguments.threshold is None else arguments.threshold,
            box_threshold=arguments.box_threshold,
            show=arguments.show or arguments.webcam is not None,
        )
    )


def _box(text: str) -> list[float]:
    """x1,y1,x2,y2 as numbers."""
    try:
        x1, y1, x2, y2 = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers x1,y1,x2,y2") from None
    return [x1, y1, x2, y2]

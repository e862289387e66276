"""`posedy predict`: draw the keypoints of persons in images, videos or a camera, and write them to files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posedy.cli.options import (
    DETECTOR,
    add_command,
    add_detector,
    add_detector_weights,
    add_device,
    add_import,
    add_runtime,
    check_detector_weights,
    ended_by_signals,
    parse_score,
)
from posedy.cli.predict_bulk import add_bulk, check_no_bulk, run_bulk
from posedy.cli.predict_video import add_video_options, check_video_options, track_outputs

if TYPE_CHECKING:
    from posedy.inference.detectors import Detector
    from posedy.inference.track_outputs import TrackOutputs

_EXAMPLES = """
posedy predict image.jpg images/ video.mp4 --out predictions
posedy predict image.jpg --box 48,20,210,400
posedy predict image.jpg --full-image --checkpoint runs/dy050/best.pt
posedy predict video.mp4 --smooth offline --tracks csv,trc --plots
posedy predict --webcam 0
posedy predict --examples
posedy predict images/ shards/ --format parquet --out predictions
"""


def register_parser(commands: Any) -> None:
    """Adds the command `posedy predict` to the parser of all commands."""
    parser = add_command(
        commands, "predict", "predict keypoints in images, videos and camera streams", _EXAMPLES, aliases=["demo"]
    )
    parser.description = (
        f"{parser.description}\n\n"
        "If an image or a video fails, the others are still processed; the exit status is then 1."
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="images, videos, folders and glob patterns of them, http(s) URLs of both, rtsp streams",
    )
    parser.add_argument(
        "--examples", action="store_true", help="predict the six example images in the package, instead of inputs"
    )
    parser.add_argument("--webcam", type=int, metavar="N", help="read camera N; 0 is the first")
    parser.add_argument(
        "--checkpoint",
        metavar="MODEL",
        help="a preset or the name of a pretrained network (posedy models lists them), or a .pt, .safetensors or .onnx "
        "file (default: balanced)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="FOLDER",
        help="output folder: NAME.jpg and keypoints.json for images, NAME.mp4 and NAME.jsonl for videos, downloads/ "
        "for URLs (default: out)",
    )
    group = parser.add_argument_group(
        "person boxes",
        "At most one of --detector, --full-image, --box and --boxes; the default is --detector posedy.",
    )
    boxes = group.add_mutually_exclusive_group()
    add_detector(boxes, default=None)  # None: argparse cannot tell a given default from a missing option
    boxes.add_argument(
        "--full-image",
        dest="detector",
        action="store_const",
        const="full-image",
        help="short for --detector full-image",
    )
    boxes.add_argument(
        "--box",
        action="append",
        type=_parse_box,
        metavar="x1,y1,x2,y2",
        help="a person's box in pixels of a single image; repeatable; write --box=-5,... if x1 is negative",
    )
    boxes.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="boxes in COCO format: an annotation file, or a list of entries with bbox and file_name",
    )
    group.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="COCO annotation file for a --boxes list with image_id: gives the file names, and the images without "
        "persons",
    )
    add_detector_weights(group)
    group.add_argument(
        "--box-threshold",
        type=parse_score,
        metavar="SCORE",
        help="drop boxes of the file or the detector with lower scores, from 0 to 1; in videos those of new persons "
        "(default: 0.3 for files, the detector's own threshold otherwise, 0.4 for posedy)",
    )
    add_device(parser)
    add_runtime(parser)
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="predict also on flipped crops: more accurate, at half the speed (default: for images only)",
    )
    parser.add_argument(
        "--keypoint-threshold",
        type=parse_score,
        metavar="SCORE",
        help="draw keypoints with scores at or below SCORE faintly; files keep all keypoints. In videos keypoints "
        "above it give the next box of a person (default: 0.2)",
    )
    add_import(parser)
    add_bulk(parser)
    add_video_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy predict`: predicts keypoints in images or videos; returns 1 if one failed or was interrupted.

    Raises:
        OSError, ValueError: if an argument is invalid or nothing can be written.
    """
    if arguments.out.exists() and not arguments.out.is_dir():
        raise NotADirectoryError(f"--out {arguments.out} is a file: expected a folder, which may be new")
    if arguments.format is not None:
        return run_bulk(arguments)
    check_no_bulk(arguments)
    from posedy.drawing import DRAW_THRESHOLD
    from posedy.examples import CREDITS_FILE, LICENSE, example_images
    from posedy.files import check_writable
    from posedy.image_paths import check_no_urls, image_paths, split_inputs
    from posedy.inference.detectors import create_detector, detector_thresholds
    from posedy.inference.predict import KEYPOINTS_FILE, check_image_outputs
    from posedy.inference.predict_videos import check_video_outputs
    from posedy.inference.video_io import FrameSource, is_video_file
    from posedy.models.pretrained import DEFAULT
    from posedy.system import keep_freed_memory
    from posedy.urls import is_url

    if arguments.checkpoint is None:
        arguments.checkpoint = DEFAULT
    if arguments.keypoint_threshold is None:
        arguments.keypoint_threshold = DRAW_THRESHOLD
    if arguments.box is None and arguments.boxes is None and arguments.detector is None:
        arguments.detector = DETECTOR
    if arguments.examples:
        _check_examples(arguments)
        arguments.inputs = [str(image.path) for image in example_images()]
        print(f"six images of COCO, {LICENSE}: {CREDITS_FILE} names their pages")
    is_for_images = arguments.box is not None or arguments.boxes is not None
    images, found = split_inputs(arguments.inputs, is_video_file, expand_videos=not is_for_images)
    videos: list[Path | str | int] = [*found]
    urls = {name for name in images if is_url(name)}
    if arguments.webcam is not None:
        videos.append(arguments.webcam)
    if not videos and not images:
        arguments.parser.error("no input: give images, folders, videos, --webcam 0, or --examples")
    if videos and is_for_images:
        arguments.parser.error(
            "--box and --boxes are for images: for videos use --detector, or --full-image if one person fills the frame"
        )
    if arguments.annotations is not None and arguments.boxes is None:
        arguments.parser.error(
            "--annotations needs --boxes FILE; to use the boxes in annotations, pass --boxes ANNOTATIONS"
        )
    if arguments.box is not None and arguments.box_threshold is not None:
        arguments.parser.error("--box-threshold is for boxes with scores, --box gives one without: leave it out")
    check_video_options(arguments, has_videos=bool(videos))
    tracks = track_outputs(arguments)
    check_detector_weights(arguments)
    check_no_urls([name for name in images if name not in urls])
    # outputs are checked before anything is downloaded or loaded
    check_video_outputs(videos, arguments.out, tracks)
    if images:
        check_writable(arguments.out / KEYPOINTS_FILE)
    if arguments.webcam is not None:
        # an absent camera is an error before weights are downloaded and networks are loaded
        FrameSource(arguments.webcam).close()
    keep_freed_memory()
    given, images = len(images), _download(images, urls, arguments.out / "downloads", has_others=bool(videos))
    if lost := given - len(images):
        print(f"FAILED: {lost} of {given} downloads and images")
    if not images and not videos:
        return 1
    paths = image_paths(images, name_videos=is_for_images) if images else []
    if paths:
        check_video_outputs(videos, arguments.out, tracks, check_image_outputs(paths, arguments.out))
    detector = None
    if arguments.detector is not None:
        lowest = detector_thresholds(arguments.detector).with_box_threshold(arguments.box_threshold).lowest_drawn
        detector = create_detector(arguments.detector, arguments.device, arguments.detector_weights, lowest)
    with ended_by_signals():
        images_failed = bool(images) and _predict_images(arguments, paths, detector)
        videos_failed = bool(videos) and _predict_videos(arguments, videos, detector, tracks)
    return int(bool(lost) or images_failed or videos_failed)


def _download(images: list[str], urls: set[str], folder: Path, has_others: bool) -> list[str]:
    """Returns the images with URLs replaced by downloaded files; those that fail are named and left out.

    Raises:
        OSError: if the only input fails.
    """
    from posedy.images import download

    paths = []
    for name in images:
        if name not in urls:
            paths.append(name)
            continue
        try:
            paths.append(str(download(name, folder)))
        except OSError as error:
            if len(images) == 1 and not has_others:
                raise
            print(f"{name}: FAILED: {error}")
    return paths


def _check_examples(arguments: argparse.Namespace) -> None:
    """Ends with an error of usage if --examples is given with an option that needs other inputs."""
    options = {"--webcam": arguments.webcam, "--box": arguments.box, "--boxes": arguments.boxes}
    given = [*arguments.inputs, *(name for name, value in options.items() if value is not None)]
    if given:
        arguments.parser.error(f"--examples takes no other inputs and no boxes, got {given[0]}: give one of the two")


def _predict_images(arguments: argparse.Namespace, images: Sequence[Path], detector: "Detector | None") -> bool:
    """Predicts images; returns whether one failed."""
    from posedy.inference.predict import predict_images

    report = predict_images(
        images,
        arguments.checkpoint,
        arguments.out,
        boxes=arguments.box,
        boxes_file=arguments.boxes,
        annotations=arguments.annotations,
        detector=detector,
        device=arguments.device,
        flip=arguments.flip is not False,
        runtime=arguments.runtime,
        keypoint_threshold=arguments.keypoint_threshold,
        box_threshold=arguments.box_threshold,
    )
    if detector is not None and report.records and not any(record["persons"] for record in report.records):
        print("posedy predict: the detector found no persons; a lower --box-threshold may find some", file=sys.stderr)
    return bool(report.failures)


def _predict_videos(
    arguments: argparse.Namespace,
    videos: Sequence[Path | str | int],
    detector: "Detector | None",
    tracks: "TrackOutputs",
) -> bool:
    """Predicts videos; returns whether one failed or was not processed to its end."""
    from posedy.inference.estimator import PoseEstimator
    from posedy.inference.predict_videos import predict_videos

    assert detector is not None  # boxes are for images only
    flip = bool(arguments.flip)  # in videos speed counts more, and smoothing averages errors as well
    estimator = PoseEstimator(arguments.checkpoint, arguments.device, flip=flip, runtime=arguments.runtime)
    failures = predict_videos(
        videos,
        estimator,
        detector,
        arguments.out,
        detect_every=arguments.detect_every,
        smooth=arguments.smooth == "online",
        keypoint_threshold=arguments.keypoint_threshold,
        box_threshold=arguments.box_threshold,
        start=arguments.start,
        end=arguments.end,
        stride=arguments.stride,
        tracks=tracks,
        show=arguments.show or arguments.webcam is not None,
    )
    return bool(failures)


def _parse_box(text: str) -> list[float]:
    """Parses a box from the text x1,y1,x2,y2."""
    try:
        x1, y1, x2, y2 = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected four numbers x1,y1,x2,y2, got {text!r}") from None
    return [x1, y1, x2, y2]

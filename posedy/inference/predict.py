"""Images, videos and cameras in, drawings and files of keypoints out."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.data.findings import name_reasons
from posedy.drawing import DRAW_THRESHOLD
from posedy.files import check_can_write, write_bytes_atomically, write_json_atomically
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.box_files import boxes_from_file
from posedy.inference.boxes import BOX_THRESHOLD, checked_boxes
from posedy.inference.detectors import CleanedDetector, Detector, FullImageDetector, TorchvisionDetector
from posedy.inference.estimator import PoseEstimator
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import FrameSource
from posedy.inference.video_pipeline import Show, VideoResult, run_video
from posedy.models.pose_net import PoseNet

KEYPOINTS_FILE = "keypoints.json"
_JPEG_QUALITY = 92
_WAYS = "--box x1,y1,x2,y2 (one photo), --boxes FILE, --detect, or --whole for the whole photo"

# a photo and its pixels (BGR) -> boxes and their scores
BoxSource = Callable[[Path, NDArray[np.uint8]], tuple[ArrayLike, ArrayLike | None]]


@dataclass(frozen=True)
class PredictionReport:
    """What was done: the records in keypoints.json, and why a photo could not be done."""

    records: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[Path, str] = field(default_factory=dict)


def predict_images(
    photos: Sequence[Path],
    model: str | Path | PoseNet,
    out: str | Path,
    *,
    boxes: ArrayLike | None = None,
    boxes_file: str | Path | None = None,
    annotations: str | Path | None = None,
    whole: bool = False,
    detect: bool = False,
    detector_weights: Path | None = None,
    device: str = "auto",
    flip: bool = True,
    threshold: float = DRAW_THRESHOLD,
    box_threshold: float = BOX_THRESHOLD,
    report: Callable[[str], None] = print,
) -> PredictionReport:
    """Writes `out`/NAME.jpg for each photo, and `out`/keypoints.json for all of them.

    Persons come from exactly one of `boxes`, `boxes_file`, `whole` and `detect`. A photo that cannot be done is
    reported, and the others are done. keypoints.json is a list of photos: the file, its width and height as seen
    upright, the name of the drawing, and the persons (`Poses.to_records`).

    Args:
        photos: the files.
        model: as `PoseEstimator` takes it.
        out: the folder, made if needed. Each file in it is written whole or not at all.
        boxes: (P, 4) xyxy in image pixels, for a single photo.
        boxes_file: a file as `boxes_from_file` reads it.
        annotations: the annotation file of a boxes file with image ids.
        whole: whether each photo as a whole is one person.
        detect: whether torchvision's detector finds them.
        detector_weights: a file of its weights, see `TorchvisionDetector`.
        device: as `PoseEstimator` takes it.
        flip: whether the mirrored crop is looked at too.
        threshold: keypoints with scores up to this one are drawn faint.
        box_threshold: boxes of the file or the detector with lower scores are left out.
        report: takes lines of text on what was found and how long each stage took.

    Raises:
        OSError: if a file cannot be read or keypoints.json not be written.
        ValueError: if it is not clear where persons are, or an argument does not fit.
    """
    if detector_weights is not None and not detect:
        raise ValueError("--detector-weights belongs to --detect")
    if whole and detect:
        raise ValueError(f"give one way only? The ways are {_WAYS}")
    check_can_write(Path(out) / KEYPOINTS_FILE)
    detector: Detector | None = FullImageDetector() if whole else None
    if detect:
        detector = TorchvisionDetector(detector_weights, device, box_threshold)
    source = _box_source(photos, boxes, boxes_file, annotations, detector, box_threshold, report)
    targets = [Path(out) / name for name in drawing_names(photos)]
    inputs = {photo.resolve() for photo in photos}
    for target in targets:
        if target.resolve() in inputs:
            raise ValueError(f"the drawing {target} would take the place of a photo: choose another --out")
    estimator = PoseEstimator(model, device=device, flip=flip)
    report(f"{estimator.skeleton.num_keypoints} keypoints on {estimator.device}, flip {'on' if flip else 'off'}")
    done = PredictionReport()
    for photo, target in zip(photos, targets, strict=True):
        try:
            record, line = _annotate(photo, target, estimator, source, threshold, show_boxes=not whole)
        except (OSError, ValueError) as error:
            done.failures[photo] = str(error)
            report(f"{photo}: NOT DONE: {error}")
        else:
            done.records.append(record)
            report(line)
    write_json_atomically(Path(out) / KEYPOINTS_FILE, done.records, indent=2)
    persons = sum(len(record["persons"]) for record in done.records)
    report(
        f"{persons} {'person' if persons == 1 else 'persons'} on {len(done.records)} of {len(photos)} photos: "
        f"{Path(out) / KEYPOINTS_FILE}" + (f"; not done: {len(done.failures)}" if done.failures else "")
    )
    return done


def drawing_names(photos: Sequence[Path], suffix: str = ".jpg") -> list[str]:
    """A name NAME.jpg for the drawing of each photo; equal ones, also but for case, are numbered: NAME-2.jpg."""
    # A photo's own name is taken before any number is given, so that no photo loses its name to another's number.
    taken = {photo.stem.casefold() for photo in photos}
    used: set[str] = set()
    names = []
    for photo in photos:
        name, number = photo.stem, 2
        while name.casefold() in used or (name != photo.stem and name.casefold() in taken):
            name, number = f"{photo.stem}-{number}", number + 1
        used.add(name.casefold())
        names.append(f"{name}{suffix}")
    return names


def _box_source(
    photos: Sequence[Path],
    boxes: ArrayLike | None,
    boxes_file: str | Path | None,
    annotations: str | Path | None,
    detector: Detector | None,
    box_threshold: float,
    report: Callable[[str], None],
) -> BoxSource:
    """What says where the persons of a photo are."""
    ways = [boxes is not None, boxes_file is not None, detector is not None]
    if sum(ways) != 1:
        raise ValueError(f"{'where are the persons' if not any(ways) else 'give one way only'}? The ways are {_WAYS}")
    if annotations is not None and boxes_file is None:
        raise ValueError("--annotations belongs to --boxes FILE; to use the boxes of annotations, give them as --boxes")
    if boxes is not None:
        if len(photos) != 1:
            raise ValueError(f"--box belongs to one photo, got {len(photos)} photos; for several use --boxes FILE")
        given = checked_boxes(boxes)
        return lambda photo, image: (given, None)
    if detector is not None:
        finds = CleanedDetector(detector).detect
        return lambda photo, image: finds(image)
    assert boxes_file is not None
    known = boxes_from_file(boxes_file, annotations, box_threshold)
    report(f"{known.path}: boxes of {len(known.by_name)} photos; left out: {name_reasons(known.left_out)}")
    if not any(known.of(photo) for photo in photos):
        raise ValueError(
            f"{known.path} knows none of the {len(photos)} photos: its file names are like "
            f"{next(iter(known.by_name), 'none at all')!r}, the first photo is {photos[0]}"
        )

    def of_file(photo: Path, image: NDArray[np.uint8]) -> tuple[ArrayLike, ArrayLike]:
        found = known.of(photo)
        if found is None:
            hint = (
                ""
                if known.lists_photos
                else ": a list knows photos with boxes only; for others give --annotations FILE"
            )
            raise ValueError(f"{known.path} does not know this photo{hint}")
        height, width = image.shape[:2]
        recorded = known.size_of(photo)
        if recorded not in (None, (width, height)):
            turned = (
                " as stored, before the turn that its EXIF orientation asks for: save it upright and make new boxes"
                if recorded == (height, width)
                else ": give the photo that the boxes belong to"
            )
            raise ValueError(
                f"the boxes would land elsewhere: upright the photo is {width} x {height} pixels, the boxes count in "
                f"{recorded[0]} x {recorded[1]}{turned}"
            )
        return found

    return of_file


def _annotate(
    photo: Path, target: Path, estimator: PoseEstimator, source: BoxSource, threshold: float, show_boxes: bool
) -> tuple[dict[str, Any], str]:
    """Does one photo: its record, and a line to report."""
    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        image = rgb_to_bgr(read_image(photo, apply_exif=True))
    with _timed(seconds, "boxes"):
        boxes, box_scores = source(photo, image)
    with _timed(seconds, "keypoints"):
        poses = estimator(image, boxes, box_scores)
    with _timed(seconds, "draw"):
        picture = poses.draw(image, threshold, boxes=show_boxes)
    with _timed(seconds, "write"):
        write_bytes_atomically(target, _as_jpeg(picture))
    height, width = image.shape[:2]
    record = {
        "file": str(photo),
        "width": width,
        "height": height,
        "drawing": target.name,
        "persons": poses.to_records(),
    }
    times = ", ".join(f"{stage} {1000 * duration:.0f} ms" for stage, duration in seconds.items())
    return record, f"{photo}: {len(poses)} {'person' if len(poses) == 1 else 'persons'} ({times}) -> {target}"


def _as_jpeg(picture: NDArray[np.uint8]) -> bytes:
    try:
        encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    except cv2.error as error:
        raise ValueError(f"the drawing cannot be encoded as JPEG: {error.err}") from error
    if not encoded:
        raise ValueError(f"the drawing of {picture.shape[1]}x{picture.shape[0]} pixels cannot be encoded as JPEG")
    return data.tobytes()


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - begin


_KEYS_TO_END = (27, ord("q"))


def predict_videos(
    sources: Sequence[Path | int],
    estimator: PoseEstimator,
    detector: Detector,
    out: Path,
    *,
    every: int = 10,
    smooth: bool = True,
    threshold: float = DRAW_THRESHOLD,
    box_threshold: float = BOX_THRESHOLD,
    show: bool = False,
    report: Callable[[str], None] = print,
) -> list[Path | int]:
    """Writes `out`/NAME.mp4 with the poses drawn and `out`/NAME.jsonl with the keypoints of each frame.

    A video that cannot be done is reported, and the others are done; Ctrl-C ends all of them, and what was done stays.

    Args:
        sources: video files, or the numbers of cameras.
        estimator: of the poses.
        detector: of the persons.
        out: the folder, made if needed.
        every: the detector is asked at every N-th frame.
        smooth: whether keypoints are smoothed over time.
        threshold: keypoints with scores up to this one are drawn faint.
        box_threshold: boxes of the detector with lower scores are not used.
        show: whether to show a window, if there can be one; Escape or q ends it.
        report: takes lines of text.

    Returns:
        The sources that could not be done.

    Raises:
        OSError: if nothing can be written into `out`.
    """
    failures: list[Path | int] = []
    window = _window() if show else None
    if show and window is None:
        report("no window can be opened here (no display, or OpenCV without windows): drawn frames go to files only")
    names = drawing_names(
        [source if isinstance(source, Path) else Path(f"camera-{source}") for source in sources], ".mp4"
    )
    check_can_write(out / names[0])
    originals = {source.resolve() for source in sources if isinstance(source, Path)}
    for source, name in zip(sources, names, strict=True):
        video, lines = out / name, (out / name).with_suffix(".jsonl")
        try:
            if video.resolve() in originals:
                raise ValueError(f"the drawn video {video} would take the place of a video: choose another --out")
            tracker = PoseTracker(estimator, detector, every, smooth, threshold, box_threshold)
            outcome = run_video(FrameSource(source), tracker, video, lines, threshold=threshold, show=window)
        except (OSError, ValueError) as error:
            failures.append(source)
            report(f"{source}: NOT DONE: {error}")
            continue
        report(_told(source, outcome, video, lines))
        if outcome.interrupted:
            break
    if window is not None:
        cv2.destroyAllWindows()
    return failures


def _told(source: Path | int, outcome: VideoResult, video: Path, lines: Path) -> str:
    frames = max(outcome.frames, 1)
    stages = ", ".join(f"{name} {1000 * spent / frames:.1f} ms" for name, spent in outcome.stages.items())
    damaged = f", {outcome.damaged} damaged ones left out" if outcome.damaged else ""
    if outcome.missing and not outcome.interrupted:
        damaged += f", {outcome.missing} that the file promises are not there"
    stopped = ", stopped" if outcome.interrupted else ""
    return (
        f"{source}: {outcome.frames} frames{damaged} in {outcome.seconds:.1f} s, {outcome.frames_per_second:.1f} a "
        f"second (each: {stages}){stopped} -> {video}, {lines}"
    )


def _window() -> Show | None:
    """Shows frames in a window; None where there can be none."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None
    try:
        cv2.namedWindow("posedy", cv2.WINDOW_NORMAL)
    except cv2.error:
        return None

    def show(picture: NDArray[np.uint8]) -> bool:
        cv2.imshow("posedy", picture)
        return cv2.waitKey(1) not in _KEYS_TO_END

    return show

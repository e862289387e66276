"""Prediction on image files, with drawings and keypoints written to files."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.data.box_form import are_outside
from posedy.data.issues import format_reasons
from posedy.data.orientation import read_headers, warn_of_ambiguous
from posedy.drawing import DRAW_THRESHOLD
from posedy.files import check_writable, write_bytes_atomically, write_json_atomically
from posedy.images import encode_jpeg, read_image, rgb_to_bgr
from posedy.inference.box_files import BoxesByName, read_boxes_by_name
from posedy.inference.boxes import checked_boxes
from posedy.inference.detectors import (
    CleanedDetector,
    Detector,
    FullImageDetector,
    create_detector,
    detector_thresholds,
)
from posedy.inference.estimator import PoseEstimator
from posedy.inference.image_groups import detect_group, read_groups
from posedy.models.pose_net import PoseNet
from posedy.poses import count_persons, format_count
from posedy.prediction import RuntimeChoice

KEYPOINTS_FILE = "keypoints.json"
_BOX_OPTIONS = "--box x1,y1,x2,y2 (a single image), --boxes FILE, --detector NAME"

_Boxes = tuple[ArrayLike, ArrayLike | None]
# the paths and pixels (BGR) of a group of images -> for each image its boxes and their scores, or the error
BoxSource = Callable[[Sequence[Path], Sequence[NDArray[np.uint8]]], Sequence[_Boxes | Exception]]


@dataclass(frozen=True)
class PredictionReport:
    """The result of `predict_images`.

    Attributes:
        records: the content of keypoints.json.
        failures: the error message of each failed image.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[Path, str] = field(default_factory=dict)


def predict_images(
    images: Sequence[Path],
    model: str | Path | PoseNet,
    out: str | Path,
    *,
    boxes: ArrayLike | None = None,
    boxes_file: str | Path | None = None,
    annotations: str | Path | None = None,
    detector: str | Detector | None = None,
    device: str = "auto",
    flip: bool = True,
    runtime: RuntimeChoice = "auto",
    keypoint_threshold: float = DRAW_THRESHOLD,
    box_threshold: float | None = None,
    report: Callable[[str], None] = print,
) -> PredictionReport:
    """Predicts the keypoints of image files and writes `out`/NAME.jpg for each and one `out`/keypoints.json.

    Exactly one of `boxes`, `boxes_file` and `detector` gives the person boxes. An image that fails is
    reported and skipped; keypoints.json is not written if all fail. It is a list with an entry per image: the file, its
    width and height in upright pixels, the name of the drawing, and the persons (`Poses.to_records`).

    Args:
        images: the image files.
        model: see `PoseEstimator`.
        out: the folder, created if needed; files are written atomically.
        boxes: (P, 4) xyxy in image pixels, for a single image.
        boxes_file: a file for `read_boxes_by_name`.
        annotations: the annotation file of a boxes file with image ids.
        detector: a name of `list_detectors()`, or an object with `detect`.
        device: device of the network, see `PoseEstimator`, and of a detector given by name.
        flip: run the flip test.
        runtime: see `PoseEstimator`.
        keypoint_threshold: keypoints with scores up to this one are drawn faintly.
        box_threshold: boxes of the file or the detector with lower scores are dropped; None is the detector's own
            threshold for drawings, and 0.3 for files.
        report: called with lines of text: the results and the time of each stage.

    Raises:
        OSError: if a file cannot be read or keypoints.json cannot be written.
        TypeError, ValueError: if not exactly one source of boxes is given, or another argument is invalid.
    """
    targets = check_image_outputs(images, out)
    box_threshold = detector_thresholds(detector).with_box_threshold(box_threshold).display
    if detector is not None:
        detector = create_detector(detector, device, threshold=box_threshold)
    source = _make_box_source(images, boxes, boxes_file, annotations, detector, box_threshold, report)
    estimator = PoseEstimator(model, device=device, flip=flip, runtime=runtime)
    report(estimator.description)
    draw_boxes = not isinstance(detector, FullImageDetector)
    result = PredictionReport()
    jobs = [_Job(image, target) for image, target in zip(images, targets, strict=True)]
    try:
        for group in read_groups(jobs, _Job.read):
            for job, image, found in _with_boxes(group, source):
                try:
                    if isinstance(found, Exception):
                        raise found
                    record, line = job.predict(image, found, estimator, keypoint_threshold, draw_boxes)
                except (OSError, ValueError) as error:
                    result.failures[job.path] = str(error)
                    report(f"{job.path}: FAILED: {error}")
                else:
                    result.records.append(record)
                    report(line)
    finally:  # also after Ctrl-C and without memory
        if result.records:
            write_json_atomically(Path(out) / KEYPOINTS_FILE, result.records, indent=2)
    if not result.records:
        report(f"FAILED: {len(images)} of {len(images)} images; {Path(out) / KEYPOINTS_FILE} was not written")
        return result
    num_persons = sum(len(record["persons"]) for record in result.records)
    report(
        f"{count_persons(num_persons)} on {len(result.records)} of {len(images)} images: {Path(out) / KEYPOINTS_FILE}"
    )
    if result.failures:
        report(f"FAILED: {len(result.failures)} of {len(images)} images")
    return result


def check_image_outputs(images: Sequence[Path], out: str | Path) -> list[Path]:
    """Checks, before networks are loaded, that keypoints.json and the drawings of images can be written.

    Args:
        images: the image files.
        out: the folder.

    Returns:
        The file of each drawing.

    Raises:
        OSError: if `out` is no folder or cannot be written, or a folder has the name of a file to write.
        ValueError: if a drawing would overwrite an input image.
    """
    targets = [Path(out) / name for name in drawing_names(images)]
    check_writable(Path(out) / KEYPOINTS_FILE)
    inputs = {image.resolve() for image in images}
    for target in targets:
        if target.resolve() in inputs:
            raise ValueError(f"the drawing {target} would overwrite an input image: choose another --out")
        if target.is_dir():
            check_writable(target)
    return targets


def drawing_names(paths: Sequence[Path], suffix: str = ".jpg") -> list[str]:
    """Returns a file name NAME.jpg for the drawing of each image; names equal up to case are numbered: NAME-2.jpg."""
    # names of inputs are reserved, so that no input loses its own name to a numbered one
    reserved = {path.stem.casefold() for path in paths}
    used: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 2
        while name.casefold() in used or (name != path.stem and name.casefold() in reserved):
            name, number = f"{path.stem}-{number}", number + 1
        used.add(name.casefold())
        names.append(f"{name}{suffix}")
    return names


def _make_box_source(
    images: Sequence[Path],
    boxes: ArrayLike | None,
    boxes_file: str | Path | None,
    annotations: str | Path | None,
    detector: Detector | None,
    box_threshold: float,
    report: Callable[[str], None],
) -> BoxSource:
    """Creates the function that returns the boxes of an image."""
    if [boxes is not None, boxes_file is not None, detector is not None].count(True) != 1:
        raise ValueError(f"choose exactly one of {_BOX_OPTIONS}")
    if annotations is not None and boxes_file is None:
        raise ValueError("--annotations needs --boxes FILE; to use the boxes in annotations, pass --boxes ANNOTATIONS")
    if boxes is not None:
        if len(images) != 1:
            raise ValueError(f"--box is for a single image, got {len(images)} images: use --boxes FILE")
        checked = checked_boxes(boxes)
        return lambda paths, images: [(checked, None)] * len(paths)
    if detector is not None:
        cleaned = CleanedDetector(detector, box_threshold)
        return lambda paths, images: detect_group(cleaned, images)
    assert boxes_file is not None
    file = read_boxes_by_name(boxes_file, annotations, box_threshold)
    report(
        f"{file.path}: boxes of {format_count(len(file.by_name), 'image')}; left out: {format_reasons(file.left_out)}"
    )
    if not any(file.find(image) for image in images):
        raise ValueError(
            f"{file.path} has none of the given images: its file names are like "
            f"{next(iter(file.by_name), 'none at all')!r}, the first image is {images[0]}"
        )
    headers = read_headers(image for image in images if file.find(image) is not None)
    file.warn_of_misfit(headers)
    warn_of_ambiguous(headers)
    return lambda paths, images: [_find_boxes(file, *each, report) for each in zip(paths, images, strict=True)]


def _find_boxes(
    file: BoxesByName, image: Path, pixels: NDArray[np.uint8], report: Callable[[str], None]
) -> _Boxes | Exception:
    """Returns the boxes and scores of an image, or the error if the image has not the size that the boxes refer to.

    Boxes outside the image are left out and reported.
    """
    boxes_and_scores = file.find(image)
    if boxes_and_scores is None:
        hint = "" if file.has_all_images else ": a list has only images with boxes; use --annotations FILE for others"
        return ValueError(f"{file.path} does not have this image{hint}")
    height, width = pixels.shape[:2]
    recorded = file.find_size(image)
    if recorded not in (None, (width, height)):
        hint = (
            " as stored, without the EXIF orientation: save the image upright and detect boxes again"
            if recorded == (height, width)
            else ": give the image that the boxes belong to"
        )
        return ValueError(
            f"the boxes do not fit: the upright image has {width} x {height} pixels (width x height), the boxes "
            f"refer to {recorded[0]} x {recorded[1]}{hint}"
        )
    boxes, scores = boxes_and_scores
    outside = are_outside(boxes, np.array([width, height]))
    if outside.any():
        report(
            f"{image}: {outside.sum()} of {len(boxes)} boxes left out: outside the image of {width} x {height} pixels "
            "(width x height)"
        )
    return boxes[~outside], scores[~outside]


@dataclass(frozen=True)
class _Job:
    """The prediction of an image file, with the seconds of its stages."""

    path: Path
    target: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def read(self) -> NDArray[np.uint8]:
        """Reads the image (H, W, 3) BGR, upright."""
        with self._timed("read"):
            return rgb_to_bgr(read_image(self.path, apply_exif=True))

    def predict(
        self,
        image: NDArray[np.uint8],
        boxes: _Boxes,
        estimator: PoseEstimator,
        keypoint_threshold: float,
        draw_boxes: bool,
    ) -> tuple[dict[str, Any], str]:
        """Predicts the keypoints, writes the drawing, and returns its record and a line of text to report."""
        with self._timed("keypoints"):
            poses = estimator(image, *boxes)
        with self._timed("draw"):
            drawing = poses.draw(image, keypoint_threshold, boxes=draw_boxes)
        with self._timed("write"):
            write_bytes_atomically(self.target, encode_jpeg(drawing))
        height, width = image.shape[:2]
        record = {
            "file": str(self.path),
            "width": width,
            "height": height,
            "drawing": self.target.name,
            "persons": poses.to_records(),
        }
        times = ", ".join(f"{stage} {1000 * duration:.0f} ms" for stage, duration in self.seconds.items())
        return record, f"{self.path}: {count_persons(len(poses))} ({times}) -> {self.target}"

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - began


def _with_boxes(
    group: Sequence[tuple[_Job, NDArray[np.uint8] | Exception]], source: BoxSource
) -> Iterator[tuple[_Job, Any, _Boxes | Exception]]:
    """Yields the jobs of a group with their images and boxes, or with the error of reading or detecting them."""
    loaded = [(job, image) for job, image in group if not isinstance(image, Exception)]
    began = time.perf_counter()
    found = iter(source([job.path for job, _ in loaded], [image for _, image in loaded]))
    seconds = (time.perf_counter() - began) / max(len(loaded), 1)
    for job, image in group:
        if isinstance(image, Exception):
            yield job, None, image
        else:
            job.seconds["boxes"] = seconds
            yield job, image, next(found)

"""Pose estimation of images, videos and camera frames for the web page, independent of gradio."""

import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posedy.files import write_json_atomically
from posedy.images import rgb_to_bgr, to_rgb
from posedy.inference.detectors import (
    DEFAULT_DETECTOR,
    CleanedDetector,
    Detector,
    FullImageDetector,
    create_detector,
    detector_thresholds,
)
from posedy.inference.estimator import PoseEstimator
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import FrameSource
from posedy.inference.video_pipeline import run_video
from posedy.prediction import RuntimeChoice

FULL_IMAGE, PERSON_DETECTOR = "full image (one person)", "person detector"
BOX_SOURCES = (PERSON_DETECTOR, FULL_IMAGE)
_MAX_CAMERA_GAP = 2.0  # seconds; a longer pause between camera frames restarts tracking


@dataclass(frozen=True)
class Result:
    """Result for an image or a video.

    Attributes:
        drawing: image (H, W, 3) RGB or video file with the poses drawn.
        keypoints_file: JSON for an image, JSON Lines for a video.
        summary: one line of text.
    """

    drawing: NDArray[np.uint8] | Path
    keypoints_file: Path
    summary: str


@dataclass
class PoseService:
    """Pose estimation with a choice of networks, each loaded at its first use.

    Attributes:
        models: names and paths of the networks.
        detector: the person detector: a name of `list_detectors()`, or an object with `detect`.
        detector_weights: file of the detector's weights; None for its default.
        device: as for `PoseEstimator`.
        runtime: as for `PoseEstimator`.
    """

    models: tuple[str, ...]
    detector: str | Detector = DEFAULT_DETECTOR
    detector_weights: Path | None = None
    device: str = "auto"
    runtime: RuntimeChoice = "auto"
    _estimators: dict[tuple[str, bool], PoseEstimator] = field(default_factory=dict)
    _detector: CleanedDetector | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="posedy-", ignore_cleanup_errors=True)
    )

    def process_image(self, path: str, model: str, box_source: str, threshold: float) -> Result:
        """Estimates the poses of an image file.

        Args:
            path: image file.
            model: one of `models`.
            box_source: one of `BOX_SOURCES`.
            threshold: keypoints with scores up to this value are drawn faint.

        Raises:
            OSError, ValueError: if the file is not an image, or the model or detector is not available.
        """
        image = to_rgb(path)
        began = time.perf_counter()
        detector = self._get_detector(box_source)
        boxes, box_scores = detector.detect(rgb_to_bgr(image), detector.thresholds.display)
        poses = self._get_estimator(model, flip=True)(image, boxes, box_scores, channels="rgb")
        seconds = time.perf_counter() - began
        drawing = poses.draw(image, threshold)
        height, width = image.shape[:2]
        file = self._new_file("keypoints.json")
        record = {"file": Path(path).name, "width": width, "height": height, "persons": poses.to_records()}
        write_json_atomically(file, [record], indent=2)
        return Result(drawing, file, f"{len(poses)} {'person' if len(poses) == 1 else 'persons'} in {seconds:.2f} s")

    def process_video(self, path: str, model: str, box_source: str, threshold: float) -> Result:
        """Tracks the poses of a video file.

        Args:
            path: video file.
            model: one of `models`.
            box_source: one of `BOX_SOURCES`.
            threshold: keypoints with scores up to this value are drawn faint.

        Raises:
            OSError, ValueError: if the file is not a video, or the model or detector is not available.
        """
        tracker = self._new_tracker(model, box_source)
        video = self._new_file("poses.webm")
        keypoints = video.with_name("keypoints.jsonl")
        try:
            result = run_video(FrameSource(Path(path)), tracker, video, keypoints, threshold=threshold)
        except BaseException:
            shutil.rmtree(video.parent, ignore_errors=True)
            raise
        summary = f"{result.frames} frames, {result.frames_per_second:.1f} frames/s"
        return Result(
            video, keypoints, summary + (f", {result.damaged} damaged frames skipped" if result.damaged else "")
        )

    def process_frame(
        self, image: NDArray[np.uint8], model: str, box_source: str, threshold: float, state: "CameraState | None"
    ) -> "tuple[NDArray[np.uint8], CameraState]":
        """Tracks the poses of the next camera frame.

        Args:
            image: (H, W, 3) RGB.
            model: one of `models`.
            box_source: one of `BOX_SOURCES`.
            threshold: keypoints with scores up to this value are drawn faint.
            state: returned for the last frame; None for the first one.

        Returns:
            The frame with the poses drawn, and the state for the next frame.
        """
        now = time.monotonic()
        settings = (model, box_source)
        if state is None or settings != state.settings or now - state.last_time > _MAX_CAMERA_GAP:
            state = CameraState(self._new_tracker(model, box_source), settings)
        if now > state.last_time:
            image = state.tracker(rgb_to_bgr(image), now).draw(image, threshold, channels="rgb")
            state.last_time = now
        return image, state

    def _new_file(self, name: str) -> Path:
        """Returns a path in a new folder, which is deleted at the end of the program."""
        return Path(tempfile.mkdtemp(dir=self._folder.name)) / name

    def _new_tracker(self, model: str, box_source: str) -> PoseTracker:
        return PoseTracker(self._get_estimator(model, flip=False), self._get_detector(box_source))

    def _get_estimator(self, model: str, flip: bool) -> PoseEstimator:
        if model not in self.models:
            raise ValueError(f"unknown model {model!r}, expected one of {', '.join(self.models)}")
        with self._lock:
            if (model, flip) not in self._estimators:
                self._estimators[model, flip] = PoseEstimator(model, self.device, flip=flip, runtime=self.runtime)
            return self._estimators[model, flip]

    def _get_detector(self, box_source: str) -> CleanedDetector:
        if box_source not in BOX_SOURCES:
            raise ValueError(f"unknown box source {box_source!r}, expected one of {', '.join(BOX_SOURCES)}")
        if box_source == FULL_IMAGE:
            return CleanedDetector(FullImageDetector())
        with self._lock:
            if self._detector is None:
                threshold = detector_thresholds(self.detector).lowest_drawn
                detector = create_detector(self.detector, self.device, self.detector_weights, threshold)
                self._detector = CleanedDetector(detector, threshold)
            return self._detector


@dataclass
class CameraState:
    """Tracking state of a camera stream.

    Attributes:
        tracker: the pose tracker.
        settings: model and box source of the tracker.
        last_time: time of the last frame in seconds.
    """

    tracker: PoseTracker
    settings: tuple[str, str]
    last_time: float = -np.inf

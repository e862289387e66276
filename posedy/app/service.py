"""Pose estimation of images, videos and camera frames for the web page, independent of gradio."""

import functools
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from posedy.files import write_bytes_atomically, write_json_atomically
from posedy.images import encode_jpeg, rgb_to_bgr, to_rgb
from posedy.inference.detectors import DEFAULT_DETECTOR, CleanedDetector, create_detector, detector_thresholds
from posedy.inference.estimator import PoseEstimator
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_frame import has_pyav
from posedy.inference.video_io import Frame, FrameSource
from posedy.inference.video_pipeline import run_video
from posedy.poses import Poses, count_persons, format_count
from posedy.prediction import RuntimeChoice

VIDEO_FORMAT = "MP4" if has_pyav() else "WebM"  # browsers play only the mp4 files that PyAV writes
_MAX_CAMERA_GAP = 2.0  # seconds; a longer pause between camera frames restarts tracking
_MAX_WAIT = 5.0  # seconds for the last frame of a video that is stopped
_NUM_KEPT = 64  # results whose files are kept
_NUM_KEPT_POSES = 16  # images whose poses are kept, for drawings with another threshold


_ImageKey = tuple[str, int, str, str]  # path, time of its last change, model, detector


@dataclass(frozen=True)
class Result:
    """Result for an image or a video.

    Attributes:
        drawing: the file with the poses drawn: JPEG for an image, MP4 or WebM for a video.
        keypoints: the files of keypoints: JSON and CSV for an image, JSON Lines for a video.
        summary: one line of text.
    """

    drawing: Path
    keypoints: tuple[Path, ...]
    summary: str


@dataclass
class PoseService:
    """Pose estimation with a choice of networks and detectors, each loaded at its first use.

    A context manager: at its end a running video is stopped, and the files of the results are deleted. A native library
    may abort a program that ends while a thread runs it.

    Attributes:
        models: names and paths of the networks.
        detectors: names of person detectors, of `list_detectors()`.
        detector_weights: files of detectors' weights, by name; the others have their defaults.
        device: as for `PoseEstimator`.
        runtime: as for `PoseEstimator`.
    """

    models: tuple[str, ...]
    detectors: tuple[str, ...] = (DEFAULT_DETECTOR, "full-image")
    detector_weights: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"
    runtime: RuntimeChoice = "auto"
    _estimators: dict[tuple[str, bool], PoseEstimator] = field(default_factory=dict)
    _loaded_detectors: dict[str, CleanedDetector] = field(default_factory=dict)
    _poses: dict[_ImageKey, tuple[Poses, float]] = field(default_factory=dict)
    _folders: deque[Path] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _video_lock: threading.Lock = field(default_factory=threading.Lock)
    _is_closed: bool = False
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="posedy-", ignore_cleanup_errors=True)
    )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops a running video and deletes the files of the results."""
        self._is_closed = True
        self._video_lock.acquire(timeout=_MAX_WAIT)
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """The temporary folder of results, which only the user of this process can read."""
        return Path(self._folder.name)

    def load_detector(self, name: str) -> None:
        """Loads a detector before its first use.

        Raises:
            OSError, ValueError: if it is not available.
        """
        self._get_detector(name)

    def process_image(self, path: str, model: str, detector: str, threshold: float) -> Result:
        """Estimates the poses of an image file; another threshold only draws them again.

        Args:
            path: image file.
            model: one of `models`.
            detector: one of `detectors`.
            threshold: keypoints with scores up to this value are drawn faint.

        Raises:
            OSError, ValueError: if the file is not an image, or the model or detector is not available.
        """
        image = to_rgb(path)
        key = (path, Path(path).stat().st_mtime_ns, model, detector)
        poses, seconds = self._poses.get(key) or self._estimate(image, key)
        stem = Path(path).stem
        drawing = self._new_folder() / f"{stem}-poses.jpg"
        write_bytes_atomically(drawing, encode_jpeg(poses.draw(rgb_to_bgr(image), threshold, channels="bgr")))
        height, width = image.shape[:2]
        record = {"file": Path(path).name, "width": width, "height": height, "persons": poses.to_records()}
        keypoints = (drawing.with_name(f"{stem}-keypoints.json"), drawing.with_name(f"{stem}-keypoints.csv"))
        write_json_atomically(keypoints[0], [record], indent=2)
        poses.to_csv(keypoints[1])
        self._delete_oldest(drawing.parent)
        return Result(drawing, keypoints, f"{count_persons(len(poses))} in {seconds:.2f} s")

    def process_video(
        self,
        path: str,
        model: str,
        detector: str,
        threshold: float,
        on_progress: Callable[[int, int | None], None] | None = None,
    ) -> Result:
        """Tracks the poses of a video file and writes a video with drawings and a file of keypoints.

        Videos of several calls are processed one after another.

        Args:
            path: video file.
            model: one of `models`.
            detector: one of `detectors`.
            threshold: keypoints with scores up to this value are drawn faint.
            on_progress: called after each frame with the number of frames so far and of the file, None if unknown.

        Raises:
            OSError, ValueError: if the file is not a video, or the model or detector is not available.
        """
        tracker = self._new_tracker(model, detector)
        source = FrameSource(Path(path))
        stem = Path(path).stem
        video = self._new_folder() / f"{stem}-poses.{VIDEO_FORMAT.lower()}"
        keypoints = video.with_name(f"{stem}-keypoints.jsonl")

        def report(frame: Frame, poses: Poses) -> None:
            if self._is_closed:
                raise InterruptedError(f"{path} was stopped at frame {frame.number}, since the page was stopped")
            if on_progress is not None:
                on_progress(frame.number + 1, source.count)

        try:
            with self._video_lock:
                result = run_video(
                    source,
                    lambda frame: tracker(frame.image, frame.time),
                    *(video, keypoints),
                    threshold=threshold,
                    on_frame=report,
                )
        except BaseException:
            shutil.rmtree(video.parent, ignore_errors=True)
            raise
        self._delete_oldest(video.parent)
        summary = f"{format_count(result.frames, 'frame')}, {result.frames_per_second:.1f} frames/s"
        if result.damaged:
            summary += f", {format_count(result.damaged, 'damaged frame')} skipped"
        summary += "".join(f", {note}" for note in result.notes)
        if result.missing:
            summary += f", the video ends early: {format_count(result.missing, 'frame')} of its header missing"
        return Result(video, (keypoints,), summary)

    def process_frame(
        self, image: NDArray[np.uint8], model: str, detector: str, threshold: float, state: "CameraState | None"
    ) -> "tuple[NDArray[np.uint8], CameraState]":
        """Tracks the poses of the next camera frame.

        Args:
            image: (H, W, 3) RGB.
            model: one of `models`.
            detector: one of `detectors`.
            threshold: keypoints with scores up to this value are drawn faint.
            state: returned for the last frame; None for the first one.

        Returns:
            The frame with the poses drawn, and the state for the next frame.
        """
        now = time.monotonic()
        settings = (model, detector)
        if state is None or settings != state.settings or now - state.last_time > _MAX_CAMERA_GAP:
            state = CameraState(self._new_tracker(model, detector), settings)
        if now > state.frame_time:
            image = state.tracker(rgb_to_bgr(image), now).draw(image, threshold, channels="rgb")
            state.frame_time = now
        state.last_time = time.monotonic()
        return image, state

    def _estimate(self, image: NDArray[np.uint8], key: _ImageKey) -> tuple[Poses, float]:
        """Returns the poses of an image (H, W, 3) RGB and the seconds they took, and keeps both."""
        _, _, model, detector_name = key
        detector, estimator = self._get_detector(detector_name), self._get_estimator(model, flip=True)
        began = time.perf_counter()
        boxes, box_scores = detector.detect(rgb_to_bgr(image), detector.thresholds.display)
        poses = estimator(image, boxes, box_scores, channels="rgb")
        result = poses, time.perf_counter() - began
        with self._lock:
            self._poses[key] = result
            if len(self._poses) > _NUM_KEPT_POSES:
                del self._poses[next(iter(self._poses))]
        return result

    def _new_folder(self) -> Path:
        """Returns a new folder, which is deleted at the end of the program."""
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    def _delete_oldest(self, newest: Path) -> None:
        """Deletes the oldest folder of results, if there are more than are kept."""
        with self._lock:
            self._folders.append(newest)
            oldest = self._folders.popleft() if len(self._folders) > _NUM_KEPT else None
        if oldest is not None:
            shutil.rmtree(oldest, ignore_errors=True)

    def _new_tracker(self, model: str, detector: str) -> PoseTracker:
        return PoseTracker(self._get_estimator(model, flip=False), self._get_detector(detector))

    def _get_estimator(self, model: str, flip: bool) -> PoseEstimator:
        """Returns an estimator with or without the flip test, which is fixed in a graph that decodes."""
        if model not in self.models:
            raise ValueError(f"unknown model {model!r}, expected one of {', '.join(self.models)}")
        with self._lock:
            fixed = _graph_flip(model)
            flip = flip if fixed is None else fixed
            if (model, flip) not in self._estimators:
                self._estimators[model, flip] = PoseEstimator(model, self.device, flip=flip, runtime=self.runtime)
            return self._estimators[model, flip]

    def _get_detector(self, name: str) -> CleanedDetector:
        if name not in self.detectors:
            raise ValueError(f"unknown detector {name!r}, expected one of {', '.join(self.detectors)}")
        with self._lock:
            if name not in self._loaded_detectors:
                threshold = detector_thresholds(name).lowest_drawn
                detector = create_detector(name, self.device, self.detector_weights.get(name), threshold)
                self._loaded_detectors[name] = CleanedDetector(detector, threshold)
            return self._loaded_detectors[name]


@dataclass
class CameraState:
    """Tracking state of a camera stream.

    Attributes:
        tracker: the pose tracker.
        settings: model and detector of the tracker.
        frame_time: time of the last frame in seconds.
        last_time: time at which its poses were there: processing is no pause between frames.
    """

    tracker: PoseTracker
    settings: tuple[str, str]
    frame_time: float = -np.inf
    last_time: float = -np.inf


@functools.cache
def _graph_flip(model: str) -> bool | None:
    """Returns whether an exported graph that decodes averages with the flipped crop; None for other networks."""
    if Path(model).suffix.lower() != ".onnx":
        return None
    from posedy.export.graph_file import read_graph

    _, info = read_graph(model)
    return info.flip if info.decodes else None

"""What the page does with photos, videos and pictures of a camera; knows nothing of the page."""

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
from posedy.inference.boxes import BOX_THRESHOLD
from posedy.inference.detectors import CleanedDetector, Detector, FullImageDetector, TorchvisionDetector
from posedy.inference.estimator import PoseEstimator
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import FrameSource
from posedy.inference.video_pipeline import run_video

WHOLE, EVERYONE = "one person, the whole picture", "everyone, by a detector"
PERSONS = (WHOLE, EVERYONE)
_FORGET_AFTER = 2.0  # seconds between pictures of a camera, after which it is another scene


@dataclass(frozen=True)
class Seen:
    """A drawn picture (H, W, 3) RGB or video file, the file of keypoints, and words about both."""

    drawn: NDArray[np.uint8] | Path
    keypoints: Path
    words: str


@dataclass
class PoseService:
    """Holds the networks that were asked for, so that each is loaded once.

    Attributes:
        models: names and paths to choose from.
        detector_weights: of torchvision's detector; None lets torchvision fetch them.
        device: as `PoseEstimator` takes it.
    """

    models: tuple[str, ...]
    detector_weights: Path | None = None
    device: str = "auto"
    _estimators: dict[tuple[str, bool], PoseEstimator] = field(default_factory=dict)
    _detector: Detector | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="posedy-", ignore_cleanup_errors=True)
    )

    def photo(self, path: str, model: str, persons: str, threshold: float) -> Seen:
        """Finds the poses of a photo.

        Raises:
            OSError, ValueError: if it is no picture, or model or detector cannot be had.
        """
        image = to_rgb(path)
        began = time.perf_counter()
        poses = self._estimator(model, flip=True)(image, *self._boxes(image, persons), channels="rgb")
        seconds = time.perf_counter() - began
        drawn = poses.draw(image, threshold)
        height, width = image.shape[:2]
        file = self._file("keypoints.json")
        record = {"file": Path(path).name, "width": width, "height": height, "persons": poses.to_records()}
        write_json_atomically(file, [record], indent=2)
        return Seen(drawn, file, f"{_count(len(poses))} in {seconds:.2f} s")

    def video(self, path: str, model: str, persons: str, threshold: float) -> Seen:
        """Finds the poses of a video.

        Raises:
            OSError, ValueError: if it is no video, or model or detector cannot be had.
        """
        tracker = PoseTracker(self._estimator(model, flip=False), self._named(persons))
        video = self._file("poses.webm")
        lines = video.with_name("keypoints.jsonl")
        try:
            outcome = run_video(FrameSource(Path(path)), tracker, video, lines, threshold=threshold)
        except BaseException:
            shutil.rmtree(video.parent, ignore_errors=True)
            raise
        words = f"{outcome.frames} frames, {outcome.frames_per_second:.1f} a second"
        return Seen(video, lines, words + (f"; {outcome.damaged} damaged ones left out" if outcome.damaged else ""))

    def camera(
        self, image: NDArray[np.uint8], model: str, persons: str, threshold: float, state: "CameraState | None"
    ) -> "tuple[NDArray[np.uint8], CameraState]":
        """Finds the poses of the next picture (H, W, 3) RGB of a camera, and what to hand in with the one after."""
        now = time.monotonic()
        if state is None or (model, persons) != state.chosen or now - state.last > _FORGET_AFTER:
            state = CameraState(PoseTracker(self._estimator(model, flip=False), self._named(persons)), (model, persons))
        if now > state.last:
            found = state.tracker(rgb_to_bgr(image), now).poses
            image = found.draw(image, threshold, channels="rgb")
            state.last = now
        return image, state

    def _file(self, name: str) -> Path:
        """A file of that name in a new folder, which goes when the program ends."""
        return Path(tempfile.mkdtemp(dir=self._folder.name)) / name

    def _estimator(self, model: str, flip: bool) -> PoseEstimator:
        if model not in self.models:
            raise ValueError(f"the models to choose from are {', '.join(self.models)}, got {model!r}")
        with self._lock:
            if (model, flip) not in self._estimators:
                self._estimators[model, flip] = PoseEstimator(model, self.device, flip=flip)
            return self._estimators[model, flip]

    def _named(self, persons: str) -> Detector:
        if persons not in PERSONS:
            raise ValueError(f"persons are found as {' or '.join(map(repr, PERSONS))}, got {persons!r}")
        if persons == WHOLE:
            return FullImageDetector()
        with self._lock:
            if self._detector is None:
                torchvision = TorchvisionDetector(self.detector_weights, self.device, BOX_THRESHOLD)
                self._detector = CleanedDetector(torchvision)
            return self._detector

    def _boxes(self, image: NDArray[np.uint8], persons: str) -> tuple[NDArray, NDArray]:
        boxes, scores = self._named(persons).detect(rgb_to_bgr(image))
        return np.asarray(boxes), np.asarray(scores)


@dataclass
class CameraState:
    """Who is followed in the pictures of a camera.

    Attributes:
        tracker: of the persons.
        chosen: model and persons.
        last: when the last picture came.
    """

    tracker: PoseTracker
    chosen: tuple[str, str]
    last: float = -np.inf


def _count(persons: int) -> str:
    return f"{persons} person" if persons == 1 else f"{persons} persons"

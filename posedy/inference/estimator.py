"""The pose estimator for images, with given or detected person boxes, and for videos."""

import math
import numbers
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from posedy.images import ChannelOrder, ImageLike, read_image_url, rgb_to_bgr, to_rgb
from posedy.inference.boxes import check_boxes_meet_image, checked_box_scores, checked_boxes
from posedy.inference.crop_batch import CropBatch, check_sides
from posedy.inference.detectors import (
    DEFAULT_DETECTOR,
    BoxThresholds,
    CleanedDetector,
    Detections,
    Detector,
    check_detector,
    create_detector,
    detector_thresholds,
)
from posedy.inference.image_groups import detect_group, read_groups
from posedy.inference.tracked_poses import TrackedPoses
from posedy.inference.tracking import PoseTracker, check_frame
from posedy.inference.video_io import Frame, FrameSource
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import DEFAULT
from posedy.poses import Poses
from posedy.prediction import RuntimeChoice, load_model
from posedy.skeleton import numbered_skeleton
from posedy.urls import is_url

_DEFAULT_RATE = 30.0
_NO_BOXES = (
    "no boxes: give boxes=[[x1, y1, x2, y2], ...] with the image, or create the estimator with a detector: "
    "detector='posedy', detector='full-image' (the full image is the box of one person) or an object with "
    "detect(image_bgr) -> (boxes, scores)"
)


class PoseEstimator:
    """Estimates the keypoints of all persons in images and videos.

        estimator = posedy.PoseEstimator()
        poses = estimator("image.jpg")
        for pose in poses:
            print(pose.score, pose.keypoints)
        cv2.imwrite("drawn.jpg", poses.draw("image.jpg"))

    Several threads may share one estimator.

    Create it in the process that uses it: in a process that was forked after its creation, an estimator in OpenVINO
    raises RuntimeError.

    Args:
        model: a preset such as "balanced", the name of a pretrained network (see `list_models(pretrained=True)`), a
            checkpoint (.pt), a .safetensors or an exported .onnx file, or a network. A network is copied and stays
            unchanged.
        device: "auto" for a GPU (cuda, then mps) if there is one, else the CPU; or the name of a device.
        detector: detects the persons of images without given boxes; it is created at the first such image.
            "posedy" is a light detector in the package, "torchvision" a Faster R-CNN, whose weights are downloaded at
            first use; "full-image" takes the full image as the box of one person; or a name of `list_detectors()`, or
            any object with `detect(image_bgr) -> (boxes, scores)`. With None, every call must be given boxes.

            The boxes of all detectors are clipped to the image; boxes that are not finite, have no area or are outside
            the image are dropped, with a warning for the first ones (see `dropped_boxes`).
        flip: whether to average the heatmaps of each crop with those of the flipped crop: more accurate, at twice the
            time.
        batch_size: maximum number of crops in a batch of the network.
        runtime: "auto", "torch", "onnxruntime" or "openvino". "auto" is the runtime that an .onnx file was exported
            for. For pretrained networks and network files it is OpenVINO on a CPU, if it is installed, otherwise
            PyTorch; the first use of a network converts it, which takes some seconds, and keeps the result in the
            user's cache folder (~/.cache/posedy). For a network object, which may still change, it is PyTorch.
        box_threshold: minimum score, inclusive, of the detector's boxes of images and of new persons in videos, from 0
            to 1. None is the detector's own, as for `posedy predict`: 0.4 for "posedy", 0.3 for detectors without an
            attribute `thresholds`.

    Attributes:
        device: the device of the network.
        runtime: the runtime of the network: "torch", "onnxruntime" or "openvino".
        skeleton: the names, flip pairs, limbs and OKS sigmas of the keypoints.

    Raises:
        OSError: if the model file cannot be read.
        TypeError: if an argument has the wrong type.
        ValueError: if the file contains no network, the device is absent, or another argument is invalid.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | PoseNet = DEFAULT,
        device: str | torch.device = "auto",
        detector: str | Detector | None = DEFAULT_DETECTOR,
        flip: bool = True,
        batch_size: int = 32,
        runtime: RuntimeChoice = "auto",
        box_threshold: float | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | numbers.Integral):
            raise TypeError(f"batch_size must be an integer, got {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not isinstance(flip, bool):
            raise TypeError(f"flip must be true or false, got {flip!r}")
        if detector is not None:
            check_detector(detector)
        self._detector_choice = detector
        self._thresholds = detector_thresholds(detector).with_box_threshold(box_threshold)
        self._detector: CleanedDetector | None = None
        self._detector_lock = threading.Lock()
        self._model = load_model(model, str(device), runtime)
        self._model.check_flip(flip)
        self._batch_size = batch_size
        self.device = self._model.device
        self.runtime = self._model.runtime
        self.skeleton = self._model.skeleton or numbered_skeleton(self._model.num_keypoints)
        self._flip_permutation = self.skeleton.flip_permutation if flip else None

    @overload
    def __call__(
        self,
        image: ImageLike,
        boxes: ArrayLike | None = None,
        box_scores: ArrayLike | None = None,
        channels: ChannelOrder = "bgr",
    ) -> Poses: ...

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        boxes: Sequence[ArrayLike | None] | None = None,
        box_scores: Sequence[ArrayLike | None] | None = None,
        channels: ChannelOrder = "bgr",
    ) -> list[Poses]: ...

    # strings, because help() would expand ArrayLike
    def __call__(
        self,
        image: "ImageLike | list[Any] | tuple[Any, ...]",
        boxes: "ArrayLike | Sequence[ArrayLike | None] | None" = None,
        box_scores: "ArrayLike | Sequence[ArrayLike | None] | None" = None,
        channels: ChannelOrder = "bgr",
    ) -> Poses | list[Poses]:
        """Estimates the poses of an image, or of each image of a list, in batches across images.

        Args:
            image: a path, an http or https URL, a PIL image, a uint8 array (H, W, 3), (H, W, 4) or gray in OpenCV's BGR
                order, or an RGB tensor (3, H, W), uint8 or float from 0 to 1; or a list of images. The EXIF orientation
                of files and PIL images is applied. The image is not changed.
            boxes: (P, 4) xyxy of the persons in image pixels; they may extend beyond the image. A box outside the image
                is an error, since a dropped one would shift the poses against the boxes. An empty list gives no poses;
                without boxes the detector runs. For a list of images: a list with boxes, or None, for each.
            box_scores: (P,) confidence of the boxes, 1 if not given; for a list of images a list.
            channels: "rgb" for arrays in RGB order, such as those of PIL, imageio and gradio; `Poses.draw` then takes
                and returns arrays in that order, too.

        Returns:
            The poses in the order of the boxes; for a list of images a list with the poses of each image.

        Raises:
            OSError: if an image cannot be read.
            TypeError: if the image has the wrong type.
            ValueError: if the image or the boxes are invalid, or there are neither boxes nor a detector; the message
                names the index of the box, and of the image in a list.
        """
        if not isinstance(image, list | tuple):
            (poses,) = self._estimate([image], [boxes], [box_scores], channels)
            return poses
        count = len(image)
        return self._estimate(
            image, _per_image("boxes", boxes, count), _per_image("box_scores", box_scores, count), channels
        )

    def detect(
        self, image_bgr: NDArray[np.uint8], threshold: float | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Detects the persons of an image.

        Args:
            image_bgr: (H, W, 3) uint8 BGR.
            threshold: minimum score of the boxes, from 0 to 1; None is the one of images, `thresholds.display`.
                Detectors given by name return no scores below `thresholds.lowest_drawn`.

        Returns:
            Boxes (P, 4) xyxy inside the image, in its pixels, and scores (P,).

        Raises:
            OSError: if the weights of the detector cannot be read or downloaded.
            TypeError: if the image is not an array.
            ValueError: if the estimator has no detector, the array has the wrong shape or type, or the threshold is
                not from 0 to 1.
        """
        detector = self._get_detector()
        check_frame(image_bgr)
        return detector.detect(image_bgr, threshold)

    def detect_many(self, images_bgr: Sequence[NDArray[np.uint8]]) -> list[Detections | Exception]:
        """Detects the persons of several images together.

        Args:
            images_bgr: images (H, W, 3) uint8 BGR of any sizes.

        Returns:
            For each image its boxes (P, 4) xyxy and scores (P,), or the error of the detector.

        Raises:
            OSError: if the weights of the detector cannot be read or downloaded.
            ValueError: if the estimator has no detector, or the detector fails for the images together only.
        """
        return detect_group(self._get_detector(), images_bgr)

    def new_batch(self) -> CropBatch:
        """Creates an empty batch, to predict the persons of images that come one by one."""
        return CropBatch(self._model, self.skeleton, self._flip_permutation, self._batch_size)

    def track(
        self,
        source: str | os.PathLike[str] | int | Iterable[NDArray[np.uint8]],
        smooth: bool = True,
        detect_every: int = 10,
        rate: float = _DEFAULT_RATE,
    ) -> TrackedPoses:
        """Estimates the poses of successive frames, with track ids in `Poses.track_ids` and times in `Poses.time`.

            for poses in estimator.track("clip.mp4"):
                print(poses.track_ids, poses.keypoints)

        The call checks the arguments and opens the source; errors of its frames are raised during the iteration. The
        source is closed at its end, after an error, and by `close()` of the returned iterator.

        Args:
            source: a video file, the URL of a video (http, https) or of a live stream (rtsp, rtsps), the number of a
                camera, or frames (H, W, 3) uint8 BGR.
            smooth: whether to smooth keypoints over time, frame by frame; `posedy.smooth_tracks` smooths offline.
            detect_every: the detector runs at every N-th frame, and when a person is lost.
            rate: frames per second of an iterable of frames; other sources have their own.

        Returns:
            An iterator over the poses of each frame. Frames of a camera or a live stream that come too fast are
            dropped; its attribute `dropped` counts them.

        Raises:
            OSError: if the source cannot be read.
            TypeError: if the source or a frame has the wrong type, or smooth is not a bool.
            ValueError: if the source is no video, an argument is out of range, or there is no detector.
        """
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"expected a rate of more than 0 frames per second, got {rate}")
        if isinstance(source, bool) or not isinstance(source, str | os.PathLike | int | Iterable):
            raise TypeError(
                f"expected a video file, a URL, the number of a camera or frames, got {type(source).__name__}"
            )
        tracker = PoseTracker(self, detect_every=detect_every, smooth=smooth)
        if isinstance(source, str | os.PathLike | int):
            frames: Iterable[Frame] = FrameSource(os.fspath(source) if isinstance(source, os.PathLike) else source)
        else:
            frames = (Frame(number, number / rate, image) for number, image in enumerate(source))
        return TrackedPoses(tracker, frames)

    @property
    def thresholds(self) -> BoxThresholds:
        """The scores from which boxes of the detector are used."""
        return self._thresholds

    @property
    def name(self) -> str:
        """The network's name in `list_models`."""
        return self._model.name

    @property
    def description(self) -> str:
        """The network, its runtime and device, and whether the flip test is on, as one line of text."""
        return (
            f"{self._model.name}, {self.skeleton.num_keypoints} keypoints, {self.runtime} on {self.device}, "
            f"flip test {'on' if self._flip_permutation is not None else 'off'}"
        )

    @property
    def dropped_boxes(self) -> dict[str, int]:
        """The numbers of dropped boxes of the detector by reason."""
        return self._detector.dropped if self._detector is not None else {}

    @property
    def lowest_box_score(self) -> float:
        """The score from which on the detector that was given by name returns boxes; 0 for other detectors."""
        return self.thresholds.lowest_drawn if isinstance(self._detector_choice, str) else 0.0

    def __reduce__(self) -> NoReturn:
        """Rejects pickling and copies: the graphs and locks of an estimator belong to its process.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: create one in each process, from the same "
            "arguments; the threads of a process may share one"
        )

    def _get_detector(self) -> CleanedDetector:
        if self._detector_choice is None:
            raise ValueError(_NO_BOXES)
        with self._detector_lock:
            if self._detector is None:
                lowest = self.thresholds.lowest_drawn
                # a graph may run on a GPU that torch does not support
                device = "auto" if self.device.type == "cuda" and not torch.cuda.is_available() else str(self.device)
                detector = create_detector(self._detector_choice, device, threshold=lowest)
                self._detector = CleanedDetector(detector, self.thresholds.display)
            return self._detector

    def _estimate(
        self,
        images: Sequence[Any],
        boxes: Sequence[Any],
        box_scores: Sequence[Any],
        channels: ChannelOrder,
    ) -> list[Poses]:
        """Estimates the poses of images; batches may contain persons of several images."""
        poses: list[Poses] = []
        batch = self.new_batch()
        for group in read_groups(range(len(images)), lambda index: _read(images[index], channels)):
            detected = self._detect_missing(group, boxes)
            for index, rgb in group:
                try:
                    if isinstance(rgb, Exception):
                        raise rgb
                    image_boxes, scores = _person_boxes(rgb, boxes[index], box_scores[index], detected.get(index))
                except (OSError, TypeError, ValueError) as error:
                    if len(images) == 1:
                        raise
                    # subclasses such as JSONDecodeError are not created from a message alone
                    kind = next(kind for kind in (OSError, TypeError, ValueError) if isinstance(error, kind))
                    raise kind(f"image {index} of {len(images)}: {error}") from error
                poses.append(batch.add(rgb, image_boxes, scores, channels))
        batch.flush()
        return poses

    def _detect_missing(
        self, group: Sequence[tuple[int, NDArray[np.uint8] | Exception]], boxes: Sequence[Any]
    ) -> dict[int, Detections | Exception]:
        """Detects the persons of the images of a group without given boxes: detections by index."""
        images = {
            index: rgb_to_bgr(rgb) for index, rgb in group if boxes[index] is None and not isinstance(rgb, Exception)
        }
        if not images or self._detector_choice is None:
            return {}
        return dict(zip(images, self.detect_many(list(images.values())), strict=True))


def _person_boxes(
    rgb: NDArray[np.uint8],
    boxes: ArrayLike | None,
    box_scores: ArrayLike | None,
    detected: Detections | Exception | None,
) -> Detections:
    """Returns the checked boxes (P, 4) and scores (P,) of an image, those of the detector if none are given."""
    if boxes is None and box_scores is not None:
        raise ValueError("box_scores requires boxes")
    if isinstance(detected, Exception):
        raise detected
    if detected is not None:
        boxes, box_scores = detected
    if boxes is None:
        raise ValueError(_NO_BOXES)
    checked = checked_boxes(boxes)
    check_boxes_meet_image(checked, rgb.shape[1], rgb.shape[0])
    return checked, checked_box_scores(box_scores, len(checked))


def _per_image(name: str, values: Any, count: int) -> Sequence[Any]:
    """Checks the boxes or the scores of a list of images and returns them, None for each image if there are none."""
    if values is None:
        return [None] * count
    if isinstance(values, str | Mapping) or not hasattr(values, "__len__"):
        raise TypeError(f"expected a list with {name} for each of {count} images, got {type(values).__name__}")
    if len(values) != count:
        raise ValueError(f"expected {name} for each of {count} images, got {len(values)}")
    return values


def _read(image: Any, channels: ChannelOrder) -> NDArray[np.uint8]:
    """Reads or converts an image of any supported type to (H, W, 3) uint8 RGB."""
    rgb = read_image_url(image) if is_url(image) else to_rgb(image, channels)
    check_sides(rgb, f"image {image}" if isinstance(image, str | os.PathLike) else "the image")
    return rgb

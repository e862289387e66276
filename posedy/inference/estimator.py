"""The pose estimator: an image and person boxes in, poses out."""

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from posedy.geometry import image_to_crop_matrix, padded_region, warp_crop
from posedy.images import ChannelOrder, ImageLike, rgb_to_bgr, to_rgb
from posedy.inference.boxes import check_boxes_meet_image, checked_box_scores, checked_boxes
from posedy.inference.detectors import CleanedDetector, Detector, as_detector
from posedy.inference.poses import Poses
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import DEFAULT
from posedy.prediction import load_model, predict_keypoints
from posedy.skeleton import numbered_skeleton

if TYPE_CHECKING:
    from posedy.export.runtimes import Runtime

# OpenCV's warps count pixels in 16 bits
_LARGEST_SIDE = 32766


class PoseEstimator:
    """Finds the keypoints of persons in images.

        estimator = PoseEstimator()  # the shipped model; PoseEstimator("runs/x/best.pt") is one of your own
        poses = estimator("photo.jpg", boxes=[[48, 20, 210, 400]])
        cv2.imwrite("drawn.jpg", poses.draw("photo.jpg"))

    Several threads may share one: a call changes nothing but the count of dropped boxes.

    Args:
        model: the name of a shipped model (see `list_pretrained`), a checkpoint (.pt), .safetensors or exported .onnx
            file, or a network. A network is copied: the one given stays on its device and in its mode.
        device: "auto" for a GPU (cuda, then mps) if there is one, else the CPU; or a device that must be there.
        detector: finds the persons of images that come without boxes: "torchvision" is a small Faster R-CNN, whose
            weights torchvision fetches at first use (persons with scores from 0.3, `BOX_THRESHOLD`); "whole" takes the
            whole image for one person; or any object with `detect(image_bgr) -> (boxes, scores)`. None asks for boxes.
            A detector's boxes are clipped to the image; those that are not finite, have no area or are outside the
            image are dropped, with a warning for the first ones (see `dropped_boxes`).
        flip: whether heatmaps are averaged with those of the mirrored crop: more accurate, at twice the time.
        batch_size: persons that go through the network at a time.
        runtime: "onnxruntime" or "openvino" for .onnx files; None is the one that the file was exported for.

    Raises:
        OSError: if the model's file cannot be read.
        TypeError: if an argument is of another type.
        ValueError: if the file holds no network, the device is absent, or another argument does not fit.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | PoseNet = DEFAULT,
        device: str | torch.device = "auto",
        detector: str | Detector | None = None,
        flip: bool = True,
        batch_size: int = 32,
        runtime: "Runtime | None" = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._detector = CleanedDetector(as_detector(detector)) if detector is not None else None
        self._model = load_model(model, str(device), runtime)
        self._model.check_flip(flip)
        self._batch_size = batch_size
        self.device = self._model.device
        self.skeleton = self._model.skeleton or numbered_skeleton(self._model.num_keypoints)
        self._flip_permutation = self.skeleton.flip_permutation if flip else None

    def __call__(
        self,
        image: ImageLike,
        boxes: ArrayLike | None = None,
        box_scores: ArrayLike | None = None,
        channels: ChannelOrder = "bgr",
    ) -> Poses:
        """The poses of an image, one for each box, in the order of the boxes.

        Args:
            image: a path, a PIL image, or a uint8 array in OpenCV's BGR order, (H, W, 3), (H, W, 4) or gray. The EXIF
                orientation of paths and PIL images is honored. It is not changed.
            boxes: (P, 4) xyxy of the persons in image pixels; they may reach beyond the image. Zero boxes give zero
                poses; without boxes the detector is asked.
            box_scores: (P,) how sure the boxes are, 1 if not given.
            channels: "rgb" for arrays in that order, such as those of PIL, imageio and gradio; `Poses.draw` then takes
                and returns arrays in that order too.

        Raises:
            OSError: if a photo cannot be read.
            TypeError: if the image is of another type.
            ValueError: if the image or the boxes are not as above, or there are neither boxes nor a detector.
        """
        if boxes is None and box_scores is not None:
            raise ValueError("box_scores came without boxes")
        if boxes is None and self._detector is None:
            raise ValueError(
                "no boxes: give boxes=[[x1, y1, x2, y2], ...] with the image, or make the estimator with "
                "detector='torchvision', detector='whole' (the whole image is one person) or detector=an object that "
                "has detect(image_bgr) -> (boxes, scores)"
            )
        rgb = to_rgb(image, channels)
        if max(rgb.shape[:2]) > _LARGEST_SIDE:
            raise ValueError(
                f"the image is {rgb.shape[1]}x{rgb.shape[0]} pixels: OpenCV warps up to {_LARGEST_SIDE} a side; cut or "
                "shrink it"
            )
        if boxes is None and self._detector is not None:
            boxes, box_scores = self._detector.detect(rgb_to_bgr(rgb))
        checked = checked_boxes(boxes if boxes is not None else [])
        check_boxes_meet_image(checked, rgb.shape[1], rgb.shape[0])
        scores = checked_box_scores(box_scores, len(checked))
        keypoints, keypoint_scores = self._estimate(rgb, checked)
        return Poses(keypoints, keypoint_scores, checked, scores, self.skeleton, channels)

    @property
    def dropped_boxes(self) -> dict[str, int]:
        """How many boxes of the detector have been dropped, by reason."""
        return self._detector.dropped if self._detector is not None else {}

    def _estimate(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keypoints (P, K, 2) in image pixels and scores (P, K) of an RGB image."""
        input_size = width, height = self._model.input_size
        keypoints = np.zeros((len(boxes), self._model.num_keypoints, 2), dtype=np.float32)
        scores = np.zeros(keypoints.shape[:2], dtype=np.float32)
        image_to_crop = image_to_crop_matrix(*padded_region(boxes, width / height), input_size)
        for start in range(0, len(boxes), self._batch_size):
            batch = slice(start, start + self._batch_size)
            crops = np.stack([warp_crop(image, matrix, input_size) for matrix in image_to_crop[batch]])
            keypoints[batch], scores[batch] = predict_keypoints(
                self._model, crops, image_to_crop[batch], self._flip_permutation
            )
        return keypoints, scores

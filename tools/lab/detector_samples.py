"""Training samples of the person detector: images without those of tests and evaluations, boxes, augmentation."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posedy.geometry import box_iou, xywh_to_xyxy
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.detectors.nanodet import network_size
from tools.lab.detector_losses import BoxTargets
from tools.lab.real_set import remove_images, select_dev

MINI_ANNOTATIONS = Path(__file__).parents[2] / "data/coco_mini/annotations"
"""Annotation files of the images of examples and tests, which are never trained on."""

IGNORED_SCORE = 0.3
"""Boxes of the original detector with at least this score that match no label are ignored: most are on persons."""
_MATCH_IOU = 0.25  # with a labeled box, from which on a detected box matches it, as for dev_unlabeled.json

_SIZES = (320, 352, 384, 416)
_SCALE_LIMITS = (0.8, 1.4)
_STRETCH = 0.08  # largest logarithm of the change of the aspect ratio, as sizes for the network are multiples of 32
_MIN_VISIBLE = 0.25  # fraction of a labeled box within the crop, below which it is ignored
_MIN_SIDE = 4.0  # pixels of the network's input; smaller boxes are ignored
_BRIGHTNESS, _CONTRAST, _SATURATION = 30.0, 0.25, 0.3
_BACKGROUND = (104, 116, 124)  # the mean color, BGR
_ASPECT_NOISE = 0.05

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """An image of the training set.

    Attributes:
        path: its file.
        size: (width, height).
        labeled: (G, 4) boxes xyxy of labeled persons, in its pixels.
        ignored: (I, 4) boxes of crowds and of persons that may be unlabeled.
    """

    path: Path
    size: tuple[int, int]
    labeled: FloatArray
    ignored: FloatArray


def select_training_images(content: Mapping[str, Any], excluded: Collection[int] = ()) -> dict[str, Any]:
    """Returns a COCO file without the dev split, the images of data/coco_mini and further images.

    Args:
        content: the content of the file.
        excluded: ids of further images.
    """
    reserved = {
        image_id for path in sorted(MINI_ANNOTATIONS.glob("person_keypoints_*.json")) for image_id in ids_of(path)
    }
    return select_dev(remove_images(content, reserved.union(excluded)), dev=False)


def ids_of(annotations: Path) -> set[int]:
    """Returns the image ids of a COCO annotation file."""
    return {image["id"] for image in json.loads(annotations.read_bytes())["images"]}


def collect_images(
    content: Mapping[str, Any], folder: Path, detected: Mapping[str, Sequence[Sequence[float]]]
) -> list[TrainingImage]:
    """Returns the images of a COCO file with their boxes.

    Args:
        content: the content of the file.
        folder: folder of the images.
        detected: {image id: [[x1, y1, x2, y2, score], ...]}, boxes of the original detector.
    """
    boxes: dict[int, tuple[list[Any], list[Any]]] = {image["id"]: ([], []) for image in content["images"]}
    for annotation in content["annotations"]:
        boxes[annotation["image_id"]][1 if annotation.get("iscrowd") else 0].append(annotation["bbox"])
    images = []
    for image in content["images"]:
        labeled, crowds = (xywh_to_xyxy(_as_boxes(rows)).astype(np.float32) for rows in boxes[image["id"]])
        ignored = np.concatenate([crowds, unmatched_boxes(detected[str(image["id"])], labeled)])
        size = (image["width"], image["height"])
        images.append(TrainingImage(folder / image["file_name"], size, labeled, ignored))
    return images


def unmatched_boxes(detected: Sequence[Sequence[float]], labeled: FloatArray) -> FloatArray:
    """Returns the confident detected boxes (x1, y1, x2, y2, score) that match no labeled box: (I, 4)."""
    confident = _as_boxes([row[:4] for row in detected if row[4] >= IGNORED_SCORE])
    return confident[box_iou(confident, labeled).max(axis=1, initial=0) < _MATCH_IOU]


def epoch_batches(images: Sequence[TrainingImage], batch_size: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Returns the image indices of an epoch's batches in random order; aspect ratios within a batch are similar."""
    aspects = np.log([image.size[0] / image.size[1] for image in images])
    order = np.argsort(aspects + rng.normal(0, _ASPECT_NOISE, len(images)))
    batches = np.array_split(order, -(-len(images) // batch_size))
    return [batches[index] for index in rng.permutation(len(batches))]


def load_batch(images: Sequence[TrainingImage], rng: np.random.Generator) -> tuple[Tensor, list[BoxTargets]]:
    """Reads and augments images of similar aspect ratios: (N, H, W, 3) uint8 BGR of a random size, and their boxes."""
    aspect = np.exp(np.mean([np.log(image.size[0] / image.size[1]) for image in images]))
    size = network_size(round(1000 * aspect), 1000, int(rng.choice(_SIZES)))
    samples = [augment(rgb_to_bgr(read_image(image.path)), image, size, rng) for image in images]
    return torch.from_numpy(np.stack([image for image, _ in samples])), [targets for _, targets in samples]


def augment(
    image_bgr: NDArray[np.uint8], record: TrainingImage, size: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], BoxTargets]:
    """Scales an image to about the network's input, crops or expands it to it, flips it and changes its colors.

    Args:
        image_bgr: the pixels (H, W, 3).
        record: its boxes.
        size: (width, height) of the network's input.
        rng: random generator.
    """
    extent, limit = np.array(record.size, dtype=np.float64), np.array(size, dtype=np.float64)
    stretch = np.exp(rng.uniform(-_STRETCH, _STRETCH) / 2)
    scale = np.exp(rng.uniform(*np.log(_SCALE_LIMITS))) * np.sqrt(limit.prod() / extent.prod())
    scales = scale * np.array([stretch, 1 / stretch])
    shift = rng.uniform(0, 1, 2) * (limit - extent * scales)
    if rng.random() < 0.5:
        scales, shift = scales * [-1, 1], np.array([limit[0] - shift[0], shift[1]])
    # coordinates of boxes are those of pixel edges, of matrices those of pixel centers
    matrix = np.column_stack([np.diag(scales), shift + scales / 2 - 0.5])
    crop = cv2.warpAffine(image_bgr, matrix, size, flags=cv2.INTER_LINEAR, borderValue=_BACKGROUND)
    labeled, is_visible = _transform(record.labeled, scales, shift, limit)
    ignored, _ = _transform(record.ignored, scales, shift, limit)
    ignored = np.concatenate([ignored, labeled[~is_visible]])
    return _jitter_colors(np.asarray(crop, dtype=np.uint8), rng), BoxTargets(
        torch.from_numpy(labeled[is_visible]), torch.from_numpy(ignored)
    )


def _transform(
    boxes: FloatArray, scales: NDArray[np.float64], shift: NDArray[np.float64], limit: NDArray[np.float64]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Returns boxes (B, 4) clipped to an input of size `limit`, and whether enough of each is within it."""
    corners = boxes.reshape(-1, 2, 2) * scales + shift
    corners = np.stack([corners.min(axis=1), corners.max(axis=1)], axis=1)
    clipped = corners.clip(0, limit)
    sides, areas = (np.diff(each, axis=1)[:, 0] for each in (clipped, corners))
    is_visible = (sides.min(axis=1) >= _MIN_SIDE) & (sides.prod(axis=1) >= _MIN_VISIBLE * areas.prod(axis=1))
    return clipped.reshape(-1, 4).astype(np.float32), is_visible


def _jitter_colors(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Changes contrast, brightness and saturation."""
    contrast, saturation = 1 + rng.uniform(-1, 1, 2) * (_CONTRAST, _SATURATION)
    offset = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS) + (1 - contrast) * 128
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    mixed = cv2.addWeighted(image, contrast * saturation, gray, contrast * (1 - saturation), offset)
    return np.asarray(mixed, dtype=np.uint8)


def _as_boxes(rows: Sequence[Sequence[float]]) -> FloatArray:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)

"""Boxes, crops and the affine maps between image and crop space.

One convention, stated once: integer coordinates are pixel centers, x to the right and y down. A crop of W x H pixels
shows a padded box; the center of the box lies at (W/2, H/2) of the crop (the coding of Sun et al., CVPR 2019), and a
mirrored crop has x' = W - 1 - x. Boxes are xyxy; COCO's xywh exists only where a COCO file is read or written.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating]

_MAX_WARP_SIDE = 32766  # cv2.warpAffine counts pixels in 16 bits


def xywh_to_xyxy(boxes: ArrayLike) -> FloatArray:
    """COCO's (x, y, width, height) as (x, y, x + width, y + height); shape (..., 4)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: ArrayLike) -> FloatArray:
    """(x1, y1, x2, y2) as COCO's (x, y, width, height); shape (..., 4)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def box_iou(boxes: ArrayLike, others: ArrayLike) -> FloatArray:
    """Intersection over union of every box (N, 4) with every other (M, 4): (N, M); 0 where both are empty."""
    a, b = np.asarray(boxes, dtype=np.float64)[:, None], np.asarray(others, dtype=np.float64)[None]
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def padded_region(boxes: ArrayLike, aspect: float, padding: float = 1.25) -> tuple[FloatArray, FloatArray]:
    """The regions that crops show: each box grown to an aspect ratio, then padded on all sides.

    Args:
        boxes: (..., 4) xyxy in image pixels.
        aspect: width / height of the crop.
        padding: factor on width and height.

    Returns:
        Centers (..., 2) and sizes (..., 2) as (width, height), in image pixels.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    width, height = np.moveaxis(boxes[..., 2:] - boxes[..., :2], -1, 0)
    width, height = np.maximum(width, height * aspect), np.maximum(height, width / aspect)
    return center, np.stack([width, height], axis=-1) * padding


def image_to_crop_matrix(
    center: ArrayLike, size: ArrayLike, input_size: tuple[int, int], rotation: float = 0.0, flip: bool = False
) -> FloatArray:
    """The affine map from image pixels to crop pixels.

    crop = (W/2, H/2) + (W / width) * R(rotation) * (image - center), then x' = W - 1 - x if flipped.

    Args:
        center: (..., 2) center of the region in image pixels.
        size: (..., 2) width and height of the region in image pixels, of the crop's aspect ratio.
        input_size: (W, H) of the crop in pixels.
        rotation: degrees by which the content turns clockwise on the screen.
        flip: whether the crop is mirrored.

    Returns:
        (..., 2, 3) matrices in float64.

    Raises:
        ValueError: if a region has no area.
    """
    center, size = np.asarray(center, dtype=np.float64), np.asarray(size, dtype=np.float64)
    if not (np.isfinite(center).all() and np.isfinite(size).all() and (size > 0).all()):
        raise ValueError(f"a crop needs a finite region of positive width and height, got center {center}, size {size}")
    width, height = input_size
    scale = width / size[..., 0]
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    matrix = np.empty((*scale.shape, 2, 3))
    matrix[..., 0, 0] = matrix[..., 1, 1] = scale * cos
    matrix[..., 1, 0] = scale * sin
    matrix[..., 0, 1] = -matrix[..., 1, 0]
    matrix[..., 0, 2] = width / 2 - (matrix[..., 0, 0] * center[..., 0] + matrix[..., 0, 1] * center[..., 1])
    matrix[..., 1, 2] = height / 2 - (matrix[..., 1, 0] * center[..., 0] + matrix[..., 1, 1] * center[..., 1])
    if flip:
        matrix[..., 0, :] *= -1
        matrix[..., 0, 2] += width - 1
    return matrix


def invert_affine(matrix: ArrayLike) -> FloatArray:
    """The inverse of (..., 2, 3) affine maps: crop_to_image from image_to_crop."""
    matrix = np.asarray(matrix, dtype=np.float64)
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def apply_affine(matrix: ArrayLike, points: ArrayLike) -> FloatArray:
    """Maps points (..., P, 2) by affine maps (..., 2, 3)."""
    matrix, points = np.asarray(matrix, dtype=np.float64), np.asarray(points, dtype=np.float64)
    return np.einsum("...ij,...pj->...pi", matrix[..., :2], points) + matrix[..., None, :, 2]


def warp_crop(image: NDArray[np.uint8], image_to_crop: FloatArray, input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cuts a crop (H, W, C) out of an image in one bilinear warp; outside of the image is black.

    Raises:
        ValueError: if the image is empty or too large for OpenCV's warp.
    """
    if not 0 < min(image.shape[:2]) <= max(image.shape[:2]) <= _MAX_WARP_SIDE:
        raise ValueError(
            f"an image to cut crops from has sides of 1 to {_MAX_WARP_SIDE} pixels, got {image.shape[1]}x"
            f"{image.shape[0]}; shrink or split it"
        )
    crop = cv2.warpAffine(image, image_to_crop, input_size, flags=cv2.INTER_LINEAR)
    return crop.astype(np.uint8, copy=False)

"""Boxes, crops and the affine maps between image and crop coordinates.

Conventions: integer coordinates are pixel centers, x to the right and y down. A crop of W x H pixels shows a padded box
whose center is at (W/2, H/2) of the crop (as in Sun et al., CVPR 2019); a flip maps x to W - 1 - x. Boxes are xyxy;
COCO's xywh is used in COCO files only.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating]

DEFAULT_PADDING = 1.25
"""The factor by which crops are larger than boxes, the paper's and that of `PoseEstimator`."""
_MAX_WARP_SIDE = 32766  # cv2.warpAffine indexes pixels with 16 bits


def xywh_to_xyxy(boxes: ArrayLike) -> FloatArray:
    """Converts boxes (..., 4) from COCO's (x, y, width, height) to (x1, y1, x2, y2)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: ArrayLike) -> FloatArray:
    """Converts boxes (..., 4) from (x1, y1, x2, y2) to COCO's (x, y, width, height)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def box_iou(boxes: ArrayLike, others: ArrayLike) -> FloatArray:
    """Computes the pairwise IoU (N, M) of boxes (N, 4) and (M, 4) xyxy; 0 if both are empty."""
    a, b = np.asarray(boxes, dtype=np.float64)[:, None], np.asarray(others, dtype=np.float64)[None]
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def padded_region(boxes: ArrayLike, aspect: float, padding: float = DEFAULT_PADDING) -> tuple[FloatArray, FloatArray]:
    """Computes the image regions of crops: each box is extended to an aspect ratio, then padded.

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
    """Computes the affine map from image pixels to crop pixels.

    crop = (W/2, H/2) + (W / width) * R(rotation) * (image - center), then x' = W - 1 - x for a flip.

    Args:
        center: (..., 2) center of the region in image pixels.
        size: (..., 2) width and height of the region in image pixels, of the crop's aspect ratio.
        input_size: (W, H) of the crop in pixels.
        rotation: clockwise rotation of the content in degrees.
        flip: whether to flip the crop horizontally.

    Returns:
        (..., 2, 3) matrices in float64.

    Raises:
        ValueError: if a region has no area.
    """
    center, size = np.asarray(center, dtype=np.float64), np.asarray(size, dtype=np.float64)
    if not (np.isfinite(center).all() and np.isfinite(size).all() and (size > 0).all()):
        raise ValueError(f"expected a finite region of positive width and height, got center {center}, size {size}")
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
    """Inverts affine maps (..., 2, 3)."""
    matrix = np.asarray(matrix, dtype=np.float64)
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def apply_affine(matrix: ArrayLike, points: ArrayLike) -> FloatArray:
    """Applies affine maps (..., 2, 3) to points (..., P, 2)."""
    matrix, points = np.asarray(matrix, dtype=np.float64), np.asarray(points, dtype=np.float64)
    return np.einsum("...ij,...pj->...pi", matrix[..., :2], points) + matrix[..., None, :, 2]


def warp_crop(image: NDArray[np.uint8], image_to_crop: FloatArray, input_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Warps a crop (H, W, C) out of an image with bilinear interpolation; pixels outside the image are black.

    Raises:
        ValueError: if the image is empty or too large for OpenCV.
    """
    if not 0 < min(image.shape[:2]) <= max(image.shape[:2]) <= _MAX_WARP_SIDE:
        raise ValueError(
            f"expected an image with sides of 1 to {_MAX_WARP_SIDE} pixels, got {image.shape[1]} x "
            f"{image.shape[0]} (width x height); resize or split it"
        )
    crop = cv2.warpAffine(image, image_to_crop, input_size, flags=cv2.INTER_LINEAR)
    return crop.astype(np.uint8, copy=False)

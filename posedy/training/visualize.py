"""Batch visualization: crops, targets, heatmaps and predictions, to spot swapped labels and wrong crops by eye."""

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.codecs import STRIDE
from posedy.drawing import LEFT, RIGHT, WHITE, draw_caption, draw_poses, keypoint_colors
from posedy.geometry import FloatArray, apply_affine
from posedy.skeleton import Skeleton

_ROWS = ("ground truth", "target", "heatmap", "prediction")
# in pixels of the visualization
_MIN_TILE_HEIGHT = 128
_GAP = 2
_DIMMING = 0.4


def draw_batch(
    crops: NDArray[np.uint8],
    keypoints: NDArray[np.floating],
    labeled: NDArray[np.bool_],
    targets: NDArray[np.floating],
    heatmaps: NDArray[np.floating],
    predictions: NDArray[np.floating],
    scores: NDArray[np.floating],
    skeleton: Skeleton,
    heatmap_to_crop: FloatArray,
    max_samples: int = 8,
) -> NDArray[np.uint8]:
    """Draws the first samples of a batch, one column per sample.

    The rows are the crop with its labeled keypoints, the targets, the heatmaps with their peak value below, and the
    predicted keypoints. Each pixel shows the highest heatmap in the color of the keypoint's side. Heatmaps are scaled
    by the peak of the sample, so that noise of 0.01 is as bright as a peak of 1: compare the printed values. Non-finite
    values are drawn as 0 and reported in place of the peak.

    Args:
        crops: (N, H, W, 3) uint8 RGB network inputs.
        keypoints: (N, K, 2) ground truth in crop pixels.
        labeled: (N, K).
        targets: (N, K, h, w) with values from 0 to 1.
        heatmaps: (N, K, h, w) of any values.
        predictions: (N, K, 2) decoded keypoints in crop pixels.
        scores: (N, K); as in `draw_poses`, low ones are faint and those of 0 or less not drawn.
        skeleton: skeleton of the K keypoints.
        heatmap_to_crop: (2, 3) affine matrix of the codec.
        max_samples: number of samples to draw.

    Returns:
        (height, width, 3) uint8 RGB. Crops lower than 128 pixels are upscaled by an integer factor.

    Raises:
        ValueError: if there is no sample to draw or a shape is invalid.
    """
    _check_shapes(crops, keypoints, labeled, targets, heatmaps, predictions, scores, skeleton)
    count = min(max_samples, len(crops))
    if count < 1:
        raise ValueError(f"expected at least one sample to draw, got {len(crops)} crops and max_samples={max_samples}")
    factor = -(-_MIN_TILE_HEIGHT // crops.shape[1])
    crop_to_tile = _upscaling_matrix(factor)
    heatmap_to_tile = crop_to_tile @ np.vstack([heatmap_to_crop, [0, 0, 1]])
    colors = np.array(keypoint_colors(skeleton), dtype=np.float32)

    def overlay_pose(tile: NDArray[np.uint8], points: NDArray, point_scores: NDArray) -> NDArray[np.uint8]:
        return draw_poses(tile, apply_affine(crop_to_tile, points)[None], point_scores[None], skeleton)

    columns = []
    for n in range(count):
        tile = crops[n].repeat(factor, axis=0).repeat(factor, axis=1)
        overlay = partial(_overlay_heatmaps, tile=tile, colors=colors, heatmap_to_tile=heatmap_to_tile)
        scaled, peak = _scale_heatmaps(heatmaps[n])
        rows = [
            overlay_pose(tile, keypoints[n], labeled[n]),
            overlay(np.clip(_zero_non_finite(targets[n]), 0, 1)),
            np.vstack([overlay(scaled), draw_caption(tile.shape[1], (peak, WHITE))]),
            overlay_pose(tile, predictions[n], scores[n]),
        ]
        rows = [np.pad(row, ((0, _GAP), (0, _GAP), (0, 0))) for row in rows]
        columns.append(np.vstack(rows))
    names = [np.rot90(draw_caption(len(row), (name, WHITE))) for name, row in zip(_ROWS, rows, strict=True)]
    body = np.hstack([np.vstack(names), *columns])
    legend = ("left", LEFT), ("right", RIGHT), ("number below a heatmap: its peak", WHITE)
    return np.vstack([draw_caption(body.shape[1], *legend), body])


def _check_shapes(
    crops: NDArray,
    keypoints: NDArray,
    labeled: NDArray,
    targets: NDArray,
    heatmaps: NDArray,
    predictions: NDArray,
    scores: NDArray,
    skeleton: Skeleton,
) -> None:
    if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
        raise ValueError(f"expected crops (N, H, W, 3) uint8, got {crops.shape} {crops.dtype}")
    N, H, W = crops.shape[:3]
    K = skeleton.num_keypoints
    heatmap_shape = (N, K, H // STRIDE, W // STRIDE)
    for name, array, shape in (
        ("keypoints", keypoints, (N, K, 2)),
        ("labeled", labeled, (N, K)),
        ("targets", targets, heatmap_shape),
        ("heatmaps", heatmaps, heatmap_shape),
        ("predictions", predictions, (N, K, 2)),
        ("scores", scores, (N, K)),
    ):
        if array.shape != shape:
            raise ValueError(
                f"{name}: expected shape {shape} for {N} {H}x{W} crops with {K} keypoints, got {array.shape}"
            )


def _upscaling_matrix(factor: int) -> FloatArray:
    """Returns the affine matrix (2, 3) from crop pixels to pixels of an upscaled crop.

    A crop pixel becomes a square of factor x factor pixels, whose center is (factor - 1) / 2 from its first pixel.
    """
    shift = (factor - 1) / 2
    return np.array([[factor, 0, shift], [0, factor, shift]], dtype=np.float64)


def _zero_non_finite(values: NDArray[np.floating]) -> NDArray[np.float32]:
    values = np.asarray(values, dtype=np.float32)
    return np.where(np.isfinite(values), values, 0)


def _scale_heatmaps(heatmaps: NDArray[np.floating]) -> tuple[NDArray[np.float32], str]:
    """Returns heatmaps (K, h, w) scaled to [0, 1] and the text for their peak."""
    finite = _zero_non_finite(heatmaps)
    peak = float(finite.max())
    scaled = np.clip(finite, 0, None) / peak if peak > 0 else np.zeros_like(finite)
    return scaled, f"{peak:.2g}" if np.isfinite(heatmaps).all() else "not finite"


def _overlay_heatmaps(
    heatmaps: NDArray[np.float32], tile: NDArray[np.uint8], colors: NDArray[np.float32], heatmap_to_tile: FloatArray
) -> NDArray[np.uint8]:
    """Draws heatmaps (K, h, w) with values in [0, 1] over the dimmed tile."""
    height, width = tile.shape[:2]
    upscaled = np.stack(
        [
            cv2.warpAffine(heatmap, heatmap_to_tile, (width, height), borderMode=cv2.BORDER_REPLICATE)
            for heatmap in np.ascontiguousarray(heatmaps)
        ]
    )
    opacity = upscaled.max(axis=0)[..., None]
    blended = (1 - opacity) * _DIMMING * tile + opacity * colors[upscaled.argmax(axis=0)]
    return np.round(blended).astype(np.uint8)

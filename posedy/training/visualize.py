"""A picture of what the network is given, asked for and answers, to find flipped labels and wrong crops by eye."""

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.codecs import STRIDE
from posedy.drawing import LEFT, RIGHT, WHITE, caption, draw_poses, keypoint_colors
from posedy.geometry import FloatArray, apply_affine
from posedy.skeleton import Skeleton

_ROWS = ("truth", "target", "heatmap", "prediction")
# in pixels of the picture
_TILE_HEIGHT = 128
_GAP = 2
_DIMMED = 0.4


def batch_picture(
    crops: NDArray[np.uint8],
    keypoints: NDArray[np.floating],
    labeled: NDArray[np.bool_],
    targets: NDArray[np.floating],
    heatmaps: NDArray[np.floating],
    found: NDArray[np.floating],
    scores: NDArray[np.floating],
    skeleton: Skeleton,
    most: int = 8,
) -> NDArray[np.uint8]:
    """Draws the first samples of a batch, a column for each.

    From above: the crop with its labeled keypoints, the targets, the heatmaps with their highest value below, and the
    keypoints that were found. Heat has the color of its keypoint's side: the highest keypoint's in each pixel.
    Heatmaps are scaled by the sample's highest value, so look at the number: noise of 0.01 is as bright as a peak of 1.
    Values that are not finite are shown as 0 and named.

    Args:
        crops: (N, H, W, 3) uint8 RGB as the network sees them.
        keypoints: (N, K, 2) in crop pixels.
        labeled: (N, K).
        targets: (N, K, h, w) with values from 0 to 1.
        heatmaps: (N, K, h, w) of any values.
        found: (N, K, 2) decoded keypoints in crop pixels.
        scores: (N, K); as in `draw_poses`, low ones are faint and those of 0 or less not drawn.
        skeleton: the meaning of the K keypoints.
        most: samples to show.

    Returns:
        (height, width, 3) uint8 RGB. Crops lower than 128 pixels are enlarged by a whole factor.

    Raises:
        ValueError: if there is no sample to show or a shape does not fit.
    """
    _check_shapes(crops, keypoints, labeled, targets, heatmaps, found, scores, skeleton)
    count = min(most, len(crops))
    if count < 1:
        raise ValueError(f"a picture shows one sample or more, got {len(crops)} of which {most} may be shown")
    factor = -(-_TILE_HEIGHT // crops.shape[1])
    crop_to_tile = _enlarging(1, factor)
    colors = np.array(keypoint_colors(skeleton), dtype=np.float32)

    def with_pose(tile: NDArray[np.uint8], points: NDArray, point_scores: NDArray) -> NDArray[np.uint8]:
        return draw_poses(tile, apply_affine(crop_to_tile, points)[None], point_scores[None], skeleton)

    columns = []
    for n in range(count):
        tile = crops[n].repeat(factor, axis=0).repeat(factor, axis=1)
        heat, peak = _scaled(heatmaps[n])
        rows = [
            with_pose(tile, keypoints[n], labeled[n]),
            _with_heat(tile, np.clip(_finite(targets[n]), 0, 1), colors, factor),
            np.vstack([_with_heat(tile, heat, colors, factor), caption(tile.shape[1], (peak, WHITE))]),
            with_pose(tile, found[n], scores[n]),
        ]
        rows = [np.pad(row, ((0, _GAP), (0, _GAP), (0, 0))) for row in rows]
        columns.append(np.vstack(rows))
    names = [np.rot90(caption(len(row), (name, WHITE))) for name, row in zip(_ROWS, rows, strict=True)]
    body = np.hstack([np.vstack(names), *columns])
    legend = ("left", LEFT), ("right", RIGHT), ("number below a heatmap: its peak", WHITE)
    return np.vstack([caption(body.shape[1], *legend), body])


def _check_shapes(
    crops: NDArray,
    keypoints: NDArray,
    labeled: NDArray,
    targets: NDArray,
    heatmaps: NDArray,
    found: NDArray,
    scores: NDArray,
    skeleton: Skeleton,
) -> None:
    if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
        raise ValueError(f"crops are (N, H, W, 3) uint8, got {crops.shape} {crops.dtype}")
    N, H, W = crops.shape[:3]
    K = skeleton.num_keypoints
    maps = (N, K, H // STRIDE, W // STRIDE)
    for name, array, shape in (
        ("keypoints", keypoints, (N, K, 2)),
        ("labeled", labeled, (N, K)),
        ("targets", targets, maps),
        ("heatmaps", heatmaps, maps),
        ("found", found, (N, K, 2)),
        ("scores", scores, (N, K)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} of {N} crops of {W}x{H} pixels and {K} keypoints are {shape}, got {array.shape}")


def _enlarging(step: int, factor: int) -> FloatArray:
    """The map (2, 3) to pixels of an enlarged crop from points that are `step` crop pixels apart.

    A crop pixel becomes a square of factor x factor pixels, whose center is (factor - 1) / 2 from its first.
    """
    shift = (factor - 1) / 2
    return np.array([[step * factor, 0, shift], [0, step * factor, shift]], dtype=np.float64)


def _finite(values: NDArray[np.floating]) -> NDArray[np.float32]:
    values = np.asarray(values, dtype=np.float32)
    return np.where(np.isfinite(values), values, 0)


def _scaled(heatmaps: NDArray[np.floating]) -> tuple[NDArray[np.float32], str]:
    """Heat (K, h, w) from 0 to 1 and what to write about its highest value."""
    finite = _finite(heatmaps)
    peak = float(finite.max())
    heat = np.clip(finite, 0, None) / peak if peak > 0 else np.zeros_like(finite)
    return heat, f"{peak:.2g}" if np.isfinite(heatmaps).all() else "not finite"


def _with_heat(
    tile: NDArray[np.uint8], heat: NDArray[np.float32], colors: NDArray[np.float32], factor: int
) -> NDArray[np.uint8]:
    """Heat (K, h, w) from 0 to 1 over the dimmed tile."""
    height, width = tile.shape[:2]
    heatmap_to_tile = _enlarging(STRIDE, factor)
    large = np.stack(
        [
            cv2.warpAffine(layer, heatmap_to_tile, (width, height), borderMode=cv2.BORDER_REPLICATE)
            for layer in np.ascontiguousarray(heat)
        ]
    )
    opacity = large.max(axis=0)[..., None]
    blended = (1 - opacity) * _DIMMED * tile + opacity * colors[large.argmax(axis=0)]
    return np.round(blended).astype(np.uint8)

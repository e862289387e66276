"""Drawing of poses, boxes and text on images: limbs colored by side, with a dark outline for any background."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.skeleton import Skeleton

Color = tuple[int, int, int]

# Orange and blue are color-blind safe; left and right are the person's, as in the skeleton.
LEFT: Color = (255, 138, 0)
RIGHT: Color = (30, 160, 255)
MIDDLE: Color = (190, 255, 90)
BOX: Color = (245, 245, 245)
WHITE: Color = (255, 255, 255)
OUTLINE: Color = (20, 20, 20)

CAPTION_HEIGHT = 18
"""Height of a caption in pixels."""

DRAW_THRESHOLD = 0.2
"""Keypoints with scores up to this value are drawn faint; it equals the default threshold of `rescore`."""

FAINT_OPACITY = 0.35
"""Opacity of faint keypoints and limbs."""
PERSON_PIXELS_PER_LINE_PIXEL = 90
"""Extent of a person for each pixel of the width of its lines."""
MAX_LINE_WIDTH = 40
"""Largest width of a line in pixels."""

_BOX_OPACITY = 0.7
_LABEL_FACE = cv2.FONT_HERSHEY_SIMPLEX
# Fractional bits of OpenCV's fixed-point coordinates.
_SHIFT = 4
_MAX_COORDINATE = 1e6


def draw_poses(
    image: NDArray[np.uint8],
    keypoints: ArrayLike,
    scores: ArrayLike,
    skeleton: Skeleton,
    boxes: ArrayLike | None = None,
    threshold: float = DRAW_THRESHOLD,
) -> NDArray[np.uint8]:
    """Draws poses on a copy of an image.

    Left limbs are orange, right limbs blue and middle limbs green, by the skeleton's flip pairs. A limb is faint if one
    of its keypoints is. Keypoints with a score of 0 or less, or with coordinates that are not finite, are not drawn, so
    the visibility of annotations can be passed as scores.

    Args:
        image: (H, W, 3) uint8 RGB.
        keypoints: (P, K, 2) in image pixels.
        scores: (P, K).
        skeleton: the skeleton of K keypoints.
        boxes: (P, 4) xyxy in image pixels, drawn as thin rectangles.
        threshold: keypoints with scores up to this value are faint.

    Returns:
        A new image (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if a shape or the image's dtype is wrong.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an image (H, W, 3) uint8, got {image.shape} {image.dtype}")
    keypoints, scores = np.asarray(keypoints, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    K = skeleton.num_keypoints
    if keypoints.shape[1:] != (K, 2) or scores.shape != keypoints.shape[:2]:
        raise ValueError(
            f"expected keypoints (P, {K}, 2) and scores (P, {K}), got shapes {keypoints.shape} and {scores.shape}"
        )
    canvas = np.ascontiguousarray(image).copy()
    if boxes is not None:
        boxes = np.asarray(boxes, dtype=np.float64)
        if boxes.shape != (len(keypoints), 4):
            raise ValueError(f"expected boxes of shape ({len(keypoints)}, 4), got {boxes.shape}")
        layer = canvas.copy()
        for box in boxes:
            _draw_box(layer, box)
        canvas = _blend(layer, canvas, _BOX_OPACITY)
    persons = []
    for points, point_scores in zip(keypoints, scores, strict=True):
        visible = (point_scores > 0) & np.isfinite(points).all(axis=-1)
        confident = point_scores > threshold
        persons.append(_Person(points, visible & confident, visible & ~confident))
    if any(person.faint.any() for person in persons):
        layer = canvas.copy()
        for person in persons:
            _draw_person(layer, person, skeleton, faint=True)
        canvas = _blend(layer, canvas, FAINT_OPACITY)
    for person in persons:
        _draw_person(canvas, person, skeleton, faint=False)
    return canvas


def keypoint_colors(skeleton: Skeleton) -> tuple[Color, ...]:
    """Returns the K colors of a skeleton's keypoints, by side."""
    side = [MIDDLE] * skeleton.num_keypoints
    for left, right in skeleton.flip_pairs:
        side[left], side[right] = LEFT, RIGHT
    return tuple(side)


def limb_colors(skeleton: Skeleton) -> tuple[Color, ...]:
    """Returns the colors of a skeleton's limbs: that of a side if the keypoints are of it or in the middle."""
    side = keypoint_colors(skeleton)
    colors = []
    for ends in skeleton.limbs:
        sides = {side[end] for end in ends} - {MIDDLE}
        colors.append(sides.pop() if len(sides) == 1 else MIDDLE)
    return tuple(colors)


def draw_caption(width: int, *texts: tuple[str, Color]) -> NDArray[np.uint8]:
    """Draws colored texts side by side on a new black image (CAPTION_HEIGHT, width, 3); too long text is cut off."""
    bar = np.zeros((CAPTION_HEIGHT, width, 3), dtype=np.uint8)
    font, size, x = cv2.FONT_HERSHEY_SIMPLEX, 0.42, 4
    for text, color in texts:
        cv2.putText(bar, text, (x, 13), font, size, color, 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, font, size, 1)[0][0] + 8
    return bar


def draw_label(canvas: NDArray[np.uint8], corner: tuple[float, float], text: str) -> None:
    """Draws white text on a dark box into an image (H, W, 3) in place, with its top left corner at (x, y) pixels.

    The box is moved into the image.
    """
    size, thickness = _label_font(canvas)
    (width, height), baseline = cv2.getTextSize(text, _LABEL_FACE, size, thickness)
    x = int(np.clip(corner[0], 0, max(canvas.shape[1] - width - 6, 0)))
    y = int(np.clip(corner[1], 0, max(canvas.shape[0] - height - baseline - 4, 0)))
    cv2.rectangle(canvas, (x, y), (x + width + 6, y + height + baseline + 4), OUTLINE, cv2.FILLED)
    cv2.putText(canvas, text, (x + 3, y + height + 3), _LABEL_FACE, size, WHITE, thickness, cv2.LINE_AA)


def draw_person_label(
    canvas: NDArray[np.uint8],
    text: str,
    keypoints: ArrayLike,
    scores: ArrayLike,
    box: ArrayLike,
    threshold: float = DRAW_THRESHOLD,
) -> None:
    """Draws a label into an image (H, W, 3) in place, centered just above the highest confident keypoint of a person.

    Boxes have a margin, and those of a group overlap: a label at the corner of a box may be nearer to another person.

    Args:
        canvas: (H, W, 3) uint8.
        text: the text.
        keypoints: (K, 2) in image pixels.
        scores: (K,).
        box: (4,) xyxy in image pixels; without a confident keypoint the label is centered at its top.
        threshold: keypoints with scores up to this value are not confident.
    """
    keypoints, box = np.asarray(keypoints, dtype=np.float64), np.asarray(box, dtype=np.float64)
    is_confident = (np.asarray(scores) > threshold) & np.isfinite(keypoints).all(axis=-1)
    size, thickness = _label_font(canvas)
    (width, height), baseline = cv2.getTextSize(text, _LABEL_FACE, size, thickness)
    if is_confident.any():
        confident = keypoints[is_confident]
        x, y = confident[confident[:, 1].argmin()]
        # above the disc of the keypoint and its outline
        y -= height + baseline + 6 + 2 * _Person(keypoints, is_confident, ~is_confident).line_width
    else:
        x, y = (box[0] + box[2]) / 2, box[1]
    draw_label(canvas, (x - (width + 6) / 2, y), text)


@dataclass(frozen=True)
class _Person:
    """Keypoints (K, 2) of a person with masks (K,) of the confident and the faint ones; all others are not drawn."""

    points: NDArray[np.float64]
    confident: NDArray[np.bool_]
    faint: NDArray[np.bool_]

    @property
    def line_width(self) -> int:
        """The line width in pixels, by the extent of the confident keypoints, or else of the faint ones."""
        points = self.points[self.confident if self.confident.any() else self.faint]
        extent = np.ptp(points, axis=0).max() if len(points) else 0.0
        return int(np.clip(round(extent / PERSON_PIXELS_PER_LINE_PIXEL), 1, MAX_LINE_WIDTH))


def _draw_person(canvas: NDArray[np.uint8], person: _Person, skeleton: Skeleton, *, faint: bool) -> None:
    """Draws either the faint or the confident keypoints and limbs of a person, in place.

    All outlines are drawn first, so that none crosses a colored line.
    """
    width = person.line_width
    points = _fixed_point(person.points)
    visible = person.confident | person.faint
    limbs = [
        (points[a], points[b], color)
        for (a, b), color in zip(skeleton.limbs, limb_colors(skeleton), strict=True)
        if visible[a] and visible[b] and (person.faint[a] or person.faint[b]) == faint
    ]
    selected = person.faint if faint else person.confident
    colors = keypoint_colors(skeleton)
    discs = [(points[index], colors[index]) for index in np.flatnonzero(selected)]
    radius = round((width + 1) * 2 ** (_SHIFT - 1) * 1.5)
    outline = 1 if width < 6 else width // 4
    for start, end, _ in limbs:
        cv2.line(canvas, start, end, OUTLINE, width + 2 * outline, cv2.LINE_AA, _SHIFT)
    for center, _ in discs:
        cv2.circle(canvas, center, radius + (outline << _SHIFT), OUTLINE, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    for start, end, color in limbs:
        cv2.line(canvas, start, end, color, width, cv2.LINE_AA, _SHIFT)
    for center, color in discs:
        cv2.circle(canvas, center, radius, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _label_font(canvas: NDArray[np.uint8]) -> tuple[float, int]:
    """Returns the size and the thickness of the text of labels in an image."""
    size = max(0.4, min(canvas.shape[:2]) / 1000)
    return size, max(1, round(2 * size))


def _blend(layer: NDArray[np.uint8], canvas: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
    """Blends a layer over an image; pixels that are equal in both do not change."""
    return cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0).astype(np.uint8, copy=False)


def _draw_box(canvas: NDArray[np.uint8], box: NDArray[np.float64]) -> None:
    """Draws a thin rectangle in place."""
    if not np.isfinite(box).all():
        return
    width = max(1, round(max(canvas.shape[:2]) / 800))
    # On whole pixels and without anti-aliasing, so that a line of one pixel stays sharp.
    corners = np.round(np.clip(box, -_MAX_COORDINATE, _MAX_COORDINATE)).astype(int).tolist()
    top_left, bottom_right = corners[:2], corners[2:]
    cv2.rectangle(canvas, top_left, bottom_right, OUTLINE, width + 2)
    cv2.rectangle(canvas, top_left, bottom_right, BOX, width)


def _fixed_point(points: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Converts points (N, 2) to OpenCV's fixed-point integers; points far outside any image are clipped."""
    bounded = np.clip(np.nan_to_num(points, posinf=0, neginf=0), -_MAX_COORDINATE, _MAX_COORDINATE)
    return [(int(x), int(y)) for x, y in np.round(bounded * 2**_SHIFT)]

"""Poses drawn on pictures: limbs colored by side, bright on a dark outline, so that they read on any background.

And the words beside them, where pictures are put together to a sheet.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posedy.skeleton import Skeleton

Color = tuple[int, int, int]

# Orange and blue stay apart for color-blind eyes; names are those of the person, as in the skeleton.
LEFT: Color = (255, 138, 0)
RIGHT: Color = (30, 160, 255)
MIDDLE: Color = (190, 255, 90)
BOX: Color = (245, 245, 245)
WHITE: Color = (255, 255, 255)
_OUTLINE: Color = (20, 20, 20)

CAPTION_HEIGHT = 18
"""Of a caption, in pixels."""

DRAW_THRESHOLD = 0.2
"""Keypoint scores up to this one are drawn faint; it is where a pose's score stops counting a keypoint."""

# opacity of what is not drawn in full
_FAINT = 0.35
_FRAME = 0.7
_PERSON_PIXELS_PER_LINE_PIXEL = 90
_WIDEST = 40
# OpenCV takes fixed-point coordinates with this many fractional bits.
_SHIFT = 4
_FARTHEST = 1e6


def draw_poses(
    image: NDArray[np.uint8],
    keypoints: ArrayLike,
    scores: ArrayLike,
    skeleton: Skeleton,
    boxes: ArrayLike | None = None,
    threshold: float = DRAW_THRESHOLD,
) -> NDArray[np.uint8]:
    """Draws poses on a copy of a picture.

    Left limbs are orange, right ones blue, those between them green, by the skeleton's flip pairs. A limb is faint if
    one of its ends is. Keypoints with a score of 0 or less, or whose coordinates are not finite, are not drawn; so
    visibilities of annotations can be given as scores.

    Args:
        image: (H, W, 3) uint8 RGB.
        keypoints: (P, K, 2) in image pixels.
        scores: (P, K).
        skeleton: the meaning of the K keypoints.
        boxes: (P, 4) xyxy in image pixels, drawn as thin frames.
        threshold: scores up to this one are faint.

    Returns:
        A new (H, W, 3) uint8 RGB picture.

    Raises:
        ValueError: if a shape or the picture's type does not fit.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"a picture to draw on is (H, W, 3) uint8, got {image.shape} {image.dtype}")
    keypoints, scores = np.asarray(keypoints, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    K = skeleton.num_keypoints
    if keypoints.shape[1:] != (K, 2) or scores.shape != keypoints.shape[:2]:
        raise ValueError(
            f"this skeleton has keypoints (P, {K}, 2) and scores (P, {K}), got {keypoints.shape} and {scores.shape}"
        )
    picture = np.ascontiguousarray(image).copy()
    if boxes is not None:
        boxes = np.asarray(boxes, dtype=np.float64)
        if boxes.shape != (len(keypoints), 4):
            raise ValueError(f"{len(keypoints)} poses have boxes of shape ({len(keypoints)}, 4), got {boxes.shape}")
        layer = picture.copy()
        for box in boxes:
            _draw_box(layer, box)
        picture = _blend(layer, picture, _FRAME)
    persons = []
    for points, point_scores in zip(keypoints, scores, strict=True):
        shown = (point_scores > 0) & np.isfinite(points).all(axis=-1)
        persons.append(_Person(points, shown & (point_scores > threshold), shown & ~(point_scores > threshold)))
    colors = _Colors.of(skeleton)
    if any(person.uncertain.any() for person in persons):
        layer = picture.copy()
        for person in persons:
            _draw_person(layer, person, skeleton, colors, faint=True)
        picture = _blend(layer, picture, _FAINT)
    for person in persons:
        _draw_person(picture, person, skeleton, colors, faint=False)
    return picture


def keypoint_colors(skeleton: Skeleton) -> tuple[Color, ...]:
    """The K colors of a skeleton's keypoints, by their sides."""
    side = [MIDDLE] * skeleton.num_keypoints
    for left, right in skeleton.flip_pairs:
        side[left], side[right] = LEFT, RIGHT
    return tuple(side)


def caption(width: int, *words: tuple[str, Color]) -> NDArray[np.uint8]:
    """A black bar (CAPTION_HEIGHT, width, 3) with colored words, cut off where they are too long."""
    bar = np.zeros((CAPTION_HEIGHT, width, 3), dtype=np.uint8)
    font, size, x = cv2.FONT_HERSHEY_SIMPLEX, 0.42, 4
    for word, color in words:
        cv2.putText(bar, word, (x, 13), font, size, color, 1, cv2.LINE_AA)
        x += cv2.getTextSize(word, font, size, 1)[0][0] + 8
    return bar


def label(picture: NDArray[np.uint8], corner: tuple[float, float], words: str) -> None:
    """Writes words onto a picture (H, W, 3), in place, white on dark below and right of a corner (x, y) in pixels."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, max(0.4, min(picture.shape[:2]) / 1000)
    thickness = max(1, round(2 * size))
    (width, height), baseline = cv2.getTextSize(words, font, size, thickness)
    x = int(np.clip(corner[0], 0, max(picture.shape[1] - width - 6, 0)))
    y = int(np.clip(corner[1], 0, max(picture.shape[0] - height - baseline - 4, 0)))
    cv2.rectangle(picture, (x, y), (x + width + 6, y + height + baseline + 4), _OUTLINE, cv2.FILLED)
    cv2.putText(picture, words, (x + 3, y + height + 3), font, size, WHITE, thickness, cv2.LINE_AA)


@dataclass(frozen=True)
class _Person:
    """Points (K, 2) of a person, and which of them (K,) are sure and which uncertain; the others are not shown."""

    points: NDArray[np.float64]
    sure: NDArray[np.bool_]
    uncertain: NDArray[np.bool_]

    @property
    def line_width(self) -> int:
        """In pixels, by the extent of the keypoints that are sure, or of the uncertain ones if none is."""
        points = self.points[self.sure if self.sure.any() else self.uncertain]
        extent = np.ptp(points, axis=0).max() if len(points) else 0.0
        return int(np.clip(round(extent / _PERSON_PIXELS_PER_LINE_PIXEL), 1, _WIDEST))


@dataclass(frozen=True)
class _Colors:
    """The colors of a skeleton's K keypoints and of its limbs."""

    keypoints: tuple[Color, ...]
    limbs: tuple[Color, ...]

    @classmethod
    def of(cls, skeleton: Skeleton) -> "_Colors":
        side = keypoint_colors(skeleton)
        limbs = []
        for ends in skeleton.limbs:
            sides = {side[end] for end in ends} - {MIDDLE}
            limbs.append(sides.pop() if len(sides) == 1 else MIDDLE)
        return cls(side, tuple(limbs))


def _draw_person(
    picture: NDArray[np.uint8], person: _Person, skeleton: Skeleton, colors: _Colors, *, faint: bool
) -> None:
    """Draws either what is faint of a person or the rest, in place.

    All outlines come first, so that none cuts through a colored line.
    """
    width = person.line_width
    points = _fixed_point(person.points)
    shown = person.sure | person.uncertain
    limbs = [
        (points[a], points[b], color)
        for (a, b), color in zip(skeleton.limbs, colors.limbs, strict=True)
        if shown[a] and shown[b] and (person.uncertain[a] or person.uncertain[b]) == faint
    ]
    of_layer = person.uncertain if faint else person.sure
    discs = [(points[index], colors.keypoints[index]) for index in np.flatnonzero(of_layer)]
    radius = round((width + 1) * 2 ** (_SHIFT - 1) * 1.5)
    outline = 1 if width < 6 else width // 4
    for start, end, _ in limbs:
        cv2.line(picture, start, end, _OUTLINE, width + 2 * outline, cv2.LINE_AA, _SHIFT)
    for center, _ in discs:
        cv2.circle(picture, center, radius + (outline << _SHIFT), _OUTLINE, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    for start, end, color in limbs:
        cv2.line(picture, start, end, color, width, cv2.LINE_AA, _SHIFT)
    for center, color in discs:
        cv2.circle(picture, center, radius, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _blend(layer: NDArray[np.uint8], picture: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
    """The layer over the picture; pixels that are equal in both stay as they are."""
    return cv2.addWeighted(layer, opacity, picture, 1 - opacity, 0).astype(np.uint8, copy=False)


def _draw_box(picture: NDArray[np.uint8], box: NDArray[np.float64]) -> None:
    """Draws a thin frame in place."""
    if not np.isfinite(box).all():
        return
    width = max(1, round(max(picture.shape[:2]) / 800))
    # On whole pixels and without anti-aliasing, so that a frame of one pixel stays sharp.
    corners = np.round(np.clip(box, -_FARTHEST, _FARTHEST)).astype(int).tolist()
    top_left, bottom_right = corners[:2], corners[2:]
    cv2.rectangle(picture, top_left, bottom_right, _OUTLINE, width + 2)
    cv2.rectangle(picture, top_left, bottom_right, BOX, width)


def _fixed_point(points: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Points (..., 2) as OpenCV's fixed-point integers; points far outside of any picture are moved nearer."""
    bounded = np.clip(np.nan_to_num(points, posinf=0, neginf=0), -_FARTHEST, _FARTHEST)
    return [(int(x), int(y)) for x, y in np.round(bounded * 2**_SHIFT)]

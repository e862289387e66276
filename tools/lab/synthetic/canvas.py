"""A canvas at twice the image size with a label map of the visible part at every pixel."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.lab.synthetic.body import FloatArray

Color = tuple[float, float, float]  # blue, green, red, 0 to 255

ZOOM = 2  # canvas pixels per image pixel in x and y; downscaling antialiases the edges
_FRACTION_BITS = 4
_NO_PERSON = 0
_CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 16, endpoint=False)) for f in (np.cos, np.sin)], axis=-1)


def shade(color: Color, factor: float) -> Color:
    """Returns the color made darker (factor below 1) or lighter."""
    blue, green, red = (min(255.0, channel * factor) for channel in color)
    return blue, green, red


def capsule(start: FloatArray, end: FloatArray, radii: tuple[float, float]) -> FloatArray:
    """Returns points (32, 2) on the boundaries of two discs, whose convex hull is a limb with round ends."""
    return np.concatenate([start + radii[0] * _CIRCLE, end + radii[1] * _CIRCLE])


class Canvas:
    """Pixels and labels, which all drawing operations fill alike.

    All coordinates are pixels of the final image; integers are pixel centers.

    Attributes:
        pixels: (2H, 2W, 3) uint8 BGR.
        labels: (2H, 2W) uint8, the visible part of a person, or 0 for no person.
    """

    def __init__(self, background: NDArray[np.uint8]) -> None:
        height, width = background.shape[:2]
        self.size = (width, height)
        self.pixels = cv2.resize(background, (width * ZOOM, height * ZOOM), interpolation=cv2.INTER_LINEAR)
        self.labels = np.full(self.pixels.shape[:2], _NO_PERSON, np.uint8)

    @staticmethod
    def to_canvas(points: FloatArray) -> FloatArray:
        """Converts image coordinates (..., 2) to canvas coordinates."""
        return np.asarray(points, dtype=np.float64) * ZOOM + (ZOOM - 1) / 2

    def polygon(self, points: FloatArray, color: Color, label: int = _NO_PERSON, outline: float = 0.0) -> None:
        """Fills a polygon (N, 2) with a dark outline, `outline` image pixels wide on each side of the edge."""
        fixed = np.rint(self.to_canvas(points) * 2**_FRACTION_BITS).astype(np.int32)[None]
        if outline > 0:
            thickness = max(1, round(2 * outline * ZOOM))
            edge = shade(color, 0.45)
            cv2.polylines(self.pixels, fixed, True, edge, thickness, cv2.LINE_8, _FRACTION_BITS)
            cv2.polylines(self.labels, fixed, True, label, thickness, cv2.LINE_8, _FRACTION_BITS)
        cv2.fillPoly(self.pixels, fixed, color, cv2.LINE_8, _FRACTION_BITS)
        cv2.fillPoly(self.labels, fixed, label, cv2.LINE_8, _FRACTION_BITS)

    def hull(self, points: FloatArray, color: Color, label: int = _NO_PERSON, outline: float = 0.0) -> None:
        """Fills the convex hull of points (N, 2)."""
        corners = np.asarray(cv2.convexHull(np.asarray(points, np.float32)), np.float64)
        self.polygon(corners[:, 0], color, label, outline)

    def disc(
        self, center: FloatArray, radius: float, color: Color, label: int = _NO_PERSON, outline: float = 0.0
    ) -> None:
        """Fills a disc."""
        self.polygon(center + radius * _CIRCLE, color, label, outline)

    def limb(
        self,
        start: FloatArray,
        end: FloatArray,
        radii: tuple[float, float],
        color: Color,
        label: int = _NO_PERSON,
        outline: float = 0.0,
    ) -> None:
        """Fills a limb with round ends between two points, with a lighter stripe along it."""
        self.hull(capsule(start, end, radii), color, label, outline)
        light = np.array([-0.3, -0.2])
        stripe = (start + radii[0] * (light + 0.45 * _CIRCLE), end + radii[1] * (light + 0.45 * _CIRCLE))
        self.hull(np.concatenate(stripe), shade(color, 1.12), label)

    def within(self, points: FloatArray, label: int) -> NDArray[np.bool_]:
        """Returns the mask (2H, 2W) of a label within the convex hull of points (N, 2), for markings on a part."""
        mask = np.zeros_like(self.labels)
        corners = cv2.convexHull(np.rint(self.to_canvas(points) * 2**_FRACTION_BITS).astype(np.int32))
        cv2.fillConvexPoly(mask, corners, 1, cv2.LINE_8, _FRACTION_BITS)
        return np.asarray((mask > 0) & (self.labels == label))

    def image(self) -> NDArray[np.uint8]:
        """Returns the final image (H, W, 3) in BGR."""
        return np.asarray(cv2.resize(self.pixels, self.size, interpolation=cv2.INTER_AREA), np.uint8)

    def label_at(self, point: FloatArray) -> int:
        """Returns the label at a point of the image; 0 outside the image."""
        x, y = np.rint(self.to_canvas(point)).astype(int)
        inside = 0 <= x < self.labels.shape[1] and 0 <= y < self.labels.shape[0]
        return int(self.labels[y, x]) if inside else _NO_PERSON

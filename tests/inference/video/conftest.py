"""Synthetic videos of persons with three colored dots, which `dot_net` detects, and a detector for them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.detectors import Detector

RATE = 30.0
SIZE = (320, 200)
Corner = tuple[float, float]


def keypoints_at(left: float, top: float) -> np.ndarray:
    """The three keypoints (3, 2) of a person in a box of 64x48 with this corner."""
    return np.array([[14.0, 16.0], [34.0, 30.0], [20.0, 50.0]]) + np.array([left, top])


def make_frame(corners: list[Corner]) -> np.ndarray:
    image = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
    for corner in corners:
        for keypoint, color in zip(keypoints_at(*corner), ((0, 0, 255), (0, 255, 0), (255, 0, 0)), strict=True):
            x, y = (round(16 * float(value)) for value in keypoint)
            cv2.circle(image, (x, y), 4 * 16, color, cv2.FILLED, cv2.LINE_AA, 4)
    return image


class DotDetector:
    """Detects the persons of a synthetic frame by their red dots, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        red = (image[..., 2] > 150) & (image[..., 0] < 90) & (image[..., 1] < 90)
        _, _, _, centers = cv2.connectedComponentsWithStats(red.astype(np.uint8))
        corners = centers[1:] - np.array([14, 16])
        boxes = np.concatenate([corners, corners + np.array([48, 64])], axis=1)
        return boxes.astype(np.float32), np.ones(len(corners))


@pytest.fixture
def detector() -> DotDetector:
    detector = DotDetector()
    assert isinstance(detector, Detector)
    return detector


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[[list[list[Corner]]], Path]:
    """`make_video(corners of each frame)` writes an AVI file with almost no loss of color."""

    def make(corners: list[list[Corner]], name: str = "made.avi") -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, SIZE)
        for each in corners:
            writer.write(make_frame(each))
        writer.release()
        return path

    return make


@pytest.fixture
def draw_frame() -> Callable[[list[Corner]], np.ndarray]:
    """`draw_frame(corners)` draws a frame with a person in a box at each corner."""
    return make_frame


@pytest.fixture
def dots_at() -> Callable[[float, float], np.ndarray]:
    """`dots_at(left, top)` returns the keypoints of the person in the box with this corner."""
    return keypoints_at

"""Made videos of persons of three colored dots, which `dot_net` sees, and a detector that knows where they are."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.detectors import Detector

RATE = 30.0
SIZE = (320, 200)
Place = tuple[float, float]


def dots(left: float, top: float) -> np.ndarray:
    """The three keypoints of a person in a box of 48x64 at a corner."""
    return np.array([[14.0, 16.0], [34.0, 30.0], [20.0, 50.0]]) + np.array([left, top])


def draw(places: list[Place]) -> np.ndarray:
    image = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
    for place in places:
        for point, color in zip(dots(*place), ((0, 0, 255), (0, 255, 0), (255, 0, 0)), strict=True):
            x, y = (round(16 * float(value)) for value in point)
            cv2.circle(image, (x, y), 4 * 16, color, cv2.FILLED, cv2.LINE_AA, 4)
    return image


class Known:
    """Finds the persons of a drawn frame by their red dots, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.asked += 1
        red = (image[..., 2] > 150) & (image[..., 0] < 90) & (image[..., 1] < 90)
        _, _, _, centers = cv2.connectedComponentsWithStats(red.astype(np.uint8))
        corners = centers[1:] - np.array([14, 16])
        boxes = np.concatenate([corners, corners + np.array([48, 64])], axis=1)
        return boxes.astype(np.float32), np.ones(len(corners))


@pytest.fixture
def detector() -> Known:
    known = Known()
    assert isinstance(known, Detector)
    return known


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[[list[list[Place]]], Path]:
    """`make_video(places of each frame)`: an AVI file of pictures without loss of color worth speaking of."""

    def make(places: list[list[Place]], name: str = "made.avi") -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, SIZE)
        for each in places:
            writer.write(draw(each))
        writer.release()
        return path

    return make


@pytest.fixture
def draw_frame() -> Callable[[list[Place]], np.ndarray]:
    """`draw_frame(places)`: a frame with a person at each place."""
    return draw


@pytest.fixture
def dots_at() -> Callable[[float, float], np.ndarray]:
    """`dots_at(left, top)`: a person's keypoints."""
    return dots

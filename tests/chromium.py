"""Headless Chromium for tests of web pages, and what its camera sees."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BROWSER_MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed"),
]
CAMERA_SIZE = (640, 480)


def camera_frame_of(path: Path) -> NDArray[np.uint8]:
    """An image as a BGR frame of the camera, on gray."""
    image = cv2.imread(str(path))
    scale = min(CAMERA_SIZE[0] / image.shape[1], CAMERA_SIZE[1] / image.shape[0])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((*CAMERA_SIZE[::-1], 3), 114, np.uint8)
    frame[: image.shape[0], : image.shape[1]] = image
    return frame


def camera_flags(frame: NDArray[np.uint8], video: Path, rate: int) -> list[str]:
    """Writes a video of a frame; returns the flags with which it is Chromium's camera, at `rate` frames/s."""
    planes = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes()
    header = f"YUV4MPEG2 W{CAMERA_SIZE[0]} H{CAMERA_SIZE[1]} F{rate}:1 Ip A1:1 C420mpeg2\n".encode()
    video.write_bytes(header + 10 * (b"FRAME\n" + planes))
    return ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={video}"]

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def write_images() -> Callable[[Path, int], list[Path]]:
    """Writes small images of random pixels, in two subfolders."""

    def write(folder: Path, count: int) -> list[Path]:
        rng = np.random.default_rng(count)
        paths = []
        for number in range(count):
            path = folder / f"sub{number % 2}" / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = rng.integers(20, 60, 2)
            pixels = rng.integers(1, 256, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(path), pixels)
            paths.append(path)
        return sorted(paths)

    return write

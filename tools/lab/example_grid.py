"""Draws the persons that posedy finds in the six example images of the package, as one image in two rows.

python -m tools.lab.example_grid docs/images/people.jpg

The boxes are those of the detector in the package, from score 0.4, and the keypoints those of the default network;
nothing is placed by hand.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.examples import example_images
from posedy.files import write_bytes_atomically
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.detectors import create_detector
from posedy.inference.estimator import PoseEstimator
from posedy.poses import Poses
from tools.lab.entry import run_and_exit

WIDTH = 1200
"""The width of the grid in pixels."""
MAX_BYTES = 300_000
"""The largest size of the file."""
_BOX_THRESHOLD = 0.4
_GAP = 6
_QUALITIES = range(95, 40, -5)


def split_rows(aspects: Sequence[float]) -> tuple[list[int], list[int]]:
    """Splits images into two rows of as many images each, which are almost equally high at the same width.

    Args:
        aspects: width / height of each image; an even number.

    Returns:
        The indices of the images of each row; the first image is in the first row.
    """
    rest = range(1, len(aspects))
    rows = [(0, *others) for others in itertools.combinations(rest, len(aspects) // 2 - 1)]
    first = min(rows, key=lambda row: abs(2 * sum(aspects[index] for index in row) - sum(aspects)))
    return list(first), [index for index in rest if index not in first]


def draw_row(images: Sequence[NDArray[np.uint8]], poses: Sequence[Poses], width: int) -> NDArray[np.uint8]:
    """Draws poses on images and joins them to a row (h, width, 3), in which all images have the same height.

    Images are resized before the poses are drawn, so that lines are sharp and equally wide.

    Args:
        images: (H, W, 3) uint8 RGB each.
        poses: the poses of each image.
        width: the width of the row in pixels.
    """
    space = width - _GAP * (len(images) - 1)
    height = round(space / sum(image.shape[1] / image.shape[0] for image in images))
    edges = np.cumsum([0, *(height * image.shape[1] / image.shape[0] for image in images)])
    edges = np.round(edges * space / edges[-1]).astype(int)
    row = np.full((height, width, 3), 255, np.uint8)
    for number, (image, found) in enumerate(zip(images, poses, strict=True)):
        size = (int(edges[number + 1] - edges[number]), height)
        resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        left = int(edges[number]) + _GAP * number
        row[:, left : left + size[0]] = _scale(found, image.shape[1::-1], size).draw(resized)
    return row


def _scale(poses: Poses, before: tuple[int, ...], after: tuple[int, int]) -> Poses:
    """Returns the poses in the pixels of the resized image; integer coordinates are centers of pixels."""
    scale = np.array(after) / np.array(before)
    return replace(poses, keypoints=((poses.keypoints + 0.5) * scale - 0.5).astype(np.float32))


def draw_grid(paths: Sequence[Path], estimator: PoseEstimator, width: int = WIDTH) -> NDArray[np.uint8]:
    """Finds the persons of an even number of images and draws them in two rows (h, width, 3), uint8 RGB.

    Raises:
        OSError, ValueError: if an image cannot be read.
    """
    images = [read_image(path) for path in paths]
    poses = estimator(images, channels="rgb")
    rows = split_rows([image.shape[1] / image.shape[0] for image in images])
    first, second = (draw_row([images[index] for index in row], [poses[index] for index in row], width) for row in rows)
    return np.concatenate([first, np.full((_GAP, width, 3), 255, np.uint8), second])


def encode_jpeg(image: NDArray[np.uint8], max_bytes: int) -> bytes:
    """Encodes an image (H, W, 3) uint8 RGB as JPEG, in the best quality whose file has at most `max_bytes`.

    Raises:
        ValueError: if the file is larger in every quality.
    """
    bgr = rgb_to_bgr(image)
    for quality in _QUALITIES:
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1]
        if len(jpeg) <= max_bytes:
            return jpeg.tobytes()
    raise ValueError(f"expected at most {max_bytes} bytes, got {len(jpeg)} in the lowest quality: use a smaller width")


def main(argv: list[str] | None = None) -> None:
    """Writes the grid."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.example_grid",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="the JPEG file to write")
    out = parser.parse_args(argv).out
    estimator = PoseEstimator(device="cpu", detector=create_detector("posedy", "cpu", threshold=_BOX_THRESHOLD))
    grid = draw_grid([image.path for image in example_images()], estimator)
    jpeg = encode_jpeg(grid, MAX_BYTES)
    write_bytes_atomically(out, jpeg)
    print(f"wrote {out}: {grid.shape[1]} x {grid.shape[0]} pixels, {len(jpeg) / 1000:.0f} kB")


if __name__ == "__main__":
    run_and_exit(main, "example_grid")

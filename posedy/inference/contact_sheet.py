"""Contact sheet of a video: some of its frames, with their times, on one image."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.drawing import draw_label
from posedy.files import named_write_errors, write_bytes_atomically
from posedy.images import encode_jpeg
from posedy.inference.video_io import FrameSource

_FRAMES, _COLUMNS = 12, 4
_WIDTH, _MAX_HEIGHT = 320, 640  # pixels of a frame; JPEG files have sides of up to 65500 pixels


def write_contact_sheet(video: Path, path: Path) -> None:
    """Writes up to 12 evenly spaced frames of a video as a JPEG file, in rows of four of at most 320 x 640 pixels.

    Args:
        video: a video file, such as NAME.mp4 of `posedy predict`.
        path: the file.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError: if the video has no frames.
    """
    tiles = _sample_frames(video)
    if not tiles:
        raise ValueError(f"{video} has no readable frame")
    tiles = [tiles[index] for index in np.linspace(0, len(tiles) - 1, min(_FRAMES, len(tiles))).round().astype(int)]
    columns = min(_COLUMNS, len(tiles))
    empty = np.zeros_like(tiles[0])
    tiles += [empty] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[begin : begin + columns]) for begin in range(0, len(tiles), columns)]
    with named_write_errors(path):
        write_bytes_atomically(path, encode_jpeg(np.vstack(rows)))


def _sample_frames(video: Path) -> list[NDArray[np.uint8]]:
    """Returns 12 to 23 evenly spaced frames, small and with their times, or all frames of a shorter video."""
    tiles: list[NDArray[np.uint8]] = []
    step = 1
    source = FrameSource(video)
    try:
        for index, frame in enumerate(source):
            if index % step:
                continue
            height, width = frame.image.shape[:2]
            scale = min(_WIDTH / width, _MAX_HEIGHT / height)
            size = (max(1, round(scale * width)), max(1, round(scale * height)))
            tile = np.ascontiguousarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            draw_label(tile, (0, 0), f"{frame.time:.2f} s")
            tiles.append(tile)
            if len(tiles) == 2 * _FRAMES:  # the number of frames is not known before the end
                tiles, step = tiles[::2], 2 * step
    finally:
        source.close()
    return tiles

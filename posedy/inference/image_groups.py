"""Groups of images that are read and detected together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from posedy.inference.detectors import CleanedDetector, Detections

T = TypeVar("T")
Image = NDArray[np.uint8]

_MAX_IMAGES = 8
_MAX_PIXELS = 32_000_000  # a group of small images needs at most 100 MB


def read_groups(items: Iterable[T], read: Callable[[T], Image]) -> Iterator[list[tuple[T, Image | Exception]]]:
    """Reads images in groups of up to 8 with up to 32 million pixels, or of one larger image.

    Args:
        items: the images to read, such as paths.
        read: reads the image (H, W, 3) of an item.

    Yields:
        For each item of a group, the item and its image, or the OSError, TypeError or ValueError of reading it.
    """
    group: list[tuple[T, Image | Exception]] = []
    num_pixels = 0
    for item in items:
        image: Image | Exception
        try:
            image = read(item)
            size = image.shape[0] * image.shape[1]
        except (OSError, TypeError, ValueError) as error:
            image, size = error, 0
        if group and num_pixels + size > _MAX_PIXELS:
            yield group
            group, num_pixels = [], 0
        group.append((item, image))
        num_pixels += size
        if len(group) == _MAX_IMAGES:
            yield group
            group, num_pixels = [], 0
    if group:
        yield group


def detect_group(detector: CleanedDetector, images_bgr: Sequence[Image]) -> list[Detections | Exception]:
    """Detects persons in the images of a group.

    If `detect_many` fails, `detect` of each image finds those that it fails for.

    Returns:
        For each image its boxes (P, 4) and scores (P,), or the OSError, TypeError or ValueError of the detector.

    Raises:
        TypeError: if `detect_many` does not return boxes and scores for each image.
        OSError, ValueError: if only `detect_many` fails.
    """
    failure: Exception | None = None
    if detector.has_detect_many and len(images_bgr) > 1:
        try:
            return list(detector.detect_many(images_bgr))
        except (OSError, ValueError) as error:
            failure = error
    detected: list[Detections | Exception] = []
    for image in images_bgr:
        try:
            detected.append(detector.detect(image))
        except (OSError, TypeError, ValueError) as error:
            detected.append(error)
    if failure is not None and not any(isinstance(found, Exception) for found in detected):
        raise failure  # of the group alone
    return detected

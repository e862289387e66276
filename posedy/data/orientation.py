"""Sizes and EXIF orientations of image files, and conversion between stored and upright pixel coordinates.

COCO's annotations refer to the pixels as stored. Programs that apply the EXIF orientation have the upright image:
OpenCV by default, and thus YOLO trainers. The recorded size tells which of the two an annotation refers to, unless both
images have the same size (orientations 2 to 4, and all of a square image).
"""

import contextlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from posedy.geometry import FloatArray
from posedy.images import open_header

# Orientations that flip the stored image in x or y; those from 5 on exchange x and y afterwards.
_FLIPPED_X = (2, 3, 7, 8)
_FLIPPED_Y = (3, 4, 6, 7)
_FIRST_EXCHANGED = 5


@dataclass(frozen=True)
class ImageHeader:
    """The size and the orientation of an image file.

    Attributes:
        width: the width in pixels, as stored.
        height: the height in pixels, as stored.
        orientation: EXIF's number from 1 (stored upright) to 8.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """The width and height of the upright image."""
        size = (self.width, self.height)
        return size[::-1] if self.orientation >= _FIRST_EXCHANGED else size

    @property
    def is_ambiguous(self) -> bool:
        """Whether the stored and the upright image differ, although they have the same width and height."""
        return self.orientation != 1 and self.upright_size == (self.width, self.height)

    def to_upright(self, points: FloatArray, pixel_centers: bool) -> FloatArray:
        """Converts coordinates of the stored image to those of the upright image.

        Args:
            points: (..., 2) x, y.
            pixel_centers: whether integers are pixel centers, as for keypoints: a flip is then x' = W - 1 - x. Corners
                of boxes lie on pixel edges: x' = W - x.
        """
        flipped = self._flip(points, pixel_centers)
        return flipped[..., ::-1] if self.orientation >= _FIRST_EXCHANGED else flipped

    def to_stored(self, points: FloatArray, pixel_centers: bool) -> FloatArray:
        """Converts coordinates of the upright image to those of the stored image; the inverse of `to_upright`."""
        points = points[..., ::-1] if self.orientation >= _FIRST_EXCHANGED else points
        return self._flip(points, pixel_centers)

    def _flip(self, points: FloatArray, pixel_centers: bool) -> FloatArray:
        is_flipped = np.array([self.orientation in _FLIPPED_X, self.orientation in _FLIPPED_Y])
        last = np.array([self.width, self.height], dtype=np.float64) - int(pixel_centers)
        return np.where(is_flipped, last - points, points)


def read_header(path: Path) -> ImageHeader:
    """Reads the size and the orientation of an image file without decoding it.

    Raises:
        OSError: if the file is missing or not an image.
    """
    try:
        with path.open("rb") as file:
            image = open_header(file)
            if image is None:
                raise UnidentifiedImageError("it is not an image")
            return header_of(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no image at {path}: check its name and folder") from error
    except Exception as error:  # decoders raise errors of all kinds for broken files
        raise OSError(f"image {path} cannot be read ({error}): download or convert it again") from error


def read_headers(paths: Iterable[Path]) -> dict[Path, ImageHeader]:
    """Reads the headers of image files, without those that cannot be read."""
    headers = {}
    for path in paths:
        with contextlib.suppress(OSError):
            headers[path] = read_header(path)
    return headers


def warn_of_ambiguous(headers: Mapping[Path, ImageHeader]) -> None:
    """Warns of the image files that have another upright image of the same size: boxes are taken in its pixels."""
    ambiguous = [
        f"{path} (orientation {header.orientation})" for path, header in headers.items() if header.is_ambiguous
    ]
    if ambiguous:
        examples = ", ".join(ambiguous[:3]) + (" and more" if len(ambiguous) > 3 else "")
        warnings.warn(
            f"images with an EXIF orientation that keeps width x height ({len(ambiguous)}): {examples}: boxes are in "
            "pixels of the upright image, as image viewers show it; if yours are in pixels as stored, remove the tag "
            "(exiftool -Orientation=)",
            stacklevel=2,
        )


def header_of(image: Image.Image) -> ImageHeader:
    """Returns the size and the orientation of an open image file, without decoding it."""
    return ImageHeader(*image.size, _read_orientation(image))


def _read_orientation(image: Image.Image) -> int:
    # Pillow and OpenCV both apply the orientation of a TIFF file whenever they read it
    if image.format == "TIFF":
        return 1
    # Pillow would decode a PNG file to search for EXIF data at its end
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # OpenCV ignores damaged EXIF data, too
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1

"""Photos from files as RGB arrays."""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posedy.files import read_bytes


def read_photo(path: str | Path, honour_exif: bool = False) -> NDArray[np.uint8]:
    """Reads a photo; grey photos become RGB, transparency is dropped, 16 bits are scaled to 8 (value // 256).

    A truncated JPEG is filled with grey by the decoder without a word: `check_coco` finds those.

    Args:
        path: the file; its name may hold any character.
        honour_exif: turn the photo as its EXIF orientation says, as viewers do. COCO's annotations refer to the pixels
            as they are stored, so its readers do not.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError: if the file is missing, empty, not a picture that OpenCV reads, or of over 178 million pixels.
    """
    path = Path(path)
    # OpenCV itself cannot open every path: bytes are read by Python and decoded from memory.
    data = read_bytes(path)
    if not data:
        raise OSError(f"photo {path} is empty (0 bytes): fetch it again")
    _refuse_bombs(data, path)
    flags = cv2.IMREAD_COLOR_RGB if honour_exif else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        raise OSError(f"photo {path} cannot be decoded: {error.err}") from error
    if image is None:
        raise OSError(
            f"photo {path} ({len(data)} bytes) is not a picture that can be read: expected JPEG, PNG, BMP, TIFF or "
            "WebP; fetch or convert it again"
        )
    return image.astype(np.uint8, copy=False)


def _refuse_bombs(data: bytes, path: Path) -> None:
    """Refuses a file whose header promises more pixels than Pillow's limit, before memory is taken for them."""
    try:
        Image.open(io.BytesIO(data)).close()
    except Image.DecompressionBombError as error:
        raise OSError(f"photo {path} promises more pixels than any camera gives ({error}): is it damaged?") from error
    except Exception:  # what Pillow cannot open may be a picture for OpenCV, which says why if not
        return

"""Images from files and from users as RGB arrays, and the image files that a command line means.

Arrays of users are in OpenCV's BGR order unless they say otherwise; inside posedy images are RGB.
"""

import glob
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from posedy.files import read_bytes


def read_image(path: str | Path, apply_exif: bool = False) -> NDArray[np.uint8]:
    """Reads a photo; gray photos become RGB, transparency is dropped, 16 bits are scaled to 8 (value // 256).

    A truncated JPEG is filled with gray by the decoder without a word: `check_coco` finds those.

    Args:
        path: the file; its name may hold any character.
        apply_exif: turn the photo as its EXIF orientation says, as viewers do. COCO's annotations refer to the pixels
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
    flags = cv2.IMREAD_COLOR_RGB if apply_exif else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
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


ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A path, a PIL image, or a uint8 array in OpenCV's order: (H, W, 3) BGR, (H, W, 4) BGRA, (H, W) or (H, W, 1) gray."""


ChannelOrder = Literal["bgr", "rgb"]
"""The order of an array's color channels."""


def to_rgb(image: ImageLike, channels: ChannelOrder = "bgr") -> NDArray[np.uint8]:
    """An image of any kind as (H, W, 3) uint8 RGB, in memory of its own; transparency is dropped.

    Photos from paths and PIL images are turned as their EXIF orientation says.

    Args:
        image: see `ImageLike`.
        channels: the order of an array's channels.

    Raises:
        OSError: if a photo cannot be read.
        TypeError: if it is of no kind of image.
        ValueError: if an array or a PIL image is of another type, shape or mode.
    """
    if channels not in get_args(ChannelOrder):
        raise ValueError(f"channels of an array are 'bgr' (OpenCV) or 'rgb' (PIL, imageio, gradio), got {channels!r}")
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image), apply_exif=True)
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    raise TypeError(
        f"an image is a path, a PIL image or a uint8 array in OpenCV's BGR order, got {type(image).__name__}"
        + (": give image.numpy() with channels last" if hasattr(image, "numpy") else "")
        + (": OpenCV's imread gives None for a photo that is not there or cannot be read" if image is None else "")
    )


def rgb_to_bgr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB in OpenCV's order, in memory of its own."""
    return _converted(image, cv2.COLOR_RGB2BGR)


def from_rgb(rgb: NDArray[np.uint8], like: ImageLike, channels: ChannelOrder) -> NDArray[np.uint8] | Image.Image:
    """Converts an RGB image to the kind of another image.

    Args:
        rgb: (H, W, 3) uint8.
        like: the other image.
        channels: the order of the channels if `like` is an array.

    Returns:
        A PIL image of mode RGB if `like` is a PIL image; else (H, W, 3) uint8, in the order `channels` if `like` is an
        array, and BGR if it is a path.
    """
    if isinstance(like, Image.Image):
        return Image.fromarray(rgb)
    if isinstance(like, np.ndarray) and channels == "rgb":
        return rgb
    return rgb_to_bgr(rgb)


def _from_pil(image: Image.Image) -> NDArray[np.uint8]:
    if not image.width or not image.height:
        raise ValueError(f"the image is empty: {image.width}x{image.height} pixels")
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F"):
        raise ValueError(
            f"a PIL image of mode {upright.mode!r} has no agreed range of values: scale it to 0...255 and convert it "
            "to 'L' or 'RGB'"
        )
    if upright.mode.startswith("I;16"):
        # PIL's own conversion would clip instead of scale.
        return _converted((np.asarray(upright) // 256).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    return np.array(upright.convert("RGB"))


def _from_array(image: NDArray[Any], order: ChannelOrder) -> NDArray[np.uint8]:
    if image.dtype != np.uint8:
        hint = "; multiply a picture of 0...1 by 255 and convert it with astype" if image.dtype.kind == "f" else ""
        hint = "; of 16 bits, give (image // 256).astype(numpy.uint8)" if image.dtype == np.uint16 else hint
        raise ValueError(f"an image array is uint8 with values 0...255, got {image.dtype}{hint}")
    channels = image.shape[2] if image.ndim == 3 else 1
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if order == "rgb":
        codes |= {4: cv2.COLOR_RGBA2RGB}
    if image.ndim not in (2, 3) or channels not in codes:
        hint = "; channels come last" if image.ndim == 3 and image.shape[0] in codes else ""
        hint = "; give one image at a time" if image.ndim == 4 else hint
        raise ValueError(f"an image array is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {image.shape}{hint}")
    if image.size == 0:
        raise ValueError(f"the image is empty: its shape is {image.shape}")
    if order == "rgb" and channels == 3:
        return image.copy()
    return _converted(image, codes[channels])


def _converted(image: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    # OpenCV does not take every view of numpy's.
    return cv2.cvtColor(np.ascontiguousarray(image), code).astype(np.uint8, copy=False)


VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def image_paths(arguments: Sequence[str]) -> list[Path]:
    """The photos that arguments mean, each once, in their order.

    A file is itself. A folder is the photos directly in it, by suffix and sorted by name. Anything else is a pattern,
    where ** also goes down into folders.

    Raises:
        OSError: if a folder cannot be read.
        ValueError: if an argument is empty or means no photo.
    """
    photos: dict[Path, Path] = {}
    for argument in arguments:
        if not argument:  # a path would take it for the current folder
            raise ValueError("a word for photos is empty: give a photo, folder or pattern; '.' is the current folder")
        path = Path(argument)
        try:
            found = _photos_of(path)
        except OSError as error:
            raise type(error)(
                f"{argument} cannot be looked into ({error.strerror}): check its name and permissions"
            ) from error
        if not found:
            if path.is_dir():
                what = f"folder {argument} has no photo directly in it (looked for {', '.join(PHOTO_SUFFIXES)})"
            elif glob.has_magic(argument):
                what = f"no photo matches {argument}"
            else:
                what = f"no photo or folder at {path.absolute()}"
            raise ValueError(what)
        for photo in found:
            photos.setdefault(photo.resolve(), photo)
    return list(photos.values())


def _photos_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return _only_photos(path.iterdir())
    return _only_photos(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207


def _only_photos(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())

"""The kinds of image that posedy takes from users, as one: RGB.

Inside of posedy pictures are RGB. Arrays of users are in OpenCV's BGR order, since that is where they come from.
"""

import os
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from posedy.data.photos import read_photo

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A path, a PIL image, or a uint8 array in OpenCV's order: (H, W, 3) BGR, (H, W, 4) BGRA, (H, W) or (H, W, 1) grey."""


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
        return read_photo(os.fspath(image), honour_exif=True)
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

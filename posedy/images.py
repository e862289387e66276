"""Reading and conversion of images.

Arrays from users are in OpenCV's BGR order by default; posedy's internal images are RGB.
"""

import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeGuard, Union, get_args
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from posedy.files import read_bytes, write_bytes_atomically
from posedy.urls import is_url, read_url

if TYPE_CHECKING:
    from torch import Tensor


def read_image(path: str | Path, apply_exif: bool = False) -> NDArray[np.uint8]:
    """Reads an image file as RGB; transparency is dropped, 16 bits are scaled to 8 (value // 256).

    Truncated files are an error, which `check_coco` detects before they are used.

    Args:
        path: the file; its name may contain any character.
        apply_exif: whether to apply the EXIF orientation, as image viewers do. COCO's annotations refer to the pixels
            as stored.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError: if the file is missing, empty, not readable by OpenCV, larger than `MAX_PIXELS`, or has other values
            than integers of 8 or 16 bits.
    """
    # OpenCV cannot open every path, so Python reads the bytes.
    return decode_image(read_bytes(path), path, apply_exif)


def decode_image(data: bytes, name: str | Path, apply_exif: bool = False) -> NDArray[np.uint8]:
    """Decodes the content of an image file as RGB, as `read_image`.

    Args:
        data: the content of the file.
        name: the image in messages, such as its path.
        apply_exif: see `read_image`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError: if the content is not a supported image; see `read_image`.
    """
    if not data:
        raise OSError(f"image {name} is empty (0 bytes): download it again")
    _check_size(data, name)
    _check_values(data, name)
    flags = cv2.IMREAD_COLOR_RGB if apply_exif else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(data, flags, name)
    if image is None:
        raise OSError(
            f"image {name} ({len(data)} bytes) cannot be decoded: expected JPEG, PNG, BMP, TIFF, WebP or AVIF; "
            "download or convert it again"
        )
    rgb = image.astype(np.uint8, copy=False)
    return _apply_avif_orientation(rgb, data) if apply_exif and data[4:12] == b"ftypavif" else rgb


def _apply_avif_orientation(rgb: NDArray[np.uint8], data: bytes) -> NDArray[np.uint8]:
    """Applies the orientation of an AVIF file, which OpenCV ignores."""
    try:
        with Image.open(io.BytesIO(data)) as header:
            orientation = header.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # some builds of Pillow cannot read AVIF
        return rgb
    stored = Image.fromarray(rgb)
    stored.getexif()[ExifTags.Base.Orientation] = orientation
    return np.array(ImageOps.exif_transpose(stored))


def open_header(file: BinaryIO) -> Image.Image | None:
    """Opens an image without decoding it, or returns None if Pillow cannot read its header.

    Unlike `Image.open`, it neither rejects large images nor warns of them: Pillow's limit is below 200 megapixels, the
    size of some phones' images.

    Args:
        file: the file, which must stay open as long as the image is used.
    """
    start = file.read(16)
    for load_formats in (Image.preinit, Image.init):  # the common ones first, as in Image.open
        load_formats()
        for create, accepts in list(Image.OPEN.values()):
            try:
                if accepts is None or accepts(start) is True:
                    file.seek(0)
                    image: Image.Image = create(file, "")
                    return image
            except Exception:  # damaged headers and files of a few bytes raise errors of all kinds
                continue
    return None


def read_header_size(data: bytes) -> tuple[int, int] | None:
    """Reads the width and height in an image's header, or returns None if Pillow cannot read it."""
    image = open_header(io.BytesIO(data))
    return image.size if image is not None else None


def _check_size(data: bytes, name: str | Path) -> None:
    """Raises OSError if the header declares more than `MAX_PIXELS`, before memory is allocated for them."""
    size = read_header_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise OSError(
            f"image {name} is too large, or damaged: its header declares {size[0]} x {size[1]} pixels (width x "
            f"height), the limit is {MAX_PIXELS / 1e6:.0f} million pixels; shrink or crop it"
        )


def _check_values(data: bytes, name: str | Path) -> None:
    """Raises OSError for values without a standard range, of which OpenCV would make a black or a random image."""
    if not data.startswith(_FORMATS_OF_ANY_VALUES):
        return
    image = _decode(data, cv2.IMREAD_UNCHANGED, name)
    if image is not None and image.dtype not in (np.uint8, np.uint16):
        raise OSError(
            f"image {name} has {image.dtype} values, which have no standard range: scale them to 0...255 and save them "
            "as 8-bit integers"
        )


def _decode(data: bytes, flags: int, name: str | Path) -> NDArray[Any] | None:
    try:
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        raise OSError(f"image {name} cannot be decoded: {error.err}") from error
    return image


MAX_PIXELS = 2**28
"""Maximum number of pixels of an image file: 268 million, 805 MB as an array. Some phones take 16384 x 12288."""
_MAX_STEM, _MAX_SUFFIX = 50, 10  # characters of the names of downloads, which are up to four bytes each
# TIFF (also with 64-bit offsets) and PFM
_FORMATS_OF_ANY_VALUES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"PF", b"Pf")


ImageLike = Union[str, os.PathLike[str], Image.Image, NDArray[np.uint8], "Tensor"]
"""A path, a PIL image, a uint8 array in OpenCV's order: (H, W, 3) BGR, (H, W, 4) BGRA, (H, W) or (H, W, 1) gray, or an
RGB tensor (3, H, W), uint8 or float from 0 to 1."""


ChannelOrder = Literal["bgr", "rgb"]
"""The order of an array's color channels."""


def to_rgb(image: ImageLike, channels: ChannelOrder = "bgr") -> NDArray[np.uint8]:
    """Converts an image to a new (H, W, 3) uint8 RGB array; transparency is dropped.

    The EXIF orientation of image files and PIL images is applied.

    Args:
        image: the image, see `ImageLike`.
        channels: the order of an array's channels.

    Raises:
        OSError: if an image file cannot be read.
        TypeError: if it is not an `ImageLike`.
        ValueError: if the dtype, shape or mode of an array, a tensor or a PIL image is not supported, or the values of
            a float tensor are not from 0 to 1.
    """
    if channels not in get_args(ChannelOrder):
        raise ValueError(f"expected channels 'bgr' (OpenCV) or 'rgb' (PIL, imageio, gradio), got {channels!r}")
    if is_url(image):
        raise ValueError(f"expected an image file, got the URL {image}: download it first")
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image), apply_exif=True)
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, np.ndarray):
        return _from_array(image, channels)
    if _is_tensor(image):
        return _from_tensor(image)
    raise TypeError(
        "expected a path, a PIL image, a uint8 array in OpenCV's BGR order or an RGB tensor (3, H, W), got "
        f"{type(image).__name__}"
        + (": pass image.numpy() with channels last" if hasattr(image, "numpy") else "")
        + (": OpenCV's imread returns None for a missing or unreadable image" if image is None else "")
    )


def rgb_to_bgr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Converts an image (H, W, 3) from RGB to a new BGR array."""
    return _convert_color(image, cv2.COLOR_RGB2BGR)


def encode_jpeg(bgr: NDArray[np.uint8], quality: int = 92) -> bytes:
    """Encodes an image (H, W, 3) BGR as JPEG.

    Args:
        bgr: the image.
        quality: from 0 to 100.

    Raises:
        ValueError: if OpenCV cannot encode it.
    """
    try:
        encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error as error:
        raise ValueError(f"the image cannot be encoded as JPEG: {error.err}") from error
    if not encoded:
        height, width = bgr.shape[:2]
        raise ValueError(f"an image of {width} x {height} pixels (width x height) cannot be encoded as JPEG")
    return data.tobytes()


def from_rgb(
    rgb: NDArray[np.uint8], like: ImageLike, channels: ChannelOrder
) -> "NDArray[np.uint8] | Image.Image | Tensor":
    """Converts an RGB image to the type and channel order of another image.

    Args:
        rgb: (H, W, 3) uint8.
        like: the other image.
        channels: the order of the channels if `like` is an array.

    Returns:
        A PIL image of mode RGB if `like` is a PIL image; an RGB tensor (3, H, W) uint8 on the same device if it is a
        tensor; else (H, W, 3) uint8, in the order `channels` if `like` is an array, and BGR if it is a path.
    """
    if _is_tensor(like):
        return sys.modules["torch"].from_numpy(rgb).permute(2, 0, 1).contiguous().to(like.device)
    if isinstance(like, Image.Image):
        return Image.fromarray(rgb)
    if isinstance(like, np.ndarray) and channels == "rgb":
        return rgb
    return rgb_to_bgr(rgb)


def _is_tensor(image: object) -> "TypeGuard[Tensor]":
    # only torch creates tensors, and it is slow to import
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def _from_tensor(image: "Tensor") -> NDArray[np.uint8]:
    if image.ndim != 3 or image.shape[0] != 3:
        hint = "; move the channels to the first axis" if image.ndim == 3 and image.shape[2] == 3 else ""
        hint = "; pass a list of images" if image.ndim == 4 else hint
        raise ValueError(f"expected an RGB tensor (3, H, W), got shape {tuple(image.shape)}{hint}")
    if image.numel() == 0:
        raise ValueError(f"the image is empty: its shape is {tuple(image.shape)}")
    image = image.detach()
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"expected a float tensor with values from 0 to 1, got {low:g} to {high:g}")
        image = (image.float() * 255).round().byte()
    elif str(image.dtype) != "torch.uint8":
        raise ValueError(f"expected a uint8 tensor or a float tensor with values from 0 to 1, got {image.dtype}")
    return np.array(image.permute(1, 2, 0).cpu().numpy(), order="C")


def _from_pil(image: Image.Image) -> NDArray[np.uint8]:
    if not image.width or not image.height:
        raise ValueError(f"the image is empty: {image.width} x {image.height} pixels (width x height)")
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raise any error; OpenCV ignores them, too
        upright = image
    if upright.mode in ("I", "F"):
        raise ValueError(
            f"a PIL image of mode {upright.mode!r} has no standard range of values: scale it to 0...255 and convert it "
            "to 'L' or 'RGB'"
        )
    if upright.mode.startswith("I;16"):
        # PIL's conversion would clip the values instead of scaling them.
        return _convert_color((np.asarray(upright) // 256).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    return np.array(upright.convert("RGB"))


def _from_array(image: NDArray[Any], order: ChannelOrder) -> NDArray[np.uint8]:
    if image.dtype != np.uint8:
        hint = "; multiply values of 0...1 by 255 and convert them with astype" if image.dtype.kind == "f" else ""
        hint = "; convert 16 bits with (image // 256).astype(numpy.uint8)" if image.dtype == np.uint16 else hint
        raise ValueError(f"expected a uint8 array with values 0...255, got {image.dtype}{hint}")
    channels = image.shape[2] if image.ndim == 3 else 1
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if order == "rgb":
        codes |= {4: cv2.COLOR_RGBA2RGB}
    if image.ndim not in (2, 3) or channels not in codes:
        hint = "; move the channels to the last axis" if image.ndim == 3 and image.shape[0] in codes else ""
        hint = "; pass one image at a time" if image.ndim == 4 else hint
        raise ValueError(f"expected an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got shape {image.shape}{hint}")
    if image.size == 0:
        raise ValueError(f"the image is empty: its shape is {image.shape}")
    if order == "rgb" and channels == 3:
        return image.copy()
    return _convert_color(image, codes[channels])


def _convert_color(image: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    # OpenCV does not accept all views of numpy arrays.
    return cv2.cvtColor(np.ascontiguousarray(image), code).astype(np.uint8, copy=False)


def read_image_url(url: str) -> NDArray[np.uint8]:
    """Reads an image from an http or https URL as RGB, upright.

    Raises:
        OSError: if the URL cannot be read, or is not an image.
    """
    data = read_url(url)
    try:
        return to_rgb(Image.open(io.BytesIO(data)))
    except (OSError, Image.DecompressionBombError) as error:
        # Pillow names the buffer, not the URL
        reason = f"unknown format of {len(data)} bytes" if isinstance(error, UnidentifiedImageError) else error
        raise OSError(f"{url} is not an image that can be read: {reason}") from error


def download(url: str, folder: Path) -> Path:
    """Downloads a URL to a new file in a folder, named as in the URL, and returns its path.

    Raises:
        OSError: if the URL cannot be read or the file cannot be written.
    """
    content = read_url(url)
    name = Path(re.sub(r"[^\w.-]", "_", unquote(urlsplit(url).path).rpartition("/")[2]).lstrip(".") or "image")
    stem, suffix = name.stem[:_MAX_STEM], name.suffix[:_MAX_SUFFIX]
    path, number = folder / f"{stem}{suffix}", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}{suffix}", number + 1
    write_bytes_atomically(path, content)
    return path

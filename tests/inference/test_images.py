from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from posedy.images import read_image, rgb_to_bgr, to_rgb

ORIENTATION = 0x0112


def test_path_pil_and_array_are_equal(image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "grüße.png"
    Image.fromarray(image).save(path)
    for source in (path, str(path), Image.open(path), image[..., ::-1]):
        np.testing.assert_array_equal(to_rgb(source), image)


def test_gray_image_has_three_equal_channels(image: np.ndarray) -> None:
    gray = image[..., 0]
    expected = np.stack([gray] * 3, axis=-1)
    for source in (gray, gray[..., None], expected, Image.fromarray(gray)):
        np.testing.assert_array_equal(to_rgb(source), expected)


def test_transparency_is_dropped(image: np.ndarray) -> None:
    alpha = np.full((*image.shape[:2], 1), 3, dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(np.concatenate([image[..., ::-1], alpha], axis=-1)), image)
    np.testing.assert_array_equal(to_rgb(Image.fromarray(np.concatenate([image, alpha], axis=-1))), image)


def test_arrays_may_be_rgb(image: np.ndarray, tmp_path: Path) -> None:
    rgb = image.copy()
    alpha = np.full((*image.shape[:2], 1), 3, dtype=np.uint8)
    for source in (rgb, np.concatenate([image, alpha], axis=-1), Image.fromarray(image)):
        np.testing.assert_array_equal(to_rgb(source, "rgb"), image)
    to_rgb(rgb, "rgb")[:] = 0
    np.testing.assert_array_equal(rgb, image)
    np.testing.assert_array_equal(to_rgb(image[..., 0], "rgb"), np.stack([image[..., 0]] * 3, axis=-1))
    with pytest.raises(ValueError, match=r"'bgr'.*'rgb'.*got 'rbg'"):
        to_rgb(image, "rbg")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "LA", "RGBX"])
def test_other_pil_modes_are_converted_to_rgb(mode: str, image: np.ndarray) -> None:
    converted = Image.fromarray(image).convert(mode)
    np.testing.assert_array_equal(to_rgb(converted), np.asarray(converted.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_for_paths_and_pil(orientation: int, image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(image).save(path, exif=exif, quality=95, subsampling=0)
    from_path, from_pil = to_rgb(path), to_rgb(Image.open(path))
    assert from_path.shape == from_pil.shape == ((150, 200, 3) if orientation < 5 else (200, 150, 3))
    # two JPEG decoders may round differently
    assert np.abs(from_path.astype(int) - from_pil).mean() < 1
    if orientation == 6:
        assert np.abs(from_path.astype(int) - np.rot90(image, -1)).mean() < 3


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_damaged_exif_data_are_ignored_for_paths_and_pil(suffix: str, image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path, exif=b"garbage that is no TIFF", lossless=True)
    np.testing.assert_array_equal(to_rgb(path), image)
    np.testing.assert_array_equal(to_rgb(Image.open(path)), image)


def test_sixteen_bits_are_scaled_for_paths_and_pil(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 30 * 20).astype(np.uint16).reshape(20, 30)
    path = tmp_path / "deep.png"
    assert cv2.imwrite(str(path), values)
    np.testing.assert_array_equal(to_rgb(Image.open(path))[..., 0], values // 256)
    np.testing.assert_array_equal(to_rgb(path), to_rgb(Image.open(path)))


def test_result_is_a_copy(image: np.ndarray) -> None:
    for source in (image, image[..., 0], Image.fromarray(image)):
        rgb = to_rgb(source)
        assert rgb.flags.writeable
        assert rgb.flags.c_contiguous
        assert not isinstance(source, np.ndarray) or not np.shares_memory(rgb, source)


def test_views_and_read_only_arrays_are_accepted(image: np.ndarray) -> None:
    view = image[::-2, ::-3, ::-1]
    view.flags.writeable = False
    np.testing.assert_array_equal(to_rgb(view), image[::-2, ::-3])


def test_rgb_to_bgr_reverses_channels(image: np.ndarray) -> None:
    np.testing.assert_array_equal(rgb_to_bgr(image), image[..., ::-1])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3)), "got float64; multiply"),
        (np.zeros((8, 8, 3), np.uint16), "got uint16; convert"),
        (np.zeros((8, 8), bool), "got bool"),
        (np.zeros((3, 80, 80), np.uint8), r"got shape \(3, 80, 80\); move"),
        (np.zeros((2, 80, 80, 3), np.uint8), "one image at a time"),
        (np.zeros((80, 80, 2), np.uint8), r"got shape \(80, 80, 2\)"),
        (np.zeros(80, np.uint8), r"got shape \(80,\)"),
        (np.zeros((0, 80, 3), np.uint8), "empty"),
        (Image.new("F", (4, 4)), "mode 'F'"),
        (Image.new("I", (4, 4)), "mode 'I'"),
        (Image.new("RGB", (0, 4)), "empty: 0 x 4"),
    ],
)
def test_invalid_array_raises(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb(image)


@pytest.mark.parametrize("image", [None, b"abc", [[1, 2], [3, 4]]])
def test_other_type_raises(image: object) -> None:
    with pytest.raises(TypeError, match=f"got {type(image).__name__}"):
        to_rgb(image)  # type: ignore[arg-type]


def test_failed_imread_has_a_hint() -> None:
    with pytest.raises(TypeError, match="got NoneType: OpenCV's imread"):
        to_rgb(cv2.imread("nowhere.jpg"))  # type: ignore[arg-type]


def test_missing_file_raises_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.jpg"):
        to_rgb(tmp_path / "missing.jpg")


@pytest.mark.parametrize("size", range(1, 20))
def test_files_of_a_few_bytes_are_errors(size: int, tmp_path: Path) -> None:
    path = tmp_path / "tiny.jpg"
    for content in (bytes(size), b"\xff\xd8\xff\xe0JFIF"[:size], b"II*\0"[:size], b"P6"[:size]):
        path.write_bytes(content)
        with pytest.raises(OSError, match="cannot be decoded"):
            read_image(path)

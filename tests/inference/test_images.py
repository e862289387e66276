from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from posedy.images import rgb_to_bgr, to_rgb

ORIENTATION = 0x0112


def test_path_pil_and_array_are_one(photo: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "grüße photo.png"
    Image.fromarray(photo).save(path)
    for image in (path, str(path), Image.open(path), photo[..., ::-1]):
        np.testing.assert_array_equal(to_rgb(image), photo)


def test_gray_is_three_equal_channels(photo: np.ndarray) -> None:
    gray = photo[..., 0]
    expected = np.stack([gray] * 3, axis=-1)
    for image in (gray, gray[..., None], expected, Image.fromarray(gray)):
        np.testing.assert_array_equal(to_rgb(image), expected)


def test_transparency_is_dropped(photo: np.ndarray) -> None:
    alpha = np.full((*photo.shape[:2], 1), 3, dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(np.concatenate([photo[..., ::-1], alpha], axis=-1)), photo)
    np.testing.assert_array_equal(to_rgb(Image.fromarray(np.concatenate([photo, alpha], axis=-1))), photo)


def test_arrays_may_be_rgb(photo: np.ndarray, tmp_path: Path) -> None:
    given = photo.copy()
    alpha = np.full((*photo.shape[:2], 1), 3, dtype=np.uint8)
    for image in (given, np.concatenate([photo, alpha], axis=-1), Image.fromarray(photo)):
        np.testing.assert_array_equal(to_rgb(image, "rgb"), photo)
    to_rgb(given, "rgb")[:] = 0
    np.testing.assert_array_equal(given, photo)
    np.testing.assert_array_equal(to_rgb(photo[..., 0], "rgb"), np.stack([photo[..., 0]] * 3, axis=-1))
    with pytest.raises(ValueError, match=r"'bgr'.*'rgb'.*got 'rbg'"):
        to_rgb(photo, "rbg")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "LA", "RGBX"])
def test_other_modes_of_pil_become_rgb(mode: str, photo: np.ndarray) -> None:
    image = Image.fromarray(photo).convert(mode)
    np.testing.assert_array_equal(to_rgb(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honored_alike_for_paths_and_pil(orientation: int, photo: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(photo).save(path, exif=exif, quality=95, subsampling=0)
    from_path, from_pil = to_rgb(path), to_rgb(Image.open(path))
    assert from_path.shape == from_pil.shape == ((150, 200, 3) if orientation < 5 else (200, 150, 3))
    # two JPEG decoders may round differently
    assert np.abs(from_path.astype(int) - from_pil).mean() < 1
    if orientation == 6:
        assert np.abs(from_path.astype(int) - np.rot90(photo, -1)).mean() < 3


def test_sixteen_bits_are_scaled_alike(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 30 * 20).astype(np.uint16).reshape(20, 30)
    path = tmp_path / "deep.png"
    assert cv2.imwrite(str(path), values)
    np.testing.assert_array_equal(to_rgb(Image.open(path))[..., 0], values // 256)
    np.testing.assert_array_equal(to_rgb(path), to_rgb(Image.open(path)))


def test_the_result_has_memory_of_its_own(photo: np.ndarray) -> None:
    for image in (photo, photo[..., 0], Image.fromarray(photo)):
        rgb = to_rgb(image)
        assert rgb.flags.writeable
        assert rgb.flags.c_contiguous
        assert not isinstance(image, np.ndarray) or not np.shares_memory(rgb, image)


def test_views_and_read_only_arrays_are_taken(photo: np.ndarray) -> None:
    view = photo[::-2, ::-3, ::-1]
    view.flags.writeable = False
    np.testing.assert_array_equal(to_rgb(view), photo[::-2, ::-3])


def test_rgb_to_bgr_swaps(photo: np.ndarray) -> None:
    np.testing.assert_array_equal(rgb_to_bgr(photo), photo[..., ::-1])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8, 3)), "uint8 with values 0...255, got float64; multiply"),
        (np.zeros((8, 8, 3), np.uint16), "got uint16; of 16 bits"),
        (np.zeros((8, 8), bool), "got bool"),
        (np.zeros((3, 80, 80), np.uint8), r"got \(3, 80, 80\); channels come last"),
        (np.zeros((2, 80, 80, 3), np.uint8), "one image at a time"),
        (np.zeros((80, 80, 2), np.uint8), r"got \(80, 80, 2\)"),
        (np.zeros(80, np.uint8), r"got \(80,\)"),
        (np.zeros((0, 80, 3), np.uint8), "empty"),
        (Image.new("F", (4, 4)), "mode 'F'"),
        (Image.new("I", (4, 4)), "mode 'I'"),
        (Image.new("RGB", (0, 4)), "empty: 0x4"),
    ],
)
def test_other_arrays_are_refused_in_words(image: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_rgb(image)


@pytest.mark.parametrize("image", [None, b"abc", [[1, 2], [3, 4]], torch.zeros(3, 8, 8)])
def test_other_types_are_refused_in_words(image: object) -> None:
    with pytest.raises(TypeError, match=f"path, a PIL image or a uint8 array.*got {type(image).__name__}"):
        to_rgb(image)  # type: ignore[arg-type]


def test_what_opencv_could_not_read_is_told_apart() -> None:
    with pytest.raises(TypeError, match="got NoneType: OpenCV's imread gives None"):
        to_rgb(cv2.imread("nowhere.jpg"))  # type: ignore[arg-type]


def test_a_missing_photo_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nobody\.jpg"):
        to_rgb(tmp_path / "nobody.jpg")

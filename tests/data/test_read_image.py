import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from posedy.images import MAX_PIXELS, read_image


@pytest.fixture
def pixels():
    """A smooth color image, which lossy formats change little."""
    y, x = np.mgrid[0:24, 0:32]
    return np.stack([x * 7, y * 9, 200 - x * 3 - y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "ünï ✓ 写真.png", "no_suffix"])
def test_lossless_images_are_read_exactly(tmp_path, pixels, name):
    Image.fromarray(pixels).save(tmp_path / name, format=None if "." in name else "PNG")
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)
    assert image.flags.c_contiguous


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_images_match_pillow(tmp_path, pixels, name):
    Image.fromarray(pixels).save(tmp_path / name, quality=95)
    expected = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
    assert np.abs(read_image(str(tmp_path / name)) - expected).max() <= 3


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_other_modes_are_converted_to_rgb(tmp_path, pixels, mode):
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_transparency_is_dropped(tmp_path, pixels):
    Image.fromarray(np.dstack([pixels, np.zeros((24, 32), np.uint8)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    values = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(image, np.repeat((values // 256).astype(np.uint8)[..., None], 3, axis=-1))


def test_exif_orientation_is_ignored_by_default(tmp_path, pixels):
    for orientation, quarter_turns in ((1, 0), (3, 2), (6, 3), (8, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
        assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - pixels).max() < 12
        upright = read_image(tmp_path / "a.jpg", apply_exif=True)
        assert np.abs(upright.astype(int) - np.rot90(pixels, quarter_turns)).max() < 12


def test_exif_orientation_of_avif_is_applied(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.avif", exif=exif, quality=95)
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - pixels).max() < 20
    upright = read_image(tmp_path / "a.avif", apply_exif=True)
    assert np.abs(upright.astype(int) - np.rot90(pixels, 3)).max() < 20


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.tiff", "float32"), ("a.tiff", "int32"), ("a.tiff", "int16"), ("a.pfm", "float32")]
)
def test_values_without_a_standard_range_raise_with_their_type(tmp_path, pixels, name, dtype):
    assert cv2.imwrite(str(tmp_path / name), pixels.astype(dtype))
    with pytest.raises(OSError, match=rf"{name} .*{dtype}"):
        read_image(tmp_path / name)


def test_the_largest_images_of_phones_are_read_and_larger_headers_rejected(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"IHDR")
    for width, height in ((16384, 16385), (2**31 - 1, 2**31 - 1)):
        header = b"IHDR" + struct.pack(">II", width, height) + data[start + 12 : start + 17]
        checksum = struct.pack(">I", zlib.crc32(header))
        (tmp_path / "b.png").write_bytes(data[:start] + header + checksum + data[start + 21 :])
        with pytest.raises(OSError, match=rf"b\.png .*{width} x {height}"):
            read_image(tmp_path / "b.png")
    assert 16320 * 12240 < 16384 * 12288 < MAX_PIXELS < 16384 * 16385


@pytest.mark.slow
def test_an_image_of_200_megapixels_is_read(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((12240, 16320), 77, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / "a.png", apply_exif=True)
    assert image.shape == (12240, 16320, 3)
    assert (image[::500, ::500] == 77).all()


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_invalid_file_raises_with_its_name(tmp_path, data):
    (tmp_path / "invalid.jpg").write_bytes(data)
    with pytest.raises(OSError, match=r"invalid\.jpg"):
        read_image(tmp_path / "invalid.jpg")


def test_missing_file_or_folder_raises_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(OSError, match=tmp_path.name):
        read_image(tmp_path)

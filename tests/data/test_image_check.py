"""Image checks: a passed check is skipped the next time, one with errors or warnings is not."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from PIL import Image

from posedy.data import image_check
from posedy.data.coco import read_coco
from posedy.data.issues import CocoFileError

from .conftest import CocoFolder

cache_folder = image_check.cache_folder  # before a fixture replaces it


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(image_check, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The image files that were opened."""
    files: list[object] = []
    original = image_check.open_header

    def recording_open(file: BinaryIO) -> Image.Image | None:
        files.append(file)
        return original(file)

    monkeypatch.setattr(image_check, "open_header", recording_open)
    return files


def test_passed_check_is_not_repeated(coco_folder: CocoFolder, cache: Path, opened: list[object]) -> None:
    first = read_coco(coco_folder.annotations, coco_folder.images, image_check="once")
    assert len(opened) == 4
    assert len(list(cache.iterdir())) == 1
    second = read_coco(coco_folder.annotations, coco_folder.images, image_check="once")
    assert len(opened) == 4
    assert second.fingerprint == first.fingerprint
    assert second.image_path(0).is_file()
    read_coco(coco_folder.annotations, coco_folder.images)
    assert len(opened) == 8


def touch(folder: CocoFolder) -> None:
    os.utime(folder.annotations, ns=(0, 0))


def rename_image(folder: CocoFolder) -> None:
    folder.content["images"][3]["file_name"] = "a.jpg"
    folder.write()


def add_image(folder: CocoFolder) -> None:
    (folder.images / "new.jpg").write_bytes(b"")
    os.utime(folder.images, ns=(0, 0))


def add_image_in_subfolder(folder: CocoFolder) -> None:
    os.utime(folder.images / "sub", ns=(0, 0))


@pytest.mark.parametrize("change", [touch, rename_image, add_image, add_image_in_subfolder])
def test_changed_dataset_is_checked_again(
    coco_folder: CocoFolder, cache: Path, opened: list[object], change: Callable[[CocoFolder], None]
) -> None:
    read_coco(coco_folder.annotations, coco_folder.images, image_check="once")
    change(coco_folder)
    read_coco(coco_folder.annotations, coco_folder.images, image_check="once")
    assert len(opened) == 8


def test_check_with_errors_or_warnings_is_repeated(coco_folder: CocoFolder, cache: Path) -> None:
    (coco_folder.images / "empty.jpg").unlink()
    for _ in range(2):
        persons = read_coco(coco_folder.annotations, coco_folder.images, image_check="once")
        assert [warning.kind for warning in persons.warnings] == ["missing image (without usable persons)"]
    (coco_folder.images / "a.jpg").unlink()
    for _ in range(2):
        with pytest.raises(CocoFileError, match=r"a\.jpg"):
            read_coco(coco_folder.annotations, coco_folder.images, image_check="once")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("size", "problem"), [((16_320, 12_240), "wrong image size"), ((30_000, 12_240), "the limit is")]
)
def test_images_are_large_up_to_the_limit_of_reading(
    coco_folder: CocoFolder, size: tuple[int, int], problem: str, recwarn: pytest.WarningsRecorder
) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT", b"IEND"]
    data = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    (coco_folder.images / "a.jpg").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(CocoFileError, match=problem):
        read_coco(coco_folder.annotations, coco_folder.images)
    assert not recwarn.list


def test_missing_folder_raises_without_a_check(coco_folder: CocoFolder, opened: list[object]) -> None:
    (coco_folder.images / "a.jpg").unlink()
    assert len(read_coco(coco_folder.annotations, coco_folder.images, image_check="never")) == 3
    assert not opened
    for check in ("never", "once"):
        with pytest.raises(CocoFileError, match="elsewhere"):
            read_coco(coco_folder.annotations, coco_folder.images / "elsewhere", image_check=check)


def test_unwritable_cache_folder_is_ignored(
    coco_folder: CocoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[object]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(image_check, "cache_folder", lambda: tmp_path / "file" / "cache")
    for count in (4, 8):
        read_coco(coco_folder.annotations, coco_folder.images, image_check="once")
        assert len(opened) == count


def test_cache_folder_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unusable in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder().is_relative_to(tmp_path / "home" / ".cache")


def test_record_names_the_checked_files(coco_folder: CocoFolder, cache: Path) -> None:
    read_coco(coco_folder.annotations, coco_folder.images, image_check="once")
    (file,) = cache.iterdir()
    assert json.loads(file.read_text()) == {
        "annotations": str(coco_folder.annotations.resolve()),
        "images": str(coco_folder.images.resolve()),
    }

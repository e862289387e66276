from pathlib import Path

import pytest

from posedy.image_paths import image_paths, split_inputs
from posedy.urls import has_scheme


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", "[1].jpg", "sub/c.jpeg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "images"


def test_folder_gives_its_images_sorted_by_name(folder: Path) -> None:
    assert image_paths([str(folder)]) == [folder / "[1].jpg", folder / "a.png", folder / "b.JPG"]


def test_hidden_files_of_folders_are_left_out(tmp_path: Path) -> None:
    """Such as those that macOS adds, and posedy's own temporary files."""
    for name in ("a.jpg", "b.mp4", "._a.jpg", ".big-0123abcd.mp4"):
        (tmp_path / name).touch()
    assert image_paths([str(tmp_path)]) == [tmp_path / "a.jpg"]
    assert split_inputs([str(tmp_path)], lambda path: False) == ([str(tmp_path)], [tmp_path / "b.mp4"])
    hidden = tmp_path / ".big-0123abcd.mp4"
    assert split_inputs([str(hidden)], lambda path: False)[1] == [hidden]  # given by its name


def test_patterns_and_files(folder: Path) -> None:
    assert image_paths([f"{folder}/*.png"]) == [folder / "a.png"]
    assert image_paths([f"{folder}/**/*"]) == sorted(
        [folder / "[1].jpg", folder / "a.png", folder / "b.JPG", folder / "sub" / "c.jpeg"]
    )
    # a file may have any suffix, and brackets in its name are not a pattern
    files = [folder / "notes.txt", folder / "[1].jpg"]
    assert image_paths([str(file) for file in files]) == files


def test_images_and_videos_that_are_left_out_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = ("c.HEIC", "d.jfif", "e.avif", "f.JPE", "g.gif", "h.MP4", "i.dng", "k.json")
    for name in more:
        (folder / name).touch()
    expected = [folder / name for name in ("[1].jpg", "a.png", "b.JPG", "d.jfif", "e.avif", "f.JPE")]
    assert image_paths([str(folder)]) == expected
    (record,) = caplog.records
    assert str(folder) in record.getMessage()
    assert [name for name in (*more, "notes.txt") if name in record.getMessage()] == [
        "c.HEIC",
        "g.gif",
        "h.MP4",
        "i.dng",
    ]
    with pytest.raises(ValueError, match=r"c\.HEIC"):
        image_paths([f"{folder}/*.HEIC"])
    caplog.clear()
    assert image_paths([str(folder / "c.HEIC")]) == [folder / "c.HEIC"]
    assert not caplog.records


def test_duplicates_are_removed(folder: Path) -> None:
    assert image_paths([str(folder / "b.JPG"), f"{folder}/sub/../b.JPG", str(folder)]) == [
        folder / "b.JPG",
        folder / "[1].jpg",
        folder / "a.png",
    ]


def test_arguments_without_images_raise(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty .*\.jpg"):
        image_paths([str(folder), str(tmp_path / "empty")])
    with pytest.raises(ValueError, match=r"\*\.bmp"):
        image_paths([f"{folder}/*.bmp"])
    with pytest.raises(ValueError, match=r"absent\.jpg"):
        image_paths([str(tmp_path / "absent.jpg")])


def test_empty_argument_raises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match="empty argument"):
        image_paths(["a.png", ""])


@pytest.mark.parametrize("url", ["https://example.com/a.png", "rtsp://camera", "file:///images/a.png"])
def test_urls_raise(folder: Path, url: str) -> None:
    with pytest.raises(ValueError, match=f"URL {url}"):
        image_paths([str(folder), url])


def test_names_with_a_colon_are_no_urls(tmp_path: Path) -> None:
    for name in ("a:b.png", "C:/b.png", "12://b.png", "C://b.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert image_paths([str(path)]) == [path]
        assert not has_scheme(name)


def test_videos_are_split_from_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.MTS", "c.mp4", "only/d.h264", "only/e.txt", "no_suffix", "f.heic", "g.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    given = [str(tmp_path), f"{tmp_path}/only", f"{tmp_path}/*.mp4", f"{tmp_path}/absent.mov"]
    images, videos = split_inputs(given, lambda path: False)
    assert images == [str(tmp_path)]
    assert videos == [tmp_path / name for name in ("b.MTS", "c.mp4", "only/d.h264", "absent.mov")]
    # files without the suffix of a video are tried, if they are no images
    files = [str(tmp_path / name) for name in ("no_suffix", "f.heic", "g.txt", "a.png")]
    images, videos = split_inputs(files, lambda path: path.name == "no_suffix")
    assert (images, videos) == (files[1:], [tmp_path / "no_suffix"])
    # with boxes for images, folders give none
    assert split_inputs(given[:1], lambda path: True, expand_videos=False) == (given[:1], [])


def test_urls_of_videos_are_split_from_those_of_images() -> None:
    videos = ["rtsp://user@camera:554/stream", "https://example.com/a.MP4?key=1", "http://example.com/live.m3u8"]
    images = ["https://example.com/a.jpg", "http://example.com/", "udp://camera"]
    assert split_inputs([*images, *videos], lambda path: False) == (images, videos)

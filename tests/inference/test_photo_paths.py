from pathlib import Path

import pytest

from posedy.images import image_paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", "[1].jpg", "sub/c.jpeg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def test_a_folder_is_the_photos_in_it_sorted(folder: Path) -> None:
    assert image_paths([str(folder)]) == [folder / "[1].jpg", folder / "a.png", folder / "b.JPG"]


def test_patterns_files_and_order(folder: Path) -> None:
    assert image_paths([f"{folder}/*.png"]) == [folder / "a.png"]
    assert image_paths([f"{folder}/**/*"]) == sorted(
        [folder / "[1].jpg", folder / "a.png", folder / "b.JPG", folder / "sub" / "c.jpeg"]
    )
    # a file is taken as it is, whatever its suffix or the brackets in its name
    files = [folder / "notes.txt", folder / "[1].jpg"]
    assert image_paths([str(file) for file in files]) == files


def test_each_photo_comes_once(folder: Path) -> None:
    assert image_paths([str(folder / "b.JPG"), f"{folder}/sub/../b.JPG", str(folder)]) == [
        folder / "b.JPG",
        folder / "[1].jpg",
        folder / "a.png",
    ]


def test_arguments_without_photos_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no photo directly in it \(looked for \.jpg"):
        image_paths([str(folder), str(tmp_path / "empty")])
    with pytest.raises(ValueError, match=r"no photo matches .*\*\.bmp"):
        image_paths([f"{folder}/*.bmp"])
    with pytest.raises(ValueError, match=r"no photo or folder at .*absent\.jpg"):
        image_paths([str(tmp_path / "absent.jpg")])


def test_an_empty_word_is_not_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=r"a word for photos is empty: .* '\.' is the current folder"):
        image_paths(["a.png", ""])

"""Sorting of labeled images into folders of classes."""

import json
from pathlib import Path

import pytest

from tools.lab.class_folders import main, split_of_class


def test_a_fifth_of_each_class_is_for_validation_and_a_tenth_for_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [{"id": index, "file_name": f"{index}.jpg", "action": "ab"[index % 2]} for index in range(80)]
    (tmp_path / "images").mkdir()
    for image in images:
        (tmp_path / "images" / image["file_name"]).write_text(image["file_name"])
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images[::-1]}))
    main([str(tmp_path / "boxes.json"), str(tmp_path / "images"), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out == "train 56, dev 8, val 16\n"
    found = {path.name: path.parent.name for path in (tmp_path / "out").rglob("*.jpg")}
    assert found == {image["file_name"]: image["action"] for image in images}
    assert sorted(path.name for path in (tmp_path / "out/val/a").iterdir()) == sorted(
        f"{index}.jpg" for index in range(8, 80, 10)
    )


def test_the_first_classes_can_be_selected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": index, "file_name": f"{index}.jpg", "action": "cab"[index % 3]} for index in range(30)]
    for image in images:
        (tmp_path / image["file_name"]).touch()
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images}))
    arguments = [str(tmp_path / "boxes.json"), str(tmp_path), "--out", str(tmp_path / "out"), "--classes"]
    main([*arguments, "2"])
    assert capsys.readouterr().out == "train 14, dev 2, val 4\n"
    assert {path.name for path in (tmp_path / "out/train").iterdir()} == {"a", "b"}
    arguments[3] = str(tmp_path / "other")
    for number in ("0", "4"):
        with pytest.raises(ValueError, match="1 to 3 classes"):
            main([*arguments, number])


def test_small_classes_have_training_images() -> None:
    assert split_of_class(1) == ["train"]
    assert split_of_class(5) == ["train"] * 4 + ["val"]


def test_a_missing_label_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps({"images": [{"id": 7, "file_name": "a.jpg"}]}))
    with pytest.raises(ValueError, match="image 7 has no 'sport'"):
        main([str(tmp_path / "boxes.json"), str(tmp_path), "--key", "sport", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([{"id": 1, "action": "run"}], "an image has no 'file_name'"),
        ([{"id": 1, "file_name": "1.jpg", "action": "run/jump"}], "image 1: action 'run/jump' cannot be the name"),
        ([{"id": 1, "file_name": "1.jpg", "action": ""}], "image 1: action '' cannot be the name"),
        (
            [{"id": index, "file_name": f"{index}/a.jpg", "action": "run"} for index in range(2)],
            "2 images of the class 'run' have the file name a.jpg",
        ),
        (None, "expected a file in COCO's format"),
    ],
)
def test_labels_that_would_lose_images_are_errors(tmp_path: Path, images: object, message: str) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images}))
    with pytest.raises(ValueError, match=message):
        main([str(tmp_path / "boxes.json"), str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_images_of_an_earlier_call_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps({"images": []}))
    with pytest.raises(ValueError, match="is not empty: choose another --out"):
        main([str(tmp_path / "boxes.json"), str(tmp_path), "--out", str(tmp_path)])

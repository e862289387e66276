"""Conversion of imported persons to COCO: EXIF orientation, boxes, keypoint names, and detection of formats."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posedy.data.imports import ImportFileError, detect_format, read_export, to_coco
from posedy.data.orientation import read_header
from posedy.geometry import xywh_to_xyxy

from .writers import (
    EXAMPLE,
    NAMES,
    MadeImage,
    MadePerson,
    csv_rows,
    deeplabcut_rows,
    write_cvat,
    write_images,
    write_label_studio,
    write_labelme,
    write_rows,
)

PERSON = MadePerson({"nose": (10.0, 20.0, 2), "left_wing": (30.0, 5.0, 1)}, (5.0, 2.0, 40.0, 25.0))


def save_rotated(folder: Path, orientation: int, size: tuple[int, int]) -> Path:
    folder.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", size).save(folder / "a.jpg", exif=exif)
    return folder


@pytest.mark.parametrize("orientation", range(1, 9))
def test_coordinates_of_the_upright_image_are_converted_to_pixels_as_stored(orientation: int, tmp_path: Path) -> None:
    images = save_rotated(tmp_path / "images", orientation, (48, 64))
    header = read_header(images / "a.jpg")
    source = write_cvat(tmp_path / "annotations.xml", [MadeImage("a.jpg", header.upright_size, (PERSON,))])
    converted = to_coco(read_export(source, "cvat"), images)
    (image,), (person,) = converted.content["images"], converted.content["annotations"]
    assert (image["width"], image["height"]) == (48, 64)
    keypoints = np.reshape(person["keypoints"], (-1, 3))[:2]
    upright = header.to_upright(keypoints[:, :2], pixel_centers=True)
    np.testing.assert_allclose(upright, [[10, 20], [30, 5]], atol=1e-6)
    corners = xywh_to_xyxy(np.array([person["bbox"]])).reshape(2, 2)
    upright = np.sort(header.to_upright(corners, pixel_centers=False), axis=0)
    np.testing.assert_allclose(upright.ravel(), PERSON.box, atol=1e-6)
    assert any("EXIF" in note for note in converted.notes) == (orientation != 1)


@pytest.mark.parametrize("format", ["cvat", "csv"])
def test_coordinates_as_stored_are_kept(format: str, tmp_path: Path) -> None:
    images = save_rotated(tmp_path / "images", 6, (64, 48))
    made = [MadeImage("a.jpg", (64, 48), (PERSON,))]
    if format == "cvat":  # the recorded size is the stored one
        source = write_cvat(tmp_path / "annotations.xml", made)
    else:
        source = write_rows(tmp_path / "a.csv", csv_rows(made))
    content = to_coco(read_export(source, format), images).content
    assert content["annotations"][0]["keypoints"][:6] == [10, 20, 2, 30, 5, 1]
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (64, 48)


def test_keypoints_may_be_outside_by_one_percent(tmp_path: Path) -> None:
    for x, is_valid in ((-0.9, True), (100.9, True), (-1.1, False), (101.1, False)):
        made = MadeImage("a.jpg", (100, 50), (MadePerson({"nose": (x, 50.2, 2)}),))
        imported = read_export(write_cvat(tmp_path / "annotations.xml", [made]), "cvat")
        if not is_valid:
            with pytest.raises(ImportFileError, match="nose"):
                to_coco(imported)
            continue
        (person,) = to_coco(imported).content["annotations"]
        assert person["keypoints"][0] == x
        assert min(person["bbox"][2:]) > 0


def test_given_names_set_the_order(tmp_path: Path) -> None:
    imported = read_export(write_cvat(tmp_path / "annotations.xml", EXAMPLE), "cvat")
    converted = to_coco(imported, keypoints=["right_wing", "tail", "nose", "left_wing"])
    category = converted.content["categories"][0]
    assert category["keypoints"] == ["right_wing", "tail", "nose", "left_wing"]
    assert sorted(category["skeleton"]) == [[3, 1], [3, 4]]
    first = converted.content["annotations"][0]["keypoints"]
    assert first == [20, 50, 2, 0, 0, 0, 40.5, 30.25, 2, 60, 50, 1]
    assert any("tail" in note for note in converted.notes)
    with pytest.raises(ImportFileError, match="'left_wing'"):
        to_coco(imported, keypoints=["right_wing", "nose"])


def test_formats_are_detected_by_content(tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    assert detect_format(tmp_path / "coco.json") == "coco"
    assert detect_format(write_label_studio(tmp_path / "export.json", EXAMPLE)) == "label-studio"
    assert detect_format(write_labelme(tmp_path / "labels", EXAMPLE) / "a.json") == "labelme"
    assert detect_format(tmp_path / "labels") == "labelme"
    assert detect_format(write_rows(tmp_path / "a.csv", csv_rows(EXAMPLE))) == "csv"
    assert detect_format(tmp_path / "task.zip") == "cvat"
    assert detect_format(tmp_path / "data.yaml") == "yolo"
    (tmp_path / "labels/data.yaml").write_text("{}")
    assert detect_format(tmp_path / "labels") == "yolo"
    for name in ("other.json", "broken.json"):
        with pytest.raises(ImportFileError, match=name):
            detect_format(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        detect_format(tmp_path / "nowhere.json")


def test_names_out_of_the_folder_are_not_used(tmp_path: Path) -> None:
    made = [MadeImage("../../a.jpg", (100, 50), (PERSON,)), MadeImage("/b.jpg", (100, 50), (PERSON,))]
    content = to_coco(read_export(write_cvat(tmp_path / "annotations.xml", made), "cvat")).content
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    assert content["categories"][0]["keypoints"] == list(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["annotations.xml", "CollectedData_me.csv", "table.csv"])
def test_damaged_text_is_converted_or_gives_an_error(name: str, tmp_path: Path) -> None:
    write_images(tmp_path / "labeled-data/video", EXAMPLE)
    write_images(tmp_path, EXAMPLE)
    path = tmp_path / name
    rows = deeplabcut_rows(EXAMPLE) if name.startswith("Collected") else csv_rows(EXAMPLE)
    text = (write_cvat(path, EXAMPLE) if name.endswith("xml") else write_rows(path, rows)).read_text()
    rng, errors = random.Random(0), 0
    for _ in range(300):
        start = rng.randrange(len(text))
        stop = start + rng.choice((0, 1, 1, 3, 10, 60))
        inserted = rng.choice(("", "", ",", "\n", '"', "-", "9", "e9", "x", "\0", "é", text[start : start + 40] * 2))
        path.write_text(text[:start] + inserted + text[stop:], encoding="utf-8")
        try:
            json.dumps(to_coco(read_export(path, detect_format(path))).content, allow_nan=False)
        except ImportFileError:
            errors += 1
    assert 0 < errors < 300

"""Labelme's files: paths, groups, visibility, and invalid files."""

import json
from pathlib import Path
from typing import Any

import pytest

from posedy.data.check import check_coco
from posedy.data.conversion import ConvertedFile
from posedy.data.imports import ImportFileError, detect_format, read_export, to_coco

from ...mutations import mutations
from .writers import EXAMPLE, NAMES, labelme_content, write_images, write_labelme


def convert(folder: Path, *contents: Any, images: Path | None = None, **options: Any) -> ConvertedFile:
    folder = folder / "labels"
    folder.mkdir(exist_ok=True)
    for index, content in enumerate(contents):
        (folder / f"{index}.json").write_text(json.dumps(content), encoding="utf-8")
    return to_coco(read_export(folder, "labelme"), images, **options)


@pytest.fixture
def content() -> dict[str, Any]:
    return labelme_content(EXAMPLE[0])


def of_type(content: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [shape for shape in content["shapes"] if shape["shape_type"] == kind]


def test_image_folder_is_that_of_the_paths(tmp_path: Path) -> None:
    folder, images = write_labelme(tmp_path / "labels", EXAMPLE), write_images(tmp_path / "images", EXAMPLE)
    converted = to_coco(read_export(folder, "labelme"))
    assert converted.image_dir == images
    assert [image["file_name"] for image in converted.content["images"]] == ["a.jpg", "b.jpg"]
    assert not any("not found" in note for note in converted.notes)
    converted = to_coco(read_export(folder, "labelme"), tmp_path)
    assert [image["file_name"] for image in converted.content["images"]] == ["images/a.jpg", "images/b.jpg"]
    moved = images.rename(tmp_path / "moved")
    converted = to_coco(read_export(folder, "labelme"), moved)
    assert [image["file_name"] for image in converted.content["images"]] == ["a.jpg", "b.jpg"]
    converted = to_coco(read_export(folder, "labelme"))
    assert any("2 images were not found" in note for note in converted.notes)
    with pytest.raises(ImportFileError, match=r"0 \(a|a\.jpg"):
        to_coco(read_export(folder, "labelme"), folder)


def test_a_file_next_to_its_image_is_read_alone(tmp_path: Path, content: dict[str, Any]) -> None:
    write_images(tmp_path, EXAMPLE)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content | {"imagePath": "a.jpg"}))
    assert detect_format(path) == "labelme"
    converted = to_coco(read_export(path, "labelme"))
    assert (converted.image_dir, len(converted.content["annotations"])) == (tmp_path, 2)


def test_names_have_the_order_of_the_sorted_files(tmp_path: Path, content: dict[str, Any]) -> None:
    other = labelme_content(EXAMPLE[1])
    assert convert(tmp_path, content, other).content["categories"][0]["keypoints"] == list(NAMES)
    names = convert(tmp_path, other, content).content["categories"][0]["keypoints"]
    assert names == ["nose", "right_wing", "left_wing"]


def test_names_of_coco_have_the_order_of_coco(tmp_path: Path) -> None:
    from posedy.skeleton import COCO17

    content = labelme_content(EXAMPLE[0])
    content["shapes"] = [
        {"label": name, "points": [[10 + i, 20 + i]], "shape_type": "point", "group_id": None}
        for i, name in enumerate(reversed(COCO17.keypoints))
    ]
    category = convert(tmp_path, content).content["categories"][0]
    assert category["keypoints"] == list(COCO17.keypoints)
    assert len(category["skeleton"]) == len(COCO17.limbs)


@pytest.mark.parametrize(
    ("changes", "v"),
    [
        ({}, 2),
        ({"flags": {"occluded": True}}, 1),
        ({"flags": {"hidden": True}}, 1),
        ({"flags": {"blurry": True}}, 2),
        ({"flags": None, "description": None}, 2),
        ({"description": "occluded"}, 1),
        ({"description": "1"}, 1),
        ({"description": "0"}, 0),
        ({"description": "the left one"}, 2),
    ],
)
def test_visibility(changes: dict[str, Any], v: int, tmp_path: Path, content: dict[str, Any]) -> None:
    point = of_type(content, "point")[0]
    point["flags"] = {}
    point |= changes
    keypoints = convert(tmp_path, content, keypoints=NAMES).content["annotations"][0]["keypoints"]
    assert keypoints[:3] == ([40.5, 30.25, v] if v else [0, 0, 0])


def test_shapes_without_groups(tmp_path: Path, content: dict[str, Any]) -> None:
    expected = convert(tmp_path, content).content
    for shape in content["shapes"]:
        shape["group_id"] = None
    assert convert(tmp_path, content).content == expected  # each point is in one box
    other = labelme_content(EXAMPLE[1])
    for shape in other["shapes"]:
        shape["group_id"] = None
    assert len(convert(tmp_path, other).content["annotations"]) == 1
    of_type(content, "point")[0]["points"] = [[85, 10]]
    with pytest.raises(ImportFileError, match=r"0\.json: shape 2 \(nose\): in 0 of 2 boxes"):
        convert(tmp_path, content)


def test_a_loose_box_belongs_to_the_keypoints_in_it(tmp_path: Path, content: dict[str, Any]) -> None:
    expected = convert(tmp_path, content).content
    for shape in of_type(content, "rectangle"):
        shape["group_id"] = None
    found = convert(tmp_path, content).content
    assert [record["bbox"] for record in found["annotations"]] == [a["bbox"] for a in expected["annotations"]]


def test_an_oriented_rectangle_is_the_box_around_its_corners(tmp_path: Path) -> None:
    """The file is one that Labelme 6.3.1 wrote after clicks in its window, trimmed and with rounded numbers."""
    common = {"group_id": 3, "description": "", "flags": {"occluded": False, "blurry": False}, "mask": None}
    corners = [[89.91, 9.85], [109.81, 11.96], [107.9, 29.97], [88.0, 27.86]]
    content = {
        "version": "6.3.1",
        "flags": {"blurry": False},
        "shapes": [
            {"label": "person", "points": corners, "shape_type": "oriented_rectangle", **common, "flags": {}},
            {"label": "nose", "points": [[99.97, 19.91]], "shape_type": "point", **common},
        ],
        "imagePath": "../images/a.jpg",
        "imageData": None,
        "imageHeight": 120,
        "imageWidth": 160,
    }
    converted = convert(tmp_path, content)
    (person,) = converted.content["annotations"]
    assert person["bbox"] == pytest.approx([88.0, 9.85, 21.81, 20.12])
    assert person["keypoints"] == [99.97, 19.91, 2]
    assert not any(converted.left_out.values())


def test_other_labels_shapes_and_files_are_left_out(tmp_path: Path, content: dict[str, Any]) -> None:
    group = {"group_id": 9, "flags": {}}
    content["shapes"] += [
        {"label": "dog", "points": [[1, 2], [30, 40]], "shape_type": "rectangle", **group},
        {"label": "tail", "points": [[10, 20]], "shape_type": "point", **group},
        {"label": "road", "points": [[1, 2], [3, 4], [5, 6]], "shape_type": "polygon", **group},
    ]
    converted = convert(tmp_path, content, {"images": []})
    assert converted.content["categories"][0]["keypoints"] == list(NAMES)
    assert {reason: count for reason, count in converted.left_out.items() if count} == {
        "of other labels": 1,
        "shapes of type polygon": 1,
        "other JSON files": 1,
    }
    assert convert(tmp_path, content, label="dog").content["categories"][0]["keypoints"] == ["tail"]
    with pytest.raises(ImportFileError, match="'dog'"):
        convert(tmp_path, content, label="dogs")


def test_a_box_without_keypoints_is_a_person_without_them(tmp_path: Path, content: dict[str, Any]) -> None:
    content["shapes"] = [shape for shape in content["shapes"] if shape["group_id"] == 1 or len(shape["points"]) == 2]
    records = convert(tmp_path, content).content["annotations"]
    assert sorted(record["num_keypoints"] for record in records) == [0, 3]


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        ("point", {"points": [[float("nan"), 1]]}, "nan"),
        ("point", {"points": [["a", 1]]}, "'a'"),
        ("point", {"points": [[1]]}, "[[1]]"),
        ("point", {"points": []}, "points []"),
        ("point", {"points": [[1, 2], [3, 4]]}, "got 2"),
        ("point", {"points": [[400, 2]]}, "x 400"),
        ("point", {"label": ""}, "label"),
        ("point", {"label": "left_wing"}, "duplicate"),
        ("point", {"label": "beak"}, "'beak'"),
        ("point", {"group_id": [1]}, "group_id [1]"),
        ("rectangle", {"points": [[1, 2], [1, 30]]}, "invalid box"),
        ("rectangle", {"points": [[1, 2]]}, "got 1"),
        ("rectangle", {"group_id": 2}, "several boxes"),
    ],
)
def test_an_error_names_the_file_and_the_shape(
    kind: str, changes: dict[str, Any], text: str, tmp_path: Path, content: dict[str, Any]
) -> None:
    shape = of_type(content, kind)[0]
    shape |= changes
    with pytest.raises(ImportFileError) as caught:
        convert(tmp_path, content, keypoints=NAMES)
    message = str(caught.value)
    assert text in message
    assert f"{tmp_path / 'labels/0.json'}: shape {content['shapes'].index(shape) + 1}" in message


def test_missing_size_is_read_from_the_image(tmp_path: Path, content: dict[str, Any]) -> None:
    content["imageWidth"] = content["imageHeight"] = None
    with pytest.raises(ImportFileError, match=r"without a size.*0\.json.*--images"):
        convert(tmp_path, content)
    images = write_images(tmp_path / "images", EXAMPLE)
    (image,) = convert(tmp_path, content, images=images).content["images"]
    assert (image["width"], image["height"]) == (160, 120)


def test_an_image_of_another_size_is_an_error(tmp_path: Path, content: dict[str, Any]) -> None:
    images = write_images(tmp_path / "images", EXAMPLE)
    content["imageWidth"] = 170
    with pytest.raises(ImportFileError, match="recorded 170 x 120, file 160 x 120"):
        convert(tmp_path, content, images=images)


def test_two_files_of_one_image_are_an_error(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(ImportFileError, match=r"a\.jpg: .*0\.json, .*1\.json"):
        convert(tmp_path, content, content)


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON", "", "\x00\x01"])
def test_other_files_give_one_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(ImportFileError, match=r"labels\.json"):
        read_export(path, "labelme")
    with pytest.raises(ImportFileError, match=tmp_path.name):
        read_export(tmp_path, "labelme")


@pytest.mark.slow
def test_mutated_files_are_converted_or_give_an_error(tmp_path: Path, content: dict[str, Any]) -> None:
    errors = 0
    for mutated in mutations(content, 300, seed=1):
        try:
            converted = convert(tmp_path, mutated)
        except ImportFileError:
            errors += 1
        else:
            path = tmp_path / "out.json"
            path.write_text(json.dumps(converted.content))
            check_coco(path)
    assert 0 < errors < 300

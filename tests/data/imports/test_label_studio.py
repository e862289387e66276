"""Label Studio's JSON: file names, groups, rotations, several annotations, and invalid files."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posedy.data.conversion import ConvertedFile
from posedy.data.imports import ImportFileError, read_export, to_coco
from posedy.data.imports.label_studio import image_names

from ...mutations import mutations
from .writers import EXAMPLE, NAMES, label_studio_tasks, write_images


def convert(folder: Path, tasks: Any, images: Path | None = None, **options: Any) -> ConvertedFile:
    path = folder / "export.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return to_coco(read_export(path, "label-studio"), images, **options)


@pytest.fixture
def tasks() -> list[dict[str, Any]]:
    return label_studio_tasks(EXAMPLE)


def regions(tasks: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [region for region in tasks[0]["annotations"][0]["result"] if region["type"] == kind]


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        ("/data/upload/1/0123abcd-a.jpg", ("a.jpg", "0123abcd-a.jpg")),
        ("/data/upload/12/0123abcd-my%20image.png", ("my image.png", "0123abcd-my image.png")),
        ("0123abcd-a.jpg", ("a.jpg", "0123abcd-a.jpg")),
        ("/data/local-files/?d=set/day1/a.jpg", ("set/day1/a.jpg", "day1/a.jpg", "a.jpg")),
        ("/data/local-files/?d=set%5Cday1%5Ca.jpg", ("set/day1/a.jpg", "day1/a.jpg", "a.jpg")),
        ("s3://bucket/set/a.jpg", ("a.jpg", "set/a.jpg")),
        ("https://example.com/", ()),
        ("https://example.com/0123abcd-a.jpg?token=1", ("0123abcd-a.jpg",)),
        ("https://example.com/images/0123abcd-a.jpg", ("0123abcd-a.jpg", "images/0123abcd-a.jpg")),
        ("/data/local-files/?d=../../a.jpg", ("a.jpg",)),
    ],
)
def test_names_of_images(reference: str, names: tuple[str, ...]) -> None:
    assert image_names(reference) == names


@pytest.mark.parametrize("prefix", ["", "00000001-"])
def test_the_image_file_decides_about_the_prefix(prefix: str, tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", EXAMPLE)
    (images / "a.jpg").rename(images / f"{prefix}a.jpg")
    converted = convert(tmp_path, tasks, images)
    assert [image["file_name"] for image in converted.content["images"]] == [f"{prefix}a.jpg", "b.jpg"]


def test_a_relation_groups_as_a_parent_does(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    expected = convert(tmp_path, tasks).content
    result = tasks[0]["annotations"][0]["result"]
    for region in list(result):
        if parent := region.pop("parentID", None):
            result.append({"type": "relation", "from_id": parent, "to_id": region["id"], "direction": "right"})
    assert convert(tmp_path, tasks).content == expected
    result[:] = [region for region in result if region["type"] != "relation"]  # each is in one box only
    assert convert(tmp_path, tasks).content == expected
    for region in regions(tasks, "rectanglelabels"):
        region["value"] |= {"x": 0, "y": 0, "width": 100, "height": 100}
    with pytest.raises(ImportFileError, match=r"task 1 \(a\.jpg\), region 0nose.*in 2 of 2 boxes"):
        convert(tmp_path, tasks)


def test_order_of_the_names_is_that_of_their_first_appearance(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    converted = convert(tmp_path, tasks)
    assert converted.content["categories"][0]["keypoints"] == list(NAMES)
    assert any("--keypoints nose,left_wing,right_wing" in note for note in converted.notes)
    tasks[0]["annotations"][0]["result"].reverse()
    converted = convert(tmp_path, tasks)
    assert converted.content["categories"][0]["keypoints"] == ["left_wing", "nose", "right_wing"]


def test_a_rotated_rectangle_is_the_box_around_its_corners(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    width, height = EXAMPLE[0].size
    box = regions(tasks, "rectanglelabels")[0]["value"]
    # a box of 100 x 30 pixels, turned by 90 degrees about its corner at (80, 10)
    box |= {"x": 80 / width * 100, "y": 10 / height * 100, "rotation": 90}
    box |= {"width": 100 / width * 100, "height": 30 / height * 100}
    bbox = convert(tmp_path, tasks).content["annotations"][0]["bbox"]
    np.testing.assert_allclose(bbox, [50, 10, 30, 100], atol=1e-6)


@pytest.mark.parametrize("degrees", [30, -20])
def test_a_rectangle_is_rotated_clockwise_about_its_first_corner(
    tasks: list[dict[str, Any]], tmp_path: Path, degrees: float
) -> None:
    width, height = EXAMPLE[0].size
    box = regions(tasks, "rectanglelabels")[0]["value"]
    box |= {"x": 60 / width * 100, "y": 40 / height * 100, "rotation": degrees}
    box |= {"width": 50 / width * 100, "height": 20 / height * 100}
    bbox = convert(tmp_path, tasks).content["annotations"][0]["bbox"]
    along = 50 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])  # y points down
    across = 20 * np.array([-np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])
    corners = np.array([60, 40]) + np.stack([0 * along, along, across, along + across])
    np.testing.assert_allclose(bbox, [*corners.min(axis=0), *np.ptp(corners, axis=0)], atol=1e-6)


def test_a_turned_view_changes_nothing_but_is_noted(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    expected = convert(tmp_path, tasks).content
    for region in tasks[0]["annotations"][0]["result"]:
        region["image_rotation"] = 90
    converted = convert(tmp_path, tasks)
    assert converted.content == expected
    assert any("image_rotation" in note for note in converted.notes)


def test_what_is_left_out_is_counted(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    first = tasks[0]["annotations"][0]
    expected = convert(tmp_path, tasks).content
    tasks[0]["annotations"] = [
        {**first, "was_cancelled": True},
        {**first, "result": []},
        {**first, "ground_truth": True},
    ]
    first["result"].append({"id": "p", "type": "polygonlabels", "value": {}})
    tasks.append({"id": 3, "data": {"image": "c.jpg"}, "annotations": []})
    tasks.append({"id": 4, "data": {"image": "d.jpg"}, "annotations": [{"result": []}]})
    converted = convert(tmp_path, tasks)
    assert converted.content == expected
    assert {reason: count for reason, count in converted.left_out.items() if count} == {
        "skipped annotations": 1,
        "further annotations of a task": 1,
        "tasks without an annotation": 1,
        "regions of type polygonlabels": 1,
        "images without persons and without a size": 1,
    }


def change(tasks: list[dict[str, Any]], kind: str, **values: Any) -> None:
    region = regions(tasks, kind)[0]
    for key, value in values.items():
        target = region["value"] if key in region["value"] else region
        target[key] = value


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        ("keypointlabels", {"x": float("nan")}, "nan"),
        ("keypointlabels", {"y": None}, "None"),
        ("keypointlabels", {"x": 140}, "x 224"),
        ("keypointlabels", {"keypointlabels": []}, "keypointlabels"),
        ("keypointlabels", {"keypointlabels": ["left_wing"]}, "duplicate"),
        ("keypointlabels", {"original_width": 100}, "several sizes"),
        ("rectanglelabels", {"width": 0}, "invalid box"),
        ("rectanglelabels", {"x": 200}, "box outside"),
        ("rectanglelabels", {"rectanglelabels": ["person", "dog"]}, "rectanglelabels"),
        ("rectanglelabels", {"value": []}, "None"),
        ("rectanglelabels", {"rotation": float("inf")}, "inf"),
    ],
)
def test_an_error_names_the_task_and_the_region(
    kind: str, values: dict[str, Any], text: str, tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    change(tasks, kind, **values)
    with pytest.raises(ImportFileError) as caught:
        convert(tmp_path, tasks)
    message = str(caught.value)
    assert text in message
    assert "task 1 (a.jpg)" in message
    assert str(tmp_path / "export.json") in message


def test_a_group_with_two_boxes_is_an_error(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    regions(tasks, "rectanglelabels")[1]["parentID"] = "box0"
    with pytest.raises(ImportFileError, match=r"region box1 and .*region box0"):
        convert(tmp_path, tasks)


def test_missing_size_is_an_error(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    for region in tasks[0]["annotations"][0]["result"]:
        region.pop("original_width", None)
    with pytest.raises(ImportFileError, match=r"task 1 \(a\.jpg\): original_width"):
        convert(tmp_path, tasks)


@pytest.mark.parametrize(
    "content", [[], [{"image": "a.jpg", "kp-1": [{"x": 1, "y": 2}]}], {"tasks": []}, [1], [{"data": {"text": "a"}}]]
)
def test_other_files_give_one_error(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match=r"export\.json"):
        convert(tmp_path, content)


@pytest.mark.slow
def test_mutated_files_are_converted_or_give_an_error(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    errors = 0
    for mutated in mutations(tasks, 300, seed=0):
        try:
            convert(tmp_path, copy.deepcopy(mutated))
        except ImportFileError:
            errors += 1
    assert 0 < errors < 300

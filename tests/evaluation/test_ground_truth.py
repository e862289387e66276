import copy
import json

import numpy as np
import pytest

from posedy.data.coco import GroundTruth, read_coco
from posedy.data.coco_file import CocoFile
from posedy.data.findings import CocoFileError


def test_the_truth_is_a_checked_copy(annotations):
    before = copy.deepcopy(annotations)
    truth = GroundTruth.from_coco(annotations)
    assert truth.num_keypoints == 17
    assert truth.image_ids == tuple(range(10, 130, 10))
    assert [person["id"] for person in truth.annotations] == list(range(1, len(truth.annotations) + 1))
    for person, original in zip(truth.annotations, annotations["annotations"], strict=True):
        assert all(person[key] == original[key] for key in person if key != "id")
        person["area"] = -1
    assert annotations == before


def test_only_labeled_persons_that_are_no_crowd_count(annotations):
    truth = GroundTruth.from_coco(annotations)
    kinds = {(person["num_keypoints"] > 0, person["iscrowd"]) for person in truth.annotations}
    assert kinds == {(True, 0), (False, 0), (True, 1), (False, 1)}
    assert {(person["num_keypoints"] > 0, person["iscrowd"]) for person in truth.labeled} == {(True, 0)}


def test_a_file_and_its_content_are_the_same_truth(annotations, tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations))
    truth = GroundTruth.from_coco(path)
    assert truth.source == str(path)
    assert truth.annotations == GroundTruth.from_coco(annotations).annotations


def test_missing_num_keypoints_are_counted(annotations):
    expected = GroundTruth.from_coco(annotations).annotations
    for person in annotations["annotations"]:
        del person["num_keypoints"]
    assert GroundTruth.from_coco(annotations).annotations == expected


def test_other_categories_and_annotations_without_an_image_are_left_out(annotations):
    expected = GroundTruth.from_coco(annotations).annotations
    annotations["categories"].append({"id": 18, "name": "dog"})
    annotations["annotations"][:0] = [
        {"id": 1, "image_id": 10, "category_id": 18, "bbox": [0, 0, 5, 5]},
        {**annotations["annotations"][0], "image_id": 99999},
    ]
    with pytest.warns(
        UserWarning, match="1 annotations are left out, of 1 images that 'images' does not list, such as 99999"
    ):
        truth = GroundTruth.from_coco(annotations)
    assert truth.annotations == expected
    assert truth.category_ids == {1, 18}


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("area", ..., "no area"),
        ("iscrowd", ..., "no iscrowd"),
        ("bbox", ..., "no bbox"),
        ("keypoints", ..., "no keypoints"),
        ("image_id", ..., "no image_id"),
        ("image_id", [10], "image_id [10]"),
        ("keypoints", [0] * 48, "write 51 numbers"),
        ("keypoints", [[0, 0, 0]] * 17, "keypoints [[0, 0, 0]"),
        ("keypoints", [[0, 0], [0]], "keypoints [[0, 0], [0]]"),
        ("keypoints", [float("nan")] * 51, "nose x nan"),
        ("keypoints", [1.0, 2.0, float("nan")] * 17, "v nan"),
        ("bbox", [0, 0, 5], "bbox [0, 0, 5]"),
        ("bbox", [0, 0, 5, float("inf")], "bbox [0, 0, 5, inf]"),
        ("area", None, "area None"),
        ("area", -3.0, "area -3"),
        ("area", float("nan"), "area nan"),
        ("iscrowd", "no", "iscrowd 'no'"),
        ("keypoints", [5.0, 5.0, 0] * 17, "v is 0 everywhere"),
        ("num_keypoints", None, "num_keypoints None"),
        ("num_keypoints", 2.5, "num_keypoints 2.5"),
        ("num_keypoints", float("inf"), "num_keypoints inf"),
        ("num_keypoints", -1, "num_keypoints -1"),
        ("num_keypoints", True, "num_keypoints True"),
    ],
)
def test_a_bad_annotation_is_named(annotations, key, value, word):
    annotation = annotations["annotations"][3]
    if value is ...:
        del annotation[key]
    else:
        annotation[key] = value
    with pytest.raises(CocoFileError) as caught:
        GroundTruth.from_coco(annotations)
    assert f"annotation {annotation['id']}" in str(caught.value)
    assert word in str(caught.value)


def test_all_bad_annotations_are_named_at_once(annotations):
    first, second = annotations["annotations"][3:5]
    first["area"] = -1
    del second["bbox"]
    with pytest.raises(CocoFileError) as caught:
        GroundTruth.from_coco(annotations)
    assert len(caught.value.findings) == 2
    for annotation in (first, second):
        assert f"annotation {annotation['id']} of {annotation['image_id']:012d}.jpg" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, ["'images' is None"]),
        ({"annotations": [3]}, ["annotations[0] is 3"]),
        ({"annotations": [{"category_id": 1}]}, ["no image_id"]),
        ({"images": [{"id": [1]}]}, ["id [1]"]),
        ({"images": [{"id": 1}, {"id": "a"}]}, ["id 'a'", "all integers or all text"]),
        ({"categories": []}, ["'categories' is empty"]),
        ({"categories": [{"id": 1, "name": "person"}]}, ["'person'", "person_keypoints"]),
        (
            {"categories": [{"id": i, "name": name, "keypoints": ["nose"]} for i, name in enumerate("ab")]},
            ["'a', 'b'"],
        ),
    ],
)
def test_a_bad_file_is_named(annotations, tmp_path, changes, words):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({**annotations, **changes}))
    with pytest.raises(CocoFileError) as caught:
        GroundTruth.from_coco(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_file_that_is_no_dictionary_is_named(tmp_path):
    path = tmp_path / "annotations.json"
    for content, word in (("not JSON", "not JSON"), ("[]", "holds a list")):
        path.write_text(content)
        with pytest.raises(CocoFileError, match=word) as caught:
            GroundTruth.from_coco(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        GroundTruth.from_coco(tmp_path / "none.json")


def test_a_file_is_read_once_for_persons_and_ground_truth(drawn, monkeypatch):
    path = drawn / "annotations/person_keypoints_val2017.json"
    file = CocoFile.read(path)
    monkeypatch.setattr("posedy.data.coco_file.load_json", None)
    persons, truth = read_coco(file, drawn / "val2017"), GroundTruth.from_coco(file)
    monkeypatch.undo()
    assert persons.fingerprint == read_coco(path).fingerprint
    assert truth == GroundTruth.from_coco(path)
    assert len(truth.labeled) == len(persons)


def test_content_in_memory_may_hold_arrays(annotations):
    expected = GroundTruth.from_coco(annotations)
    for annotation in annotations["annotations"]:
        annotation["keypoints"] = np.array(annotation["keypoints"])
        annotation["bbox"] = tuple(annotation["bbox"])
        annotation["image_id"] = np.int64(annotation["image_id"])
    truth = GroundTruth.from_coco(annotations)
    assert [person["keypoints"].tolist() for person in truth.annotations] == [
        person["keypoints"] for person in expected.annotations
    ]


def test_whole_numbers_written_with_a_point_are_counts(annotations):
    for person in annotations["annotations"]:
        person["num_keypoints"] = float(person["num_keypoints"])
    assert GroundTruth.from_coco(annotations).labeled

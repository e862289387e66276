import copy
import json
import re

import numpy as np
import pytest

import posedy
from posedy.data.coco import GroundTruth, read_coco
from posedy.data.coco_file import CocoFile
from posedy.data.issues import CocoFileError


def test_ground_truth_is_a_validated_copy(annotations):
    before = copy.deepcopy(annotations)
    gt = GroundTruth.from_coco(annotations)
    assert gt.num_keypoints == 17
    assert gt.image_ids == tuple(range(10, 130, 10))
    assert [person["id"] for person in gt.annotations] == list(range(1, len(gt.annotations) + 1))
    for person, original in zip(gt.annotations, annotations["annotations"], strict=True):
        assert all(person[key] == original[key] for key in person if key != "id")
        person["area"] = -1
    assert annotations == before


def test_labeled_excludes_crowds_and_unlabeled_persons(annotations):
    gt = GroundTruth.from_coco(annotations)
    kinds = {(person["num_keypoints"] > 0, person["iscrowd"]) for person in gt.annotations}
    assert kinds == {(True, 0), (False, 0), (True, 1), (False, 1)}
    assert {(person["num_keypoints"] > 0, person["iscrowd"]) for person in gt.labeled} == {(True, 0)}


def test_file_and_content_give_equal_ground_truth(annotations, tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations))
    gt = GroundTruth.from_coco(path)
    assert gt.source == str(path)
    assert gt.annotations == GroundTruth.from_coco(annotations).annotations


def test_missing_num_keypoints_is_counted(annotations):
    expected = GroundTruth.from_coco(annotations).annotations
    for person in annotations["annotations"]:
        del person["num_keypoints"]
    assert GroundTruth.from_coco(annotations).annotations == expected


def test_other_categories_and_annotations_without_image_are_skipped(annotations):
    expected = GroundTruth.from_coco(annotations).annotations
    annotations["categories"].append({"id": 18, "name": "dog"})
    annotations["annotations"][:0] = [
        {"id": 1, "image_id": 10, "category_id": 18, "bbox": [0, 0, 5, 5]},
        {**annotations["annotations"][0], "image_id": 99999},
    ]
    with pytest.warns(UserWarning, match="99999"):
        gt = GroundTruth.from_coco(annotations)
    assert gt.annotations == expected
    assert gt.category_ids == {1, 18}


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("area", ..., "no area"),
        ("bbox", ..., "no bbox"),
        ("keypoints", ..., "no keypoints"),
        ("image_id", ..., "no image_id"),
        ("image_id", [10], "image_id [10]"),
        ("keypoints", [0] * 48, "51"),
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
        ("num_keypoints", 2.5, "num_keypoints 2.5"),
        ("num_keypoints", float("inf"), "num_keypoints inf"),
        ("num_keypoints", -1, "num_keypoints -1"),
        ("num_keypoints", True, "num_keypoints True"),
    ],
)
def test_invalid_annotation_is_reported_by_id(annotations, key, value, word):
    annotation = annotations["annotations"][3]
    if value is ...:
        del annotation[key]
    else:
        annotation[key] = value
    with pytest.raises(CocoFileError) as caught:
        GroundTruth.from_coco(annotations)
    assert f"annotation {annotation['id']}" in str(caught.value)
    assert word in str(caught.value)


def test_all_invalid_annotations_are_reported(annotations):
    first, second = annotations["annotations"][3:5]
    first["area"] = -1
    del second["bbox"]
    with pytest.raises(CocoFileError) as caught:
        GroundTruth.from_coco(annotations)
    assert len(caught.value.issues) == 2
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
def test_invalid_file_is_reported(annotations, tmp_path, changes, words):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({**annotations, **changes}))
    with pytest.raises(CocoFileError) as caught:
        GroundTruth.from_coco(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("as_text", [False, True])
def test_duplicate_image_ids_are_rejected(annotations, tmp_path, as_text):
    if as_text:
        for record in annotations["images"]:
            record["id"] = f"i{record['id']}"
        for record in annotations["annotations"]:
            record["image_id"] = f"i{record['image_id']}"
    first = annotations["images"][2]
    annotations["images"].append({**first, "file_name": "other.jpg"})
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations))
    for evaluate in (GroundTruth.from_coco, lambda source: posedy.evaluate([], source)):
        with pytest.raises(CocoFileError, match=re.escape(str(path))) as caught:
            evaluate(path)
        assert [issue.kind for issue in caught.value.issues] == ["duplicate image id"]
        assert f"image {first['id']} (other.jpg)" in str(caught.value)
    if not as_text:
        with pytest.raises(CocoFileError, match=rf"image {first['id']} \(other\.jpg\)"):
            read_coco(path)


def test_file_without_dictionary_is_rejected(tmp_path):
    path = tmp_path / "annotations.json"
    for content, word in (("not JSON", "JSON"), ("[]", "list")):
        path.write_text(content)
        with pytest.raises(CocoFileError, match=word) as caught:
            GroundTruth.from_coco(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        GroundTruth.from_coco(tmp_path / "none.json")


def test_file_is_read_once_for_persons_and_ground_truth(synthetic, monkeypatch):
    path = synthetic / "annotations/person_keypoints_val2017.json"
    file = CocoFile.read(path)
    monkeypatch.setattr("posedy.data.coco_file.load_json", None)
    persons, gt = read_coco(file, synthetic / "val2017"), GroundTruth.from_coco(file)
    monkeypatch.undo()
    assert persons.fingerprint == read_coco(path).fingerprint
    assert gt == GroundTruth.from_coco(path)
    assert len(gt.labeled) == len(persons)


def test_content_may_contain_arrays(annotations):
    expected = GroundTruth.from_coco(annotations)
    for annotation in annotations["annotations"]:
        annotation["keypoints"] = np.array(annotation["keypoints"])
        annotation["bbox"] = tuple(annotation["bbox"])
        annotation["image_id"] = np.int64(annotation["image_id"])
    gt = GroundTruth.from_coco(annotations)
    assert [person["keypoints"].tolist() for person in gt.annotations] == [
        person["keypoints"] for person in expected.annotations
    ]


def test_num_keypoints_may_be_a_float(annotations):
    for person in annotations["annotations"]:
        person["num_keypoints"] = float(person["num_keypoints"])
    assert GroundTruth.from_coco(annotations).labeled

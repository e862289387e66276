import copy
import json

import pytest

from posedy.evaluation.truth import KeypointTruth


def test_the_truth_is_a_checked_copy(annotations):
    before = copy.deepcopy(annotations)
    truth = KeypointTruth.from_coco(annotations)
    assert truth.num_keypoints == 17
    assert truth.image_ids == tuple(range(10, 130, 10))
    assert [person["id"] for person in truth.annotations] == list(range(1, len(truth.annotations) + 1))
    for person, original in zip(truth.annotations, annotations["annotations"], strict=True):
        assert all(person[key] == original[key] for key in person if key != "id")
        person["area"] = -1
    assert annotations == before


def test_only_labelled_persons_that_are_no_crowd_count(annotations):
    truth = KeypointTruth.from_coco(annotations)
    kinds = {(person["num_keypoints"] > 0, person["iscrowd"]) for person in truth.annotations}
    assert kinds == {(True, 0), (False, 0), (True, 1), (False, 1)}
    assert {(person["num_keypoints"] > 0, person["iscrowd"]) for person in truth.labelled} == {(True, 0)}


def test_a_file_and_its_content_are_the_same_truth(annotations, tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations))
    truth = KeypointTruth.from_coco(path)
    assert truth.source == str(path)
    assert truth.annotations == KeypointTruth.from_coco(annotations).annotations


def test_missing_num_keypoints_are_counted(annotations):
    expected = KeypointTruth.from_coco(annotations).annotations
    for person in annotations["annotations"]:
        del person["num_keypoints"]
    assert KeypointTruth.from_coco(annotations).annotations == expected


def test_other_categories_and_annotations_without_an_image_are_left_out(annotations):
    expected = KeypointTruth.from_coco(annotations).annotations
    annotations["categories"].append({"id": 18, "name": "dog"})
    annotations["annotations"][:0] = [
        {"id": 1, "image_id": 10, "category_id": 18, "bbox": [0, 0, 5, 5]},
        {**annotations["annotations"][0], "image_id": 99999},
    ]
    with pytest.warns(
        UserWarning, match="1 annotations are left out, of 1 images that 'images' does not list, such as 99999"
    ):
        truth = KeypointTruth.from_coco(annotations)
    assert truth.annotations == expected
    assert truth.category_ids == {1, 18}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("area", ..., "has no 'area'"),
        ("iscrowd", ..., "has no 'iscrowd'"),
        ("bbox", ..., "has no 'bbox'"),
        ("keypoints", ..., "has no 'keypoints'"),
        ("keypoints", [0] * 48, "'keypoints' must be a list of 51 finite numbers"),
        ("keypoints", [[0, 0, 0]] * 17, "'keypoints' must be a list of 51"),
        ("keypoints", [[0, 0], [0]], "'keypoints' must be a list of 51"),
        ("keypoints", [float("nan")] * 51, "'keypoints' must be a list of 51"),
        ("bbox", [0, 0, 5], "'bbox' must be a list of 4 finite numbers"),
        ("area", None, "'area' must be a finite number"),
        ("area", -3.0, "'area' must not be negative"),
        ("iscrowd", "no", "'iscrowd' 0 or 1"),
        ("keypoints", [5.0, 5.0, 0] * 17, "but no keypoint is labelled"),
        ("num_keypoints", None, "'num_keypoints' must be a count"),
        ("num_keypoints", 2.5, "'num_keypoints' must be a count"),
        ("num_keypoints", float("inf"), "'num_keypoints' must be a count"),
    ],
)
def test_a_bad_annotation_is_named(annotations, key, value, message):
    annotation = annotations["annotations"][3]
    if value is ...:
        del annotation[key]
    else:
        annotation[key] = value
    with pytest.raises(ValueError, match=message) as caught:
        KeypointTruth.from_coco(annotations)
    assert f"annotation {annotation['id']}" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "no list under 'images'"),
        ({"annotations": [3]}, "entry 0 of 'annotations' must be a dictionary"),
        ({"annotations": [{"category_id": 1}]}, "entry 0 of 'annotations' needs an 'image_id'"),
        ({"images": [{"id": [1]}]}, "entry 0 of 'images' needs an 'id'"),
        ({"images": [{"id": 1}, {"id": "a"}]}, "all numbers or all text"),
        ({"categories": []}, "no category lists its keypoint names"),
        ({"categories": [{"id": 1, "name": "person"}]}, r"keypoint names.*\['person'\].*person_keypoints"),
        (
            {"categories": [{"id": i, "name": name, "keypoints": ["nose"]} for i, name in enumerate("ab")]},
            r"\['a', 'b'\] all have keypoints",
        ),
    ],
)
def test_a_bad_file_is_named(annotations, tmp_path, changes, message):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({**annotations, **changes}))
    with pytest.raises(ValueError, match=message) as caught:
        KeypointTruth.from_coco(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_dictionary_is_named(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text("not JSON")
    with pytest.raises(ValueError, match="is not a JSON file"):
        KeypointTruth.from_coco(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is it a results file"):
        KeypointTruth.from_coco(path)
    with pytest.raises(FileNotFoundError):
        KeypointTruth.from_coco(tmp_path / "none.json")


def test_whole_numbers_written_with_a_point_are_counts(annotations):
    for person in annotations["annotations"]:
        person["num_keypoints"] = float(person["num_keypoints"])
    assert KeypointTruth.from_coco(annotations).labelled

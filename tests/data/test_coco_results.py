import copy
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posedy.data.coco_results import check_results, read_results, write_results
from posedy.data.issues import CocoFileError
from posedy.evaluation.coco_eval import evaluate_keypoints
from posedy.poses import to_coco_results

ENTRY = {"image_id": 7, "category_id": 1, "keypoints": [1.5, 2, 0.5] * 17, "score": 0.25}


def with_changes(**changes):
    entry = copy.deepcopy(ENTRY)
    entry.update(changes)
    return {key: value for key, value in entry.items() if value is not ...}


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.sampled_from([np.float32, np.float64]))
def test_results_survive_json_exactly(seed, poses, dtype):
    rng = np.random.default_rng(seed)
    keypoints, keypoint_scores = rng.normal(300, 100, (poses, 17, 2)).astype(dtype), rng.random((poses, 17))
    scores = rng.random(poses).astype(dtype)
    results = json.loads(json.dumps(to_coco_results(np.int64(9), keypoints, keypoint_scores, scores)))
    assert len(results) == poses
    for index, result in enumerate(results):
        assert list(result) == ["image_id", "category_id", "keypoints", "score"]
        assert (result["image_id"], result["category_id"]) == (9, 1)
        triplets = np.array(result["keypoints"]).reshape(17, 3)
        np.testing.assert_array_equal(triplets[:, :2], keypoints[index])
        np.testing.assert_array_equal(triplets[:, 2], keypoint_scores[index])
        assert result["score"] == scores[index]


def test_boxes_are_written_as_xywh():
    results = to_coco_results(1, np.zeros((1, 3, 2)), np.zeros((1, 3)), [1], category_id=4, boxes=[[10, 20, 40, 80]])
    assert results[0]["bbox"] == [10.0, 20.0, 30.0, 60.0]
    assert results[0]["category_id"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 17, 3)), np.zeros((2, 17)), np.zeros(2)), r"\(P, K, 2\), got \(2, 17, 3\)"),
        ((np.zeros((2, 17, 2)), np.zeros((2, 16)), np.zeros(2)), r"\(2, 16\)"),
        ((np.zeros((2, 17, 2)), np.zeros((2, 17)), np.zeros(3)), r"\(3,\)"),
        ((np.zeros((2, 17, 2)), np.zeros((2, 17)), np.zeros(2), 1, np.zeros((3, 4))), r"boxes of shape \(2, 4\)"),
        ((np.full((2, 17, 2), np.inf), np.zeros((2, 17)), np.zeros(2)), "image 7: pose 0"),
        ((np.zeros((2, 17, 2)), np.zeros((2, 17)), [1, np.nan]), "image 7: pose 1"),
    ],
)
def test_invalid_poses_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        to_coco_results(7, *arguments)


@pytest.mark.parametrize("value", [1.7, 2.0, True, b"3", None, np.float32(4)])
@pytest.mark.parametrize("name", ["image_id", "category_id"])
def test_ids_that_are_neither_integers_nor_text_raise(name, value):
    ids = {"image_id": 7, "category_id": 1, name: value}
    with pytest.raises(TypeError, match=f"{name}.*{re.escape(repr(value))}"):
        to_coco_results(keypoints=np.zeros((1, 3, 2)), keypoint_scores=np.zeros((1, 3)), scores=[1], **ids)


def test_text_ids_are_evaluated_like_integers(tmp_path):
    poses = {"keypoints": np.full((1, 3, 2), 9.0), "keypoint_scores": np.ones((1, 3)), "scores": [1]}
    results = to_coco_results("cam1_0001", category_id=np.str_("person"), **poses)
    write_results(tmp_path / "a.json", results)
    image = {"id": "cam1_0001"}
    category = {"id": "person", "name": "person", "keypoints": ["a", "b", "c"], "sigmas": [0.1] * 3}
    person = {"id": 1, "image_id": "cam1_0001", "category_id": "person", "keypoints": [9, 9, 2] * 3, "iscrowd": 0}
    person |= {"bbox": [0, 0, 99, 99], "area": 9801, "num_keypoints": 3}
    annotations = {"images": [image], "categories": [category], "annotations": [person]}
    assert evaluate_keypoints(annotations, read_results(tmp_path / "a.json"))["AP"] == pytest.approx(1)


def test_written_file_can_be_read_back(tmp_path):
    path = tmp_path / "new" / "results.json"
    results = [ENTRY, with_changes(bbox=[1, 2, 3, 4], tracker="x"), with_changes(score=1, image_id=8)]
    write_results(path, results)
    assert read_results(path) == results
    assert read_results(path, num_keypoints=17) == results
    write_results(path, [])
    assert read_results(path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "JSON"),
        (b"\xff\xfe\x00\x12", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"annotations": [], "images": []}', "annotation file"),
        (b'{"score": 1}', "got a dict"),
        (b"3", "got a int"),
    ],
)
def test_other_file_raises_with_its_name(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


INVALID_ENTRIES = [
    (5, "entry 2 is 5"),
    (with_changes(image_id=...), "entry 2: no image_id"),
    (with_changes(category_id=...), "entry 2: no category_id"),
    (with_changes(keypoints=...), "entry 2: no keypoints"),
    (with_changes(score=...), "entry 2: no score"),
    (with_changes(image_id=[1]), "entry 2: image_id [1]"),
    (with_changes(category_id=None), "entry 2: category_id None"),
    (with_changes(score="0.5"), "entry 2: score '0.5'"),
    (with_changes(score=True), "entry 2: score True"),
    (with_changes(score=float("nan")), "entry 2: score nan"),
    (with_changes(keypoints=[]), "entry 2: keypoints []"),
    (with_changes(keypoints=["1", "2", "3"] * 17), "entry 2: keypoints ['1', '2', '3'"),
    (with_changes(keypoints=[[1, 2, 3]] * 17), "entry 2: keypoints [[1, 2, 3]"),
    (with_changes(keypoints=[[1, 2], [3]]), "entry 2: keypoints [[1, 2], [3]]"),
    (with_changes(keypoints=None), "entry 2: keypoints None"),
    (with_changes(keypoints=[1, 2, 3] * 16 + [1, 2]), "of length 50"),
    (with_changes(keypoints=[1, 2, 3] * 16), "of length 48"),
    (with_changes(keypoints=[1, 2, 3] * 16 + [1, float("nan"), 3]), "entry 2: keypoint 16"),
]


@pytest.mark.parametrize(("entry", "text"), INVALID_ENTRIES)
def test_invalid_entry_raises_with_file_and_index(tmp_path, entry, text):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ENTRY, ENTRY, entry]))
    with pytest.raises(CocoFileError) as caught:
        read_results(path)
    assert text in str(caught.value)
    assert "entry 2" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (
            [{"file": "a.jpg", "width": 9, "height": 9, "drawing": "a.jpg", "persons": []}],
            "posedy predict.*posedy test",
        ),
        ([{"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}], "boxes.*posedy detect --eval"),
        ({"AP": 0.5, "protocol": ""}, r"metrics.*results\.json"),
        ({"images": [], "annotations": [], "categories": []}, "annotation file.*posedy test"),
        ({"frame": 0, "time": 0.0, "persons": []}, "dict.*posedy test"),
    ],
)
def test_other_files_are_named(tmp_path, content, hint):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CocoFileError, match=rf"other\.json.*{hint}"):
        read_results(path)


def test_json_lines_are_named(tmp_path):
    path = tmp_path / "video.jsonl"
    path.write_text('{"frame": 0, "persons": []}\n' * 2)
    with pytest.raises(CocoFileError, match=r"video\.jsonl.*JSON Lines"):
        read_results(path)
    path.write_text(json.dumps([ENTRY]))
    assert read_results(path) == [ENTRY]


def test_results_may_contain_arrays():
    entry = with_changes(keypoints=np.zeros(51), score=np.float32(0.5), image_id=np.int64(3))
    check_results([entry], num_keypoints=17)
    for name, value in (("keypoints", np.zeros(50)), ("keypoints", np.full(51, np.nan)), ("score", np.float32("inf"))):
        with pytest.raises(CocoFileError, match="entry 1: "):
            check_results([entry, {**entry, name: value}])


def test_wrong_number_of_keypoints_raises():
    check_results([ENTRY], num_keypoints=17)
    with pytest.raises(CocoFileError, match=r"entry 0: keypoints .*63"):
        check_results([ENTRY], num_keypoints=21)


def test_missing_file_raises_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "none.json")


def test_invalid_results_are_not_written(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(ValueError, match="entry 1"):
        write_results(path, [ENTRY, with_changes(score=float("inf"))])
    assert not path.exists()


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "count"), [("fakekeypoints100_results", 125), ("fastercoco_kp_dt_dataset", 128)])
def test_published_results_are_valid(real_data, name, count):
    assert len(read_results(real_data / "results" / f"{name}.json", num_keypoints=17)) == count

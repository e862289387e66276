import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posedy.data.coco import read_coco
from posedy.data.detections import read_detections
from posedy.data.issues import CocoFileError


def entry(image_id=20, **changes):
    return {"image_id": image_id, "category_id": 1, "bbox": [1, 2, 30, 40.5], "score": 0.5} | changes


@pytest.fixture
def persons(coco_folder):
    return read_coco(coco_folder.annotations)


@pytest.fixture
def write(tmp_path):
    def write(value):
        path = tmp_path / "boxes.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


def test_boxes_are_xyxy_in_the_order_of_the_file(persons, write):
    detections = read_detections(write([entry(30, score=0.1), entry(10, bbox=[0, 0, 5, 6]), entry(30)]), persons)
    assert detections.image_index.tolist() == [2, 0, 2]
    assert detections.boxes.tolist() == [[1, 2, 31, 42.5], [0, 0, 5, 6], [1, 2, 31, 42.5]]
    assert detections.scores.tolist() == pytest.approx([0.1, 0.5, 0.5])
    assert (detections.boxes.dtype, detections.scores.dtype) == (np.float32, np.float32)
    assert len(detections) == 3
    assert detections.summary() == "boxes.json: 3 boxes on 2 of 4 images; left out: nothing"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry(category_id=2), "of another category"),
        (entry(99), "on images outside the annotation file"),
        (entry(bbox=[1, 2, 0, 4]), "without area"),
        (entry(bbox=[1, 2, 4, -4]), "without area"),
        (entry(bbox=[1, math.nan, 4, 4]), "with NaN, infinity or beyond any image"),
        (entry(bbox=[1, 2, 4, 1e300]), "with NaN, infinity or beyond any image"),
        (entry(score=math.nan), "with NaN, infinity or beyond any image"),
        (entry(bbox=[64, 2, 30, 40]), "outside their image"),
        (entry(bbox=[-9, 2, 9, 40]), "outside their image"),
        (entry(score=0.29), "under the score threshold 0.3"),
        (entry(99, category_id=2, score=0), "of another category"),
    ],
)
def test_left_out_boxes_are_counted_once(persons, write, bad, reason):
    detections = read_detections(write([bad, entry(score=0.3), bad]), persons, score_threshold=0.3)
    assert len(detections) == 1
    assert {key: count for key, count in detections.left_out.items() if count} == {reason: 2}
    assert f"left out: 2 {reason}" in detections.summary()
    with pytest.raises(CocoFileError, match=f": 2 {reason}"):
        read_detections(write([bad, bad]), persons, score_threshold=0.3)


def test_fractions_raise_and_corners_warn(persons, write):
    fractions = write([entry(bbox=[0.1, 0.2, 0.4, 0.6]), entry(bbox=[0.3, 0, 0.5, 1])])
    with pytest.raises(CocoFileError, match=r"boxes\.json.*\n.*fractions"):
        read_detections(fractions, persons)
    with pytest.warns(UserWarning, match=r"boxes\.json: .*x1, y1, x2, y2"):
        assert len(read_detections(write([entry(bbox=[30, 20, 60, 48])]), persons)) == 1


def test_box_without_category_is_a_person(persons, write):
    box = entry()
    del box["category_id"]
    assert len(read_detections(write([box]), persons)) == 1


def test_scores_default_to_one(persons, write):
    entries = [entry(), entry(10)]
    for box in entries:
        del box["score"]
    assert read_detections(write(entries), persons).scores.tolist() == [1, 1]


def test_boxes_of_crowds_are_left_out(persons, write):
    assert read_detections(write([entry(iscrowd=1), entry(iscrowd=0)]), persons).left_out == {"of crowds": 1}


def test_file_name_replaces_a_missing_image_id(persons, write):
    entries = [entry(file_name=persons.file_names[index]) for index in (1, 0)]
    del entries[0]["image_id"]
    entries[1]["image_id"] = None
    assert read_detections(write(entries), persons).image_index.tolist() == [1, 0]
    with pytest.raises(CocoFileError, match=r"entry 1: image_id 10 is a\.jpg, file_name is sub/b\.jpg"):
        read_detections(write([entry(), entry(10, file_name="sub/b.jpg")]), persons)


def test_wrong_image_size_raises(persons, write):
    assert len(read_detections(write([entry(width=64, height=48)]), persons)) == 1
    with pytest.raises(CocoFileError, match="entry 1: 48 x 64"):
        read_detections(write([entry(), entry(width=48, height=64)]), persons)


def test_text_category_and_boolean_image_id_are_invalid(persons, write):
    assert read_detections(write([entry(category_id="1"), entry()]), persons).left_out == {"of another category": 1}
    with pytest.raises(CocoFileError, match="entry 0: image_id True"):
        read_detections(write([entry(True)]), persons)


@pytest.mark.parametrize("key", ["bbox", "score", "image_id"])
def test_entries_with_missing_values_raise_with_their_index(persons, write, key):
    entries = [entry() for _ in range(9)]
    for index in range(2, 9):
        del entries[index][key]
    with pytest.raises(CocoFileError, match=rf"'{key}' \(7\): entry 2: no {key}; .*entry 6: no {key}") as caught:
        read_detections(write(entries), persons)
    assert "boxes.json" in str(caught.value)
    with pytest.raises(CocoFileError, match=f"'{key}' \\(1\\): entry 1: {key} 'x'"):
        read_detections(write([entry(), entry(**{key: "x"})]), persons)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"boxes\.json: .*line 1"),
        ({"annotations": []}, "got a dict"),
        ("3", "got a int"),
        ([entry(), 7], "entry 1 is 7"),
        ([], "the list is empty"),
    ],
)
def test_other_files_raise(persons, write, content, message):
    with pytest.raises(CocoFileError, match=message):
        read_detections(write(content), persons)


def test_missing_file_raises_os_error(persons, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        read_detections(tmp_path / "none.json", persons)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2) | st.lists(st.floats(), max_size=5)
)
ENTRIES = st.dictionaries(st.sampled_from(["image_id", "bbox", "score", "category_id"]), VALUES).map(
    lambda d: entry() | d
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENTRIES | VALUES, max_size=4))
def test_any_content_is_valid_or_raises_coco_file_error(persons, write, entries):
    path = write(entries)
    try:
        detections = read_detections(path, persons)
    except CocoFileError:
        return
    assert len(detections) + sum(detections.left_out.values()) == len(entries)
    assert np.isfinite(detections.boxes).all()
    assert (detections.boxes[:, 2:] > detections.boxes[:, :2]).all()


@pytest.mark.realdata
def test_real_detections(real_data):
    folder = real_data / "coco/annotations"
    persons = read_coco(folder / "person_keypoints_val2017.json")
    detections = read_detections(folder / "person_detections_val2017.json", persons)
    assert len(detections) == 7072
    assert len(np.unique(detections.image_index)) == 719
    few = read_detections(folder / "person_detections_val2017.json", persons, score_threshold=0.3)
    assert few.left_out["under the score threshold 0.3"] == 7072 - len(few) == (detections.scores < 0.3).sum()

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posedy.data.issues import CocoFileError
from posedy.inference.box_files import read_boxes_by_name

IMAGES = [
    {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
    {"id": 8, "file_name": "sub/a.jpg"},
    {"id": 9, "file_name": "empty.jpg"},
]
PERSON = {"id": 1, "name": "person", "keypoints": ["nose"]}


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    entries = [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 8, "category_id": 1, "bbox": [5, 6, 7, 8]},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9]},
        {"id": 4, "image_id": 7, "category_id": 1, "bbox": [0, 0, 50, 50], "iscrowd": 1},
        {"id": 5, "image_id": 7, "category_id": 1, "bbox": [0, 0, 0, 50]},
    ]
    content = {"images": IMAGES, "annotations": entries, "categories": [PERSON, {"id": 3, "name": "car"}]}
    return write(tmp_path / "annotations.json", content)


def test_annotation_file_gives_boxes_by_file_name(annotations: Path) -> None:
    boxes_by_name = read_boxes_by_name(annotations)
    assert set(boxes_by_name.by_name) == {"a.jpg", "sub/a.jpg", "empty.jpg"}
    boxes, scores = boxes_by_name.by_name["a.jpg"]
    assert boxes.tolist() == [[1, 2, 31, 42]]
    assert boxes.dtype == scores.dtype == np.float32
    assert scores.tolist() == [1]
    assert boxes_by_name.by_name["empty.jpg"][0].shape == (0, 4)
    assert boxes_by_name.left_out == {"of another category": 1, "of crowds": 1, "without area": 1}


def test_find_takes_the_longest_matching_file_name(annotations: Path, tmp_path: Path) -> None:
    boxes_by_name = read_boxes_by_name(annotations)
    for path, x1 in (("a.jpg", 1), ("x/a.jpg", 1), ("sub/a.jpg", 5), ("x/sub/a.jpg", 5)):
        boxes = boxes_by_name.find(tmp_path / path)
        assert boxes is not None
        assert boxes[0][0, 0] == x1
    no_person = boxes_by_name.find(Path("empty.jpg"))
    assert no_person is not None
    assert len(no_person[0]) == 0
    assert boxes_by_name.find(Path("ba.jpg")) is None
    assert boxes_by_name.find(Path("a.jpg/b.jpg")) is None


def test_find_size_returns_recorded_sizes(annotations: Path, tmp_path: Path) -> None:
    entries = write(tmp_path / "boxes.json", [{"file_name": "a.jpg", "bbox": [1, 2, 3, 4]}])
    for boxes_by_name in (read_boxes_by_name(annotations), read_boxes_by_name(entries, annotations)):
        assert boxes_by_name.find_size(Path("x/a.jpg")) == (100, 80)
        assert boxes_by_name.find_size(Path("empty.jpg")) is None
        assert boxes_by_name.find_size(Path("unknown.jpg")) is None
    assert read_boxes_by_name(entries).find_size(Path("a.jpg")) is None


def test_list_entries_may_have_image_sizes(annotations: Path, tmp_path: Path) -> None:
    sized = {"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "width": 100, "height": 80}
    plain = {"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "width": None}
    path = tmp_path / "boxes.json"
    for boxes_by_name in (
        read_boxes_by_name(write(path, [sized, plain, sized])),
        read_boxes_by_name(path, annotations),
    ):
        assert boxes_by_name.find_size(Path("x/a.jpg")) == (100, 80)
    rotated = {**sized, "width": 80, "height": 100}
    with pytest.raises(CocoFileError, match=r"entry 2.*80 ?x ?100.*a\.jpg.*100 ?x ?80"):
        read_boxes_by_name(write(path, [plain, sized, rotated]))
    with pytest.raises(ValueError, match=r"entry 0.*80 ?x ?100.*100 ?x ?80"):
        read_boxes_by_name(write(path, [rotated]), annotations)
    with pytest.raises(ValueError, match=r"entry 1.*width 100.*height None"):
        read_boxes_by_name(write(path, [plain, {**sized, "height": None}]))


def test_list_with_file_names_gives_boxes_by_file_name(tmp_path: Path) -> None:
    entries = [
        {"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "score": 0.9},
        {"file_name": ".\\sub\\b.jpg", "bbox": [1, 2, 3, 4], "score": 0.3, "category_id": 1},
        {"file_name": "a.jpg", "bbox": [5, 6, 7, 8], "score": 0.29},
        {"file_name": "a.jpg", "bbox": [5, 6, 7, 8], "score": 0.9, "category_id": 2},
        {"file_name": "a.jpg", "bbox": [9, 9, 1, 1], "score": 1},
        {"file_name": "a.jpg", "bbox": [1, 1, 1e300, 1e300], "score": 1},
        {"file_name": "a.jpg", "bbox": [math.inf, 1, -math.inf, 1], "score": 1},
    ]
    boxes_by_name = read_boxes_by_name(write(tmp_path / "boxes.json", entries), threshold=0.3)
    assert set(boxes_by_name.by_name) == {"a.jpg", "sub/b.jpg"}
    boxes, scores = boxes_by_name.by_name["a.jpg"]
    assert boxes.tolist() == [[1, 2, 4, 6], [9, 9, 10, 10]]
    np.testing.assert_allclose(scores, [0.9, 1])
    assert boxes_by_name.left_out == {
        "of another category": 1,
        "with NaN, infinity or beyond any image": 2,
        "under the score threshold 0.3": 1,
    }


def test_scores_are_one_if_no_entry_has_a_score(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [{"file_name": "a.jpg", "bbox": [1, 2, 3, 4]} for _ in range(2)]
    assert read_boxes_by_name(write(tmp_path / "boxes.json", entries)).by_name["a.jpg"][1].tolist() == [1, 1]
    entries[0]["score"] = 0.5
    with pytest.raises(CocoFileError, match=r"entry 1.*score"):
        read_boxes_by_name(write(tmp_path / "boxes.json", entries))


def test_list_with_image_ids_needs_the_annotation_file(annotations: Path, tmp_path: Path) -> None:
    # id 8 is that of sub/a.jpg in the annotation file
    entries = [
        {"image_id": 8, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 77, "bbox": [1, 2, 3, 4], "score": 0.9},
    ]
    path = write(tmp_path / "boxes.json", entries)
    with pytest.raises(ValueError, match=r"entry 0.*image_id 8.*--annotations FILE"):
        read_boxes_by_name(path)
    boxes_by_name = read_boxes_by_name(path, annotations)
    assert len(boxes_by_name.by_name["sub/a.jpg"][0]) == 1
    assert len(boxes_by_name.by_name["a.jpg"][0]) == 0
    assert boxes_by_name.left_out == {"on images outside the annotation file": 1}


def test_person_category_is_the_one_with_keypoints(tmp_path: Path) -> None:
    content = {
        "images": IMAGES,
        "annotations": [{"image_id": 7, "category_id": 5, "bbox": [0, 0, 9, 9]}],
        "categories": [{"id": 1, "name": "person"}, {"id": 5, "name": "dog", "keypoints": ["nose"]}],
    }
    assert len(read_boxes_by_name(write(tmp_path / "dogs.json", content)).by_name["a.jpg"][0]) == 1
    content["categories"] = [{"id": 5, "name": "dog"}, {"id": 6, "name": "cat"}]
    with pytest.raises(ValueError, match=r"(?s)dogs\.json.*'dog', 'cat'"):
        read_boxes_by_name(write(tmp_path / "dogs.json", content))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "str"),
        ({"images": []}, "dict"),
        ([3], "entry 0"),
        ([{"file_name": "a.jpg"}], "entry 0.*bbox"),
        ([{"file_name": "a.jpg", "bbox": [1, 2, 3]}], r"entry 0.*bbox \[1, 2, 3\]"),
        ([{"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "score": "high"}], "entry 0.*score 'high'"),
        ([{"bbox": [1, 2, 3, 4]}], "entry 0.*file_name"),
        ({"annotations": [], "images": [{"id": 1}]}, "image 1.*file_name"),
        ({"annotations": []}, "'images'"),
        ({"annotations": [], "images": [], "categories": 7}, "'categories'.*7"),
        ({"annotations": [], "images": [{"id": [1], "file_name": "a"}]}, r"'a'.*id \[1\]"),
        ([{"image_id": [1], "bbox": [1, 2, 3, 4]}], "entry 0.*file_name"),
        ({"annotations": [], "images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]}, "file_name.*'a'"),
        ({"annotations": [], "images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, r"\bid\b.*1"),
    ],
)
def test_invalid_files_are_rejected(value: object, text: str, tmp_path: Path) -> None:
    with pytest.raises(CocoFileError, match=text) as caught:
        read_boxes_by_name(write(tmp_path / "boxes.json", value))
    assert "boxes.json" in str(caught.value)


def test_threshold_outside_0_to_1_is_rejected(annotations: Path) -> None:
    for threshold in (float("nan"), -1, 30):
        with pytest.raises(ValueError, match=str(threshold)):
            read_boxes_by_name(annotations, threshold=threshold)


def test_unreadable_files_are_rejected(annotations: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[{")
    with pytest.raises(ValueError, match=r"broken\.json"):
        read_boxes_by_name(broken)
    with pytest.raises(OSError, match=r"absent\.json"):
        read_boxes_by_name(tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r"annotations\.json"):
        read_boxes_by_name(annotations, annotations)
    with pytest.raises(ValueError, match=r"other\.json"):
        read_boxes_by_name(write(tmp_path / "boxes.json", []), write(tmp_path / "other.json", []))


@pytest.mark.realdata
def test_real_detections_are_read(real_data: Path) -> None:
    folder = real_data / "coco" / "annotations"
    boxes_by_name = read_boxes_by_name(
        folder / "person_detections_val2017.json", folder / "person_keypoints_val2017.json", threshold=0.3
    )
    assert len(boxes_by_name.by_name) == 726
    number = sum(len(boxes) for boxes, _ in boxes_by_name.by_name.values())
    assert number + sum(boxes_by_name.left_out.values()) == 7072
    assert set(boxes_by_name.left_out) == {"under the score threshold 0.3"}

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posedy.data.findings import CocoFileError
from posedy.inference.box_files import boxes_from_file

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


def test_an_annotation_file(annotations: Path) -> None:
    found = boxes_from_file(annotations)
    assert set(found.by_name) == {"a.jpg", "sub/a.jpg", "empty.jpg"}
    boxes, scores = found.by_name["a.jpg"]
    assert boxes.tolist() == [[1, 2, 31, 42]]
    assert boxes.dtype == scores.dtype == np.float32
    assert scores.tolist() == [1]
    assert found.by_name["empty.jpg"][0].shape == (0, 4)
    assert found.left_out == {"of another category": 1, "of crowds": 1, "without area": 1}


def test_the_longest_file_name_at_the_end_of_the_path_counts(annotations: Path, tmp_path: Path) -> None:
    found = boxes_from_file(annotations)
    for photo, start in (("a.jpg", 1), ("x/a.jpg", 1), ("sub/a.jpg", 5), ("x/sub/a.jpg", 5)):
        boxes = found.of(tmp_path / photo)
        assert boxes is not None
        assert boxes[0][0, 0] == start
    no_person = found.of(Path("empty.jpg"))
    assert no_person is not None
    assert len(no_person[0]) == 0
    assert found.of(Path("ba.jpg")) is None
    assert found.of(Path("a.jpg/b.jpg")) is None


def test_recorded_sizes_are_kept(annotations: Path, tmp_path: Path) -> None:
    entries = write(tmp_path / "boxes.json", [{"file_name": "a.jpg", "bbox": [1, 2, 3, 4]}])
    for found in (boxes_from_file(annotations), boxes_from_file(entries, annotations)):
        assert found.size_of(Path("x/a.jpg")) == (100, 80)
        assert found.size_of(Path("empty.jpg")) is None
        assert found.size_of(Path("unknown.jpg")) is None
    assert boxes_from_file(entries).size_of(Path("a.jpg")) is None


def test_a_list_tells_the_sizes_that_its_boxes_count_in(annotations: Path, tmp_path: Path) -> None:
    sized = {"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "width": 100, "height": 80}
    plain = {"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "width": None}
    path = tmp_path / "boxes.json"
    for found in (boxes_from_file(write(path, [sized, plain, sized])), boxes_from_file(path, annotations)):
        assert found.size_of(Path("x/a.jpg")) == (100, 80)
    turned = {**sized, "width": 80, "height": 100}
    with pytest.raises(CocoFileError, match=r"entry 2 counts in 80 x 100 pixels, a\.jpg has 100 x 80"):
        boxes_from_file(write(path, [plain, sized, turned]))
    with pytest.raises(ValueError, match=r"entry 0 counts in 80 x 100 .* has 100 x 80"):
        boxes_from_file(write(path, [turned]), annotations)
    with pytest.raises(ValueError, match=r"entry 1: width 100, height None"):
        boxes_from_file(write(path, [plain, {**sized, "height": None}]))


def test_a_list_with_file_names(tmp_path: Path) -> None:
    entries = [
        {"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "score": 0.9},
        {"file_name": ".\\sub\\b.jpg", "bbox": [1, 2, 3, 4], "score": 0.3, "category_id": 1},
        {"file_name": "a.jpg", "bbox": [5, 6, 7, 8], "score": 0.29},
        {"file_name": "a.jpg", "bbox": [5, 6, 7, 8], "score": 0.9, "category_id": 2},
        {"file_name": "a.jpg", "bbox": [9, 9, 1, 1], "score": 1},
        {"file_name": "a.jpg", "bbox": [1, 1, 1e300, 1e300], "score": 1},
        {"file_name": "a.jpg", "bbox": [math.inf, 1, -math.inf, 1], "score": 1},
    ]
    found = boxes_from_file(write(tmp_path / "boxes.json", entries), threshold=0.3)
    assert set(found.by_name) == {"a.jpg", "sub/b.jpg"}
    boxes, scores = found.by_name["a.jpg"]
    assert boxes.tolist() == [[1, 2, 4, 6], [9, 9, 10, 10]]
    np.testing.assert_allclose(scores, [0.9, 1])
    assert found.left_out == {
        "of another category": 1,
        "with NaN, infinity or beyond any image": 2,
        "under the score threshold 0.3": 1,
    }


def test_scores_of_a_list_are_one_where_no_entry_has_any(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [{"file_name": "a.jpg", "bbox": [1, 2, 3, 4]} for _ in range(2)]
    assert boxes_from_file(write(tmp_path / "boxes.json", entries)).by_name["a.jpg"][1].tolist() == [1, 1]
    entries[0]["score"] = 0.5
    with pytest.raises(CocoFileError, match="entry 1: no score"):
        boxes_from_file(write(tmp_path / "boxes.json", entries))


def test_a_list_with_image_ids_needs_the_annotations(annotations: Path, tmp_path: Path) -> None:
    # the id 8 is of sub/a.jpg, whatever numbers stand in file names
    entries = [
        {"image_id": 8, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 77, "bbox": [1, 2, 3, 4], "score": 0.9},
    ]
    path = write(tmp_path / "boxes.json", entries)
    with pytest.raises(ValueError, match=r"entry 0: image_id 8.*--annotations FILE, or write file_name"):
        boxes_from_file(path)
    found = boxes_from_file(path, annotations)
    assert len(found.by_name["sub/a.jpg"][0]) == 1
    assert len(found.by_name["a.jpg"][0]) == 0
    assert found.left_out == {"on images outside the annotation file": 1}


def test_the_category_with_keypoints_is_the_person(tmp_path: Path) -> None:
    content = {
        "images": IMAGES,
        "annotations": [{"image_id": 7, "category_id": 5, "bbox": [0, 0, 9, 9]}],
        "categories": [{"id": 1, "name": "person"}, {"id": 5, "name": "dog", "keypoints": ["nose"]}],
    }
    assert len(boxes_from_file(write(tmp_path / "dogs.json", content)).by_name["a.jpg"][0]) == 1
    content["categories"] = [{"id": 5, "name": "dog"}, {"id": 6, "name": "cat"}]
    with pytest.raises(ValueError, match=r"(?s)dogs\.json .*'dog', 'cat'"):
        boxes_from_file(write(tmp_path / "dogs.json", content))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "holds a str"),
        ({"images": []}, "holds a dict"),
        ([3], "entry 0 is 3"),
        ([{"file_name": "a.jpg"}], "entry 0: no bbox"),
        ([{"file_name": "a.jpg", "bbox": [1, 2, 3]}], r"entry 0: bbox \[1, 2, 3\]"),
        ([{"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "score": "high"}], "entry 0: score 'high'"),
        ([{"bbox": [1, 2, 3, 4]}], "entry 0: no file_name"),
        ({"annotations": [], "images": [{"id": 1}]}, "image 1: no file_name"),
        ({"annotations": []}, "'images' is not there"),
        ({"annotations": [], "images": [], "categories": 7}, "'categories' is 7"),
        ({"annotations": [], "images": [{"id": [1], "file_name": "a"}]}, r"'a': id \[1\]"),
        ([{"image_id": [1], "bbox": [1, 2, 3, 4]}], "entry 0: no file_name"),
        (
            {"annotations": [], "images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]},
            "same file_name .1.: 'a'",
        ),
        ({"annotations": [], "images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "same id .1.: 1"),
    ],
)
def test_other_files_are_refused_in_words(value: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(CocoFileError, match=words) as caught:
        boxes_from_file(write(tmp_path / "boxes.json", value))
    assert "boxes.json" in str(caught.value)


def test_a_threshold_that_is_no_score_is_refused(annotations: Path) -> None:
    for threshold in (float("nan"), -1, 30):
        with pytest.raises(ValueError, match="from 0 to 1, got"):
            boxes_from_file(annotations, threshold=threshold)


def test_unreadable_files(annotations: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[{")
    with pytest.raises(ValueError, match=r"not JSON .*broken\.json"):
        boxes_from_file(broken)
    with pytest.raises(OSError, match=r"absent\.json"):
        boxes_from_file(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="is an annotation file itself"):
        boxes_from_file(annotations, annotations)
    with pytest.raises(ValueError, match="holds a list"):
        boxes_from_file(write(tmp_path / "boxes.json", []), write(tmp_path / "other.json", []))


@pytest.mark.realdata
def test_real_detections(real_data: Path) -> None:
    folder = real_data / "coco" / "annotations"
    found = boxes_from_file(
        folder / "person_detections_val2017.json", folder / "person_keypoints_val2017.json", threshold=0.3
    )
    assert len(found.by_name) == 726
    number = sum(len(boxes) for boxes, _ in found.by_name.values())
    assert number + sum(found.left_out.values()) == 7072
    assert set(found.left_out) == {"under the score threshold 0.3"}

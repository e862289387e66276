"""Preparation of real data: the dev split is not in the training set, and boxes contain the head."""

import json
from pathlib import Path

import numpy as np
import pytest

from posedy.data.coco import read_coco
from tools.lab.real_set import (
    add_teacher_keypoints,
    extend_boxes_to_head,
    prepare_real_set,
    remove_images,
    select_dev,
    teacher_agreement,
)


def test_dev_and_train_are_disjoint_and_complete() -> None:
    images = [{"id": id_, "from": split} for id_ in range(1, 21) for split in ("val2017", "train2017") if id_ % 2]
    for number, image in enumerate(images):
        image["id"] = number
    content = {"images": images, "annotations": [{"id": n, "image_id": n} for n in range(len(images))], "info": {}}
    train, dev = select_dev(content, dev=False), select_dev(content, dev=True)
    ids = [{image["id"] for image in split["images"]} for split in (train, dev)]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == set(range(len(images)))
    assert all(images[id_]["from"] == "val2017" and id_ % 5 == 0 for id_ in ids[1])
    assert len(ids[1]) > 0
    for split, expected in zip((train, dev), ids, strict=True):
        assert {record["image_id"] for record in split["annotations"]} == expected


@pytest.mark.parametrize("angle", [0, 90, 180, 250])
def test_box_ending_at_the_neck_is_extended_to_the_head(angle: float) -> None:
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.zeros((17, 3))
    for index, x, y in ((5, -10, -20), (6, 10, -20), (11, -8, 20), (12, 8, 20)):
        points[index] = [*(rotation @ [x, y] + 100), 2]
    labeled = points[points[:, 2] > 0, :2]
    low, high = labeled.min(axis=0), labeled.max(axis=0)
    record = {"image_id": 1, "keypoints": points.ravel().tolist(), "bbox": [*low, *(high - low)]}
    content = {"images": [{"id": 1, "width": 200, "height": 200}], "annotations": [record]}
    x, y, width, height = extend_boxes_to_head(content)["annotations"][0]["bbox"]
    head = rotation @ [0, -20 - 0.65 * 40] + 100
    assert x <= head[0] <= x + width
    assert y <= head[1] <= y + height
    assert (np.array([x, y]) <= low + 0.01).all()
    assert record["bbox"] == [*low, *(high - low)]  # the input is unchanged


def test_box_without_a_trunk_is_unchanged() -> None:
    record = {"image_id": 1, "keypoints": [0] * 51, "bbox": [1.0, 2.0, 3.0, 4.0]}
    content = {"images": [{"id": 1, "width": 9, "height": 9}], "annotations": [record]}
    assert extend_boxes_to_head(content)["annotations"][0]["bbox"] == [1, 2, 3, 4]


def test_prepared_sets_are_readable_and_disjoint(synthetic: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "coco/annotations").mkdir(parents=True)
    (data / "coco/train2017").symlink_to(synthetic / "train2017")
    content = json.loads((synthetic / "annotations/person_keypoints_train2017.json").read_bytes())
    for image in content["images"]:
        image["from"] = "val2017"
    (data / "coco/annotations/person_keypoints_train2017.json").write_text(json.dumps(content))
    prepare_real_set(data, tmp_path / "real")
    train = read_coco(tmp_path / "real/train/annotations.json", tmp_path / "real/train/images")
    dev = read_coco(tmp_path / "real/dev.json", tmp_path / "real/dev")
    full = read_coco(synthetic / "annotations/person_keypoints_train2017.json")
    assert len(train) + len(dev) == len(full)
    assert set(train.annotation_ids.tolist()).isdisjoint(dev.annotation_ids.tolist())
    assert len(dev) > 0
    assert not (tmp_path / "real/lspet").exists()


def make_record(keypoints: list[list[float]], **fields: object) -> dict[str, object]:
    count = sum(v > 0 for _, _, v in keypoints)
    return {"id": 7, "image_id": 1, "num_keypoints": count, "bbox": [0.0, 0.0, 20.0, 20.0], "iscrowd": 0} | {
        "keypoints": [float(value) for point in keypoints for value in point],
        **fields,
    }


TEACHER = {"7": [[3.0, 4.0, 0.9], [5.0, 6.0, 0.5], [7.0, 8.0, 0.49], [20.0, 3.0, 0.9]]}
IMAGES = [{"id": 1, "width": 20, "height": 30}]


def test_confident_teacher_keypoints_inside_the_image_fill_unlabeled_ones() -> None:
    record = make_record([[1, 2, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    content = {"images": IMAGES, "annotations": [record]}
    (filled,) = add_teacher_keypoints(content, TEACHER, 0.5)["annotations"]
    assert np.reshape(filled["keypoints"], (-1, 3)).tolist() == [[1, 2, 2], [5, 6, 1], [0, 0, 0], [0, 0, 0]]
    assert filled["num_keypoints"] == 2
    assert record["num_keypoints"] == 1
    for other in (record | {"id": 8}, record | {"iscrowd": 1}):
        assert add_teacher_keypoints({"images": IMAGES, "annotations": [other]}, TEACHER, 0.5)["annotations"] == [other]


def test_teacher_agreement_counts_labeled_keypoints_by_score() -> None:
    record = make_record(
        [[3, 5, 2], [5, 7.9, 1], [7, 8, 2], [0, 0, 0]]
    )  # errors of 1, 1.9 and 0 pixels; a box of 20x20 pixels
    rows = teacher_agreement({"annotations": [record]}, TEACHER, [0.0, 0.5, 0.95])
    assert rows == [
        {"score": 0.0, "keypoints": 1, "within_5_percent": 1.0, "within_10_percent": 1.0},
        {"score": 0.5, "keypoints": 2, "within_5_percent": 0.5, "within_10_percent": 1.0},
    ]


def test_reserved_images_are_removed() -> None:
    content = {"images": [{"id": 1}, {"id": 2}], "annotations": [{"image_id": 1}, {"image_id": 2}], "info": {}}
    assert remove_images(content, [2, 9]) == {"images": [{"id": 1}], "annotations": [{"image_id": 1}], "info": {}}


def test_teacher_labels_are_added_to_all_sets_except_dev(synthetic: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "coco/annotations").mkdir(parents=True)
    (data / "teacher").mkdir()
    (data / "actions").mkdir()
    (data / "coco/train2017").symlink_to(synthetic / "train2017")
    (data / "actions/images").symlink_to(synthetic / "train2017")
    content = json.loads((synthetic / "annotations/person_keypoints_train2017.json").read_bytes())
    for image in content["images"]:
        image["from"] = "val2017"
    (data / "coco/annotations/person_keypoints_train2017.json").write_text(json.dumps(content))
    reserved = content["images"][0]["id"]
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    teacher = {
        str(record["id"]): [[sizes[record["image_id"]][0] / 2, 1.0, 0.9]] * 17 for record in content["annotations"]
    }
    for name in ("train", "actions"):
        (data / f"teacher/{name}.json").write_text(json.dumps(teacher))
    boxes = {
        key: [{field: value for field, value in record.items() if "keypoints" not in field} for record in records]
        for key, records in content.items()
        if key in ("images", "annotations")
    }
    (data / "actions/boxes.json").write_text(json.dumps({**boxes, "categories": [{"id": 1, "name": "person"}]}))
    prepare_real_set(data, tmp_path / "real", reserved=[reserved])
    read = {name: json.loads((tmp_path / f"real/{name}.json").read_bytes()) for name in ("train", "dev", "actions")}
    labels = {record["id"]: record["keypoints"] for record in content["annotations"]}
    for name in ("train", "dev"):
        assert reserved not in {image["id"] for image in read[name]["images"]}
    assert all(record["keypoints"] == labels[record["id"]] for record in read["dev"]["annotations"])
    for name in ("train", "actions"):
        persons = [record for record in read[name]["annotations"] if not record["iscrowd"]]
        visibility = np.array([record["keypoints"][2::3] for record in persons])
        assert (visibility > 0).all()
        assert (visibility == 1).any()
    packed = read_coco(tmp_path / "real/actions/annotations.json", tmp_path / "real/actions/images")
    assert len(packed) == len([record for record in content["annotations"] if not record["iscrowd"]])

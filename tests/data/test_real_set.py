"""The real set: what is held out is never trained on, and boxes hold the whole person."""

import json
from pathlib import Path

import numpy as np
import pytest

from posedy.data.coco import read_coco
from posedy.data.real_set import dev_part, prepare_real_set, with_heads


def test_dev_and_train_share_no_photo_and_are_the_whole() -> None:
    images = [{"id": id_, "from": split} for id_ in range(1, 21) for split in ("val2017", "train2017") if id_ % 2]
    for number, image in enumerate(images):
        image["id"] = number
    content = {"images": images, "annotations": [{"id": n, "image_id": n} for n in range(len(images))], "info": {}}
    train, dev = dev_part(content, dev=False), dev_part(content, dev=True)
    ids = [{image["id"] for image in part["images"]} for part in (train, dev)]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == set(range(len(images)))
    assert all(images[id_]["from"] == "val2017" and id_ % 5 == 0 for id_ in ids[1])
    assert len(ids[1]) > 0
    for part, expected in zip((train, dev), ids, strict=True):
        assert {record["image_id"] for record in part["annotations"]} == expected


@pytest.mark.parametrize("angle", [0, 90, 180, 250])
def test_a_box_that_ends_at_the_neck_is_enlarged_toward_the_head(angle: float) -> None:
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.zeros((17, 3))
    for index, x, y in ((5, -10, -20), (6, 10, -20), (11, -8, 20), (12, 8, 20)):
        points[index] = [*(rotation @ [x, y] + 100), 2]
    labelled = points[points[:, 2] > 0, :2]
    low, high = labelled.min(axis=0), labelled.max(axis=0)
    record = {"image_id": 1, "keypoints": points.ravel().tolist(), "bbox": [*low, *(high - low)]}
    content = {"images": [{"id": 1, "width": 200, "height": 200}], "annotations": [record]}
    x, y, width, height = with_heads(content)["annotations"][0]["bbox"]
    head = rotation @ [0, -20 - 0.65 * 40] + 100
    assert x <= head[0] <= x + width
    assert y <= head[1] <= y + height
    assert (np.array([x, y]) <= low + 0.01).all()
    assert record["bbox"] == [*low, *(high - low)]  # what was given is left alone


def test_without_a_trunk_a_box_stays() -> None:
    record = {"image_id": 1, "keypoints": [0] * 51, "bbox": [1.0, 2.0, 3.0, 4.0]}
    content = {"images": [{"id": 1, "width": 9, "height": 9}], "annotations": [record]}
    assert with_heads(content)["annotations"][0]["bbox"] == [1, 2, 3, 4]


def test_a_folder_becomes_sets_that_train(drawn: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "coco/annotations").mkdir(parents=True)
    (data / "coco/train2017").symlink_to(drawn / "train2017")
    content = json.loads((drawn / "annotations/person_keypoints_train2017.json").read_bytes())
    for image in content["images"]:
        image["from"] = "val2017"
    (data / "coco/annotations/person_keypoints_train2017.json").write_text(json.dumps(content))
    prepare_real_set(data, tmp_path / "real")
    train = read_coco(tmp_path / "real/train/annotations.json", tmp_path / "real/train/images")
    dev = read_coco(tmp_path / "real/dev.json", tmp_path / "real/dev")
    whole = read_coco(drawn / "annotations/person_keypoints_train2017.json")
    assert len(train) + len(dev) == len(whole)
    assert set(train.annotation_ids.tolist()).isdisjoint(dev.annotation_ids.tolist())
    assert len(dev) > 0
    assert not (tmp_path / "real/lspet").exists()

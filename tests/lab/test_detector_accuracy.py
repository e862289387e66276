"""The measurement of the person detector on two images."""

import json
from pathlib import Path

import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation.box_eval import evaluate_boxes
from tools.lab.detector_accuracy import MODES, UNLABELED, add_ignored_boxes, main

MINI = Path(__file__).parents[2] / "data/coco_mini"
NAMES = ("000000085772.jpg", "000000091406.jpg")


def test_accuracy_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((MINI / "annotations/person_keypoints_val2017.json").read_bytes())
    content["images"] = [image for image in content["images"] if image["file_name"] in NAMES]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [record for record in content["annotations"] if record["image_id"] in ids]
    annotations, out, report = (tmp_path / name for name in ("gt.json", "boxes.json", "report.json"))
    annotations.write_text(json.dumps(content))
    command = ["--annotations", str(annotations), "--images", str(MINI / "val2017"), "--modes", "1"]
    main([*command, "--out", str(out), "--json", str(report)])
    printed = capsys.readouterr().out
    [(name, numbers)] = json.loads(report.read_text()).items()
    assert name == MODES[0][0]
    assert f"{numbers['AP']:.3f}" in printed
    evaluation = evaluate_boxes(content, json.loads(out.read_text()))
    assert evaluation.metrics["AP"] == pytest.approx(numbers["AP"])
    assert evaluation.recall_at(1) == numbers["recall_at_1"] > 0.5


def test_ignored_boxes_become_crowds() -> None:
    content = json.loads((MINI / "annotations/person_keypoints_val2017.json").read_bytes())
    image_id = content["images"][0]["id"]
    before = GroundTruth.from_coco(content)
    gt = GroundTruth.from_coco(add_ignored_boxes(content, {str(image_id): [[1, 2, 30, 40]], "7": [[0, 0, 1, 1]]}))
    assert gt.labeled == before.labeled
    assert len(gt.annotations) == len(before.annotations) + 1
    added = gt.annotations[-1]
    assert (added["image_id"], added["bbox"], added["iscrowd"]) == (image_id, [1, 2, 30, 40], 1)
    assert all(
        len(box) == 4 and min(box[2:]) > 0 for boxes in json.loads(UNLABELED.read_bytes()).values() for box in boxes
    )

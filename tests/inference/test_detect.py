import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from posedy.cli.main import main
from posedy.data.coco import read_coco
from posedy.data.detections import read_detections
from posedy.data.issues import CocoFileError
from posedy.evaluation.box_eval import evaluate_boxes
from posedy.inference.box_files import read_boxes_by_name
from posedy.inference.detect import ImageEntry, detect_images, entries_from_paths
from posedy.inference.detectors import base as detectors
from posedy.inference.predict import predict_images
from posedy.models.pose_net import PoseNet
from tools.lab.synthetic import generate_dataset


class LeftDetector:
    """Returns the box of the left tenth of the image, so that it shows the orientation."""

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        return np.array([[0, 0, width / 10, height]]), np.array([0.9])


class CenterDetector:
    """Returns a box in the center of the image and one with a lower score."""

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        box = np.array([width / 4, height / 4, 3 * width / 4, 3 * height / 4])
        return np.stack([box, box / 2]), np.array([0.9, 0.4])


@pytest.fixture
def synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    generate_dataset(tmp_path / "synthetic", 1, 4, 0)
    monkeypatch.setitem(detectors._DETECTORS, "posedy", CenterDetector)
    return tmp_path / "synthetic"


def test_results_file_is_readable_as_detections(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, images = synthetic / "annotations/person_keypoints_val2017.json", synthetic / "val2017"
    out = tmp_path / "boxes.json"
    assert main(["detect", str(images), "--annotations", str(annotations), "--out", str(out)]) == 0
    assert "8 boxes on 4 of 4 images" in capsys.readouterr().out
    persons = read_coco(annotations, images)
    boxes = read_detections(out, persons)
    assert len(boxes) == 8
    width, height = persons.image_sizes[boxes.image_index[0]]
    np.testing.assert_allclose(boxes.boxes[0], [width / 4, height / 4, 3 * width / 4, 3 * height / 4])


def test_boxes_are_evaluated(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations, metrics = synthetic / "annotations/person_keypoints_val2017.json", tmp_path / "metrics.json"
    command = ["detect", str(synthetic / "val2017"), "--out", str(tmp_path / "boxes.json"), "--eval"]
    assert main([*command, "--annotations", str(annotations), "--json", str(metrics)]) == 0
    evaluation = evaluate_boxes(annotations, json.loads((tmp_path / "boxes.json").read_text()))
    written = json.loads(metrics.read_text())
    assert written["AP"] == evaluation.metrics["AP"]
    assert written["recall_1"] == evaluation.recall_at(1)
    assert f"AP {written['AP']:.3f}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(command)
    assert "--annotations" in capsys.readouterr().err


def test_annotation_style_file_is_readable_by_predict(synthetic: Path, tmp_path: Path) -> None:
    image, out = sorted((synthetic / "val2017").iterdir())[0], tmp_path / "boxes.json"
    assert main(["detect", str(image), "--out", str(out)]) == 0
    height, width = cv2.imread(str(image)).shape[:2]
    content = json.loads(out.read_text())
    assert content["images"] == [{"id": 1, "file_name": image.name, "width": width, "height": height}]
    assert content["annotations"][0]["bbox"] == [width / 4, height / 4, width / 2, height / 2]
    boxes_by_name = read_boxes_by_name(out)
    np.testing.assert_allclose(boxes_by_name.by_name[image.name][1], [0.9, 0.4])
    assert boxes_by_name.sizes[image.name] == (width, height)


def test_invalid_boxes_are_dropped(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class PartlyInvalid(CenterDetector):
        def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            boxes, scores = super().detect(image)
            invalid = [[np.nan, 0, 9, 9], [-90, 0, -5, 40]]
            return np.concatenate([invalid, boxes]), np.concatenate([[0.9, 0.9], scores])

    monkeypatch.setitem(detectors._DETECTORS, "posedy", PartlyInvalid)
    out = tmp_path / "boxes.json"
    with pytest.warns(UserWarning, match="PartlyInvalid") as caught:
        assert main(["detect", str(synthetic / "val2017"), "--out", str(out)]) == 0
    assert len(caught) == 1
    assert "8 boxes on 4 of 4 images" in capsys.readouterr().out
    assert np.isfinite([entry["bbox"] for entry in json.loads(out.read_text())["annotations"]]).all()


def test_detector_of_an_imported_module_is_used(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detectors, "_DETECTORS", {**detectors._DETECTORS})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corner_module.py").write_text(
        "import posedy\n\n\n"
        "@posedy.register_detector('corner')\n"
        "class Corner:\n"
        "    def detect(self, image):\n"
        "        return [[0, 0, 9, 8], [0, 0, 7, 6]], [0.9, 0.2]\n"
    )
    command = ["detect", str(synthetic / "val2017"), "--out", "boxes.json", "--detector", "corner"]
    assert main(command) == 1
    assert "'corner'" in capsys.readouterr().err
    assert main([*command, "--import", "corner_module", "--box-threshold", "0.5"]) == 0
    del sys.modules["corner_module"]
    boxes = [entry["bbox"] for entry in json.loads(Path("boxes.json").read_text())["annotations"]]
    assert boxes == [[0, 0, 9, 8]] * 4


def test_files_are_readable_by_pycocotools(synthetic: Path, tmp_path: Path) -> None:
    annotations, images = synthetic / "annotations/person_keypoints_val2017.json", str(synthetic / "val2017")
    upright, results = tmp_path / "upright.json", tmp_path / "results.json"
    assert main(["detect", images, "--out", str(upright)]) == 0
    assert main(["detect", images, "--annotations", str(annotations), "--out", str(results)]) == 0
    standalone, ground_truth = COCO(str(upright)), COCO(str(annotations))
    as_results = ground_truth.loadRes(str(results))
    for image in standalone.imgs.values():
        [image_id] = [known["id"] for known in ground_truth.imgs.values() if known["file_name"] == image["file_name"]]
        boxes = [box["bbox"] for box in standalone.imgToAnns[image["id"]]]
        assert [box["bbox"] for box in as_results.imgToAnns[image_id]] == boxes
        assert len(boxes) == 2


def test_annotation_style_file_is_rejected_as_detections(synthetic: Path, tmp_path: Path) -> None:
    annotations, images = synthetic / "annotations/person_keypoints_val2017.json", synthetic / "val2017"
    assert main(["detect", str(images), "--out", str(tmp_path / "b.json")]) == 0
    with pytest.raises(CocoFileError, match=r"b\.json.*posedy detect.*--annotations"):
        read_detections(tmp_path / "b.json", read_coco(annotations, images))


def test_images_without_persons_are_recorded(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, images = (
        synthetic / "annotations/person_keypoints_val2017.json",
        sorted((synthetic / "val2017").iterdir()),
    )
    monkeypatch.setattr(CenterDetector, "detect", lambda self, image: ([], []))
    upright, results = tmp_path / "upright.json", tmp_path / "results.json"
    assert main(["detect", *map(str, images), "--out", str(upright)]) == 0
    assert "0 boxes on 0 of 4 images" in capsys.readouterr().out
    assert main(["detect", *map(str, images), "--annotations", str(annotations), "--out", str(results)]) == 0
    assert json.loads(results.read_text()) == []
    for boxes_by_name in (read_boxes_by_name(upright), read_boxes_by_name(results, annotations)):
        boxes = boxes_by_name.find(images[0])
        assert boxes is not None
        assert boxes[0].shape == (0, 4)


def test_image_missing_in_the_annotations_is_rejected(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = synthetic / "annotations/person_keypoints_val2017.json"
    unknown = tmp_path / "unknown.jpg"
    cv2.imwrite(str(unknown), np.zeros((20, 20, 3), dtype=np.uint8))
    assert main(["detect", str(unknown), "--annotations", str(annotations), "--out", str(tmp_path / "b.json")]) == 1
    assert "unknown.jpg" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """An image of 200 x 100 pixels as stored and 100 x 200 upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    path = tmp_path / "train/rotated.jpg"
    path.parent.mkdir()
    Image.new("RGB", (200, 100)).save(path, exif=exif)
    return path


def write_annotations(path: Path, *images: tuple[int, str, int, int]) -> Path:
    """Write an annotation file of images (id, file_name, width, height) with person category 5."""
    listed = [dict(zip(("id", "file_name", "width", "height"), image, strict=True)) for image in images]
    categories = [{"id": 5, "name": "person", "keypoints": ["nose"]}]
    path.write_text(json.dumps({"images": listed, "annotations": [], "categories": categories}))
    return path


def test_boxes_without_annotations_are_in_upright_pixels(
    synthetic: Path, net: PoseNet, rotated: Path, tmp_path: Path
) -> None:
    assert main(["detect", str(rotated), "--out", str(tmp_path / "b.json")]) == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["annotations"][0]["bbox"] == [25, 50, 50, 100]
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (100, 200)
    report = predict_images([rotated], net, tmp_path / "out", boxes_file=tmp_path / "b.json", device="cpu")
    assert report.records[0]["persons"][0]["box_xyxy"] == [25, 50, 75, 150]


def test_boxes_with_annotations_are_in_stored_pixels(
    synthetic: Path, net: PoseNet, rotated: Path, tmp_path: Path
) -> None:
    known = write_annotations(tmp_path / "known.json", (3, "train/rotated.jpg", 200, 100))
    assert main(["detect", str(rotated), "--annotations", str(known), "--out", str(tmp_path / "b.json")]) == 0
    record = json.loads((tmp_path / "b.json").read_text())[0]
    # posedy predict finds the image by the name in the annotation file
    assert (record["image_id"], record["file_name"]) == (3, "train/rotated.jpg")
    assert (record["width"], record["height"]) == (200, 100)
    assert record["bbox"] == [50, 25, 100, 50]
    for annotations in (None, known):
        boxes = {"boxes_file": tmp_path / "b.json", "annotations": annotations}
        report = predict_images([rotated], net, tmp_path / "out", device="cpu", **boxes)
        assert "200 x 100 as stored" in report.failures[rotated]
        assert "EXIF" in report.failures[rotated]


def test_image_with_another_size_than_recorded_fails(
    synthetic: Path, rotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = write_annotations(tmp_path / "known.json", (3, "rotated.jpg", 100, 200))
    assert main(["detect", str(rotated), "--annotations", str(known), "--out", str(tmp_path / "b.json")]) == 1
    assert re.search("100 x 200.*200 x 100", capsys.readouterr().err)


def test_unreadable_images_are_skipped_and_counted(
    synthetic: Path, rotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, out, numbers = tmp_path / "broken.jpg", tmp_path / "b.json", tmp_path / "numbers.json"
    broken.write_bytes(b"no image")
    assert main(["detect", str(broken), str(rotated), "--out", str(out), "--json", str(numbers)]) == 1
    printed = capsys.readouterr()
    assert f"{broken}: FAILED: " in printed.err
    assert "posedy detect: FAILED: 1 of 2 images" in printed.err
    assert "2 boxes on 1 of 1 images" in printed.out
    assert json.loads(numbers.read_text()) == {"boxes": 2, "images_with_boxes": 1, "images": 1, "failed": 1}
    assert [image["file_name"] for image in json.loads(out.read_text())["images"]] == ["rotated.jpg"]
    before = out.read_bytes()
    assert main(["detect", str(broken), "--out", str(out)]) == 1
    assert "all 1 images FAILED" in capsys.readouterr().err
    assert out.read_bytes() == before


def fail_to_create() -> CenterDetector:
    raise AssertionError("the detector was created")


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("train", "folder"),
        ("train/rotated.jpg", "would overwrite"),
        ("known.json", "would overwrite"),
        ("known.json/b.json", "known.json/b.json"),
    ],
)
def test_output_file_is_checked_before_detection(
    out: str,
    text: str,
    rotated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(detectors._DETECTORS, "posedy", fail_to_create)
    known = write_annotations(tmp_path / "known.json", (3, "rotated.jpg", 200, 100))
    before = known.read_bytes(), rotated.read_bytes()
    assert main(["detect", str(rotated), "--annotations", str(known), "--out", str(tmp_path / out)]) == 1
    assert text in capsys.readouterr().err
    assert (known.read_bytes(), rotated.read_bytes()) == before


@pytest.mark.parametrize("threshold", ["nan", "-0.1", "1.1", "inf", "low"])
def test_threshold_outside_0_to_1_exits_with_2(threshold: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["detect", "a.jpg", "--out", "b.json", f"--box-threshold={threshold}"])
    assert error.value.code == 2
    assert f"'{threshold}'" in capsys.readouterr().err


def test_equal_file_names_need_folders_in_the_annotations(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = []
    for folder in ("a", "b"):
        images.append(tmp_path / folder / "p.jpg")
        images[-1].parent.mkdir()
        cv2.imwrite(str(images[-1]), np.zeros((40, 40, 3), dtype=np.uint8))
    command = ["detect", *map(str, images), "--out", str(tmp_path / "b.json")]
    assert main(command) == 1
    assert "2 images are named p.jpg" in capsys.readouterr().err
    write_annotations(tmp_path / "known.json", (7, "b/p.jpg", 40, 40), (8, "a/p.jpg", 40, 40))
    assert main([*command, "--annotations", str(tmp_path / "known.json")]) == 0
    records = json.loads((tmp_path / "b.json").read_text())
    assert [record["image_id"] for record in records] == [8, 8, 7, 7]
    assert {record["category_id"] for record in records} == {5}


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [(1, [0, 0, 4, 60]), (2, [36, 0, 40, 60]), (3, [36, 0, 40, 60]), (6, [0, 54, 40, 60]), (8, [0, 0, 40, 6])],
)
def test_boxes_of_rotated_images_are_converted_to_stored_pixels(
    tmp_path: Path, orientation: int, stored: list[float]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 60)).save(tmp_path / "a.jpg", exif=exif)
    [upright] = detect_images(entries_from_paths([tmp_path / "a.jpg"]), LeftDetector(), print)
    width, height = upright.size
    assert (width, height) == ((60, 40) if orientation >= 5 else (40, 60))
    np.testing.assert_allclose(upright.boxes, [[0, 0, width / 10, height]])
    entry = ImageEntry(tmp_path / "a.jpg", "a.jpg", 1, apply_exif=False, recorded_size=(40, 60))
    [converted] = detect_images([entry], LeftDetector(), print)
    assert converted.size == (40, 60)
    np.testing.assert_allclose(converted.boxes, [stored], atol=1e-5)

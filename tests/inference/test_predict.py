import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from posedy.images import read_image
from posedy.inference.detectors import base as detectors
from posedy.inference.estimator import PoseEstimator
from posedy.inference.predict import drawing_names, predict_images
from posedy.models.pose_net import PoseNet

BOX = [[10, 20, 120, 140]]


@pytest.fixture
def paths(image: np.ndarray, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "in" / name for name in ("a.png", "b.png")]
    paths[0].parent.mkdir()
    Image.fromarray(image).save(paths[0])
    Image.fromarray(image[:120, ::-1]).save(paths[1])
    return paths


def read_json(out: Path) -> list[dict]:
    return json.loads((out / "keypoints.json").read_text())


def test_image_with_boxes_is_predicted_and_drawn(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    out, lines = tmp_path / "new" / "out", []
    report = predict_images(paths[:1], net, out, boxes=BOX, device="cpu", report=lines.append)
    assert report.failures == {}
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "keypoints.json"]
    poses = PoseEstimator(net, device="cpu")(paths[0], BOX)
    (record,) = read_json(out)
    assert record == report.records[0]
    assert record["persons"] == poses.to_records()
    assert (record["file"], record["width"], record["height"], record["drawing"]) == (str(paths[0]), 200, 150, "a.jpg")
    drawing = read_image(out / "a.jpg")[..., ::-1]
    _, encoded = cv2.imencode(".jpg", poses.draw(paths[0], boxes=True), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert (drawing == cv2.imdecode(encoded, cv2.IMREAD_COLOR)).all()
    assert any("1 person (read" in line and "keypoints" in line for line in lines)
    assert lines[-1].startswith("1 person on 1 of 1 images: ")


def test_image_missing_in_the_boxes_file_fails(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "boxes.json"
    entries = [
        {"file_name": "a.png", "bbox": [10, 20, 110, 120], "score": 0.9},
        {"file_name": "a.png", "bbox": [60, 20, 100, 110], "score": 0.5},
        {"file_name": "a.png", "bbox": [60, 20, 100, 110], "score": 0.1},
    ]
    file.write_text(json.dumps(entries))
    report = predict_images(paths, net, tmp_path / "out", boxes_file=file, device="cpu", report=lambda line: None)
    (record,) = read_json(tmp_path / "out")
    assert [person["box_score"] for person in record["persons"]] == [0.9, 0.5]
    assert record["persons"][0]["box_xyxy"] == [10, 20, 120, 140]
    assert list(report.failures) == [paths[1]]
    assert "--annotations FILE" in report.failures[paths[1]]
    with pytest.raises(ValueError, match=r"boxes\.json.*'a\.png'.*b\.png"):
        predict_images(paths[1:], net, tmp_path / "other", boxes_file=file, report=lambda line: None)
    assert not (tmp_path / "other").exists()


def test_boxes_outside_their_image_are_left_out_and_counted(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    file, lines = tmp_path / "boxes.json", []
    entries = [
        {"file_name": "a.png", "bbox": [10, 20, 110, 120]},
        {"file_name": "a.png", "bbox": [900, 900, 10, 10]},
        {"file_name": "b.png", "bbox": [0, 120, 50, 30]},
    ]
    file.write_text(json.dumps(entries))
    report = predict_images(paths, net, tmp_path / "out", boxes_file=file, device="cpu", report=lines.append)
    assert report.failures == {}
    assert [[person["box_xyxy"] for person in record["persons"]] for record in report.records] == [BOX, []]
    counts = [line for line in lines if line.startswith(str(tmp_path / "in")) and "left out" in line]
    assert [count.partition(" boxes")[0] for count in counts] == [f"{paths[0]}: 1 of 2", f"{paths[1]}: 1 of 1"]


@pytest.mark.parametrize("scale", [None, 200])
def test_boxes_in_another_form_are_named(net: PoseNet, paths: list[Path], tmp_path: Path, scale: float | None) -> None:
    file, out = tmp_path / "boxes.json", tmp_path / "out"
    boxes = np.array([[90, 60, 190, 140], [10, 20, 120, 140], [100, 30, 195, 110]]) / (scale or 1)
    file.write_text(json.dumps([{"file_name": "a.png", "bbox": box} for box in boxes.tolist()]))
    if scale is not None:
        with pytest.raises(ValueError, match=r"boxes\.json.*\n.*fractions"):
            predict_images(paths[:1], net, out, boxes_file=file)
        return
    with pytest.warns(UserWarning, match=r"boxes\.json.*x1, y1, x2, y2"):
        predict_images(paths[:1], net, out, boxes_file=file, device="cpu", report=lambda line: None)


def test_file_names_that_are_not_utf8_are_kept(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(paths[0].read_bytes())
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": path.name}], "annotations": [], "categories": []}))
    predict_images([path], net, tmp_path / "out", boxes_file=file, device="cpu", report=lambda line: None)
    (record,) = read_json(tmp_path / "out")
    assert Path(record["file"]).read_bytes() == paths[0].read_bytes()
    assert (tmp_path / "out" / record["drawing"]).is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_results_of_images_that_are_done_are_kept(
    net: PoseNet, paths: list[Path], tmp_path: Path, error: type[BaseException]
) -> None:
    def report(line: str) -> None:
        if line.startswith(str(paths[1])):
            raise error

    with pytest.raises(error):
        predict_images(paths, net, tmp_path / "out", detector="full-image", device="cpu", report=report)
    assert [record["drawing"] for record in read_json(tmp_path / "out")] == ["a.jpg", "b.jpg"]


def test_long_names_are_kept(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 245}.png"
    path.write_bytes(paths[0].read_bytes())
    report = predict_images([path], net, tmp_path / "out", detector="full-image", device="cpu", report=lambda _: None)
    assert not report.failures


def test_unreadable_images_are_skipped_and_counted(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "in" / "broken.jpg"
    broken.write_bytes(b"no image")
    lines: list[str] = []
    order = [paths[0], broken, tmp_path / "absent.jpg", paths[1]]
    report = predict_images(order, net, tmp_path / "out", detector="full-image", device="cpu", report=lines.append)
    assert list(report.failures) == [broken, tmp_path / "absent.jpg"]
    assert [record["drawing"] for record in read_json(tmp_path / "out")] == ["a.jpg", "b.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jpg", "keypoints.json"]
    assert any("broken.jpg: FAILED: " in line for line in lines)
    assert lines[-1] == "FAILED: 2 of 4 images"


def test_full_images_are_upright(net: PoseNet, image: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "rotated.jpg"
    Image.fromarray(image).save(path, exif=exif)
    predict_images([path], net, tmp_path / "out", detector="full-image", device="cpu", report=lambda line: None)
    (record,) = read_json(tmp_path / "out")
    assert (record["width"], record["height"]) == (150, 200)
    assert record["persons"][0]["box_xyxy"] == [0, 0, 150, 200]
    assert read_image(tmp_path / "out" / "rotated.jpg").shape == (200, 150, 3)


class FixedDetector:
    """Returns `BOX`, and a box with a score of 0.35."""

    def detect(self, image: np.ndarray) -> tuple[list, list]:
        return [*BOX, [0, 0, 50, 50]], [0.7, 0.35]


def test_boxes_of_the_detector_below_the_threshold_are_dropped(
    net: PoseNet, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = []

    def create(device: str, threshold: float) -> FixedDetector:
        arguments.append((device, threshold))
        return FixedDetector()

    monkeypatch.setitem(detectors._DETECTORS, "fixed", create)
    options = {"device": "cpu", "report": lambda line: None}
    for detector, threshold, scores in (("fixed", 0.4, [0.7]), (FixedDetector(), 0.3, [0.7, 0.35])):
        report = predict_images(paths, net, tmp_path / "out", detector=detector, box_threshold=threshold, **options)
        assert [[person["box_score"] for person in record["persons"]] for record in report.records] == [scores] * 2
    assert arguments == [("cpu", 0.4)]
    with pytest.raises(ValueError, match="'unknown'"):
        predict_images(paths, net, tmp_path / "out", detector="unknown")


def test_invalid_boxes_of_the_detector_are_dropped(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    class PartlyInvalid:
        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [*BOX, [np.nan, 0, 9, 9], [500, 0, 600, 90]], [0.7, 0.7, 0.7]

    with pytest.warns(UserWarning, match="PartlyInvalid") as caught:
        report = predict_images(
            paths, net, tmp_path / "out", detector=PartlyInvalid(), device="cpu", report=lambda line: None
        )
    assert len(caught) == 1
    assert report.failures == {}
    assert [len(record["persons"]) for record in report.records] == [1, 1]


def test_image_with_another_size_than_recorded_fails(net: PoseNet, image: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    names = ("valid", "rotated", "small")
    paths = [tmp_path / f"{name}.jpg" for name in names]
    Image.fromarray(image).save(paths[0])
    Image.fromarray(image).save(paths[1], exif=exif)
    Image.fromarray(image[::2, ::2]).save(paths[2])
    records = [{"id": i, "file_name": path.name, "width": 200, "height": 150} for i, path in enumerate(paths)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [10, 20, 60, 70]} for i in range(3)]
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps({"images": records, "annotations": boxes, "categories": []}))
    out = tmp_path / "out"
    report = predict_images(paths, net, out, boxes_file=file, device="cpu", report=lambda line: None)
    assert [record["file"] for record in report.records] == [str(paths[0])]
    assert "150 x 200" in report.failures[paths[1]]
    assert "EXIF" in report.failures[paths[1]]
    assert "100 x 75" in report.failures[paths[2]]
    assert "200 x 150" in report.failures[paths[2]]
    entries = [{"file_name": path.name, "width": 200, "height": 150, "bbox": [10, 20, 60, 70]} for path in paths]
    file.write_text(json.dumps(entries))
    assert (
        predict_images(paths, net, out, boxes_file=file, device="cpu", report=lambda line: None).failures
        == report.failures
    )


def test_zero_boxes_give_zero_persons(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    predict_images(paths[:1], net, tmp_path / "out", boxes=[], device="cpu", report=lambda line: None)
    assert read_json(tmp_path / "out")[0]["persons"] == []


def test_exactly_one_source_of_boxes_is_required(net: PoseNet, paths: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"--box x1.*--boxes FILE.*--detector NAME"):
        predict_images(paths, net, out)
    with pytest.raises(ValueError, match="exactly one of"):
        predict_images(paths[:1], net, out, boxes=BOX, detector="full-image")
    with pytest.raises(ValueError, match=r"--box .*2 images"):
        predict_images(paths, net, out, boxes=BOX)
    with pytest.raises(ValueError, match="--annotations"):
        predict_images(paths, net, out, detector="full-image", annotations="x.json")
    with pytest.raises(ValueError, match="box 0"):
        predict_images(paths[:1], net, out, boxes=[[5, 5, 1, 1]])
    assert not out.exists()


def test_input_image_is_never_overwritten(net: PoseNet, image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(image).save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"a\.jpg.*--out"):
        predict_images([path], net, tmp_path, detector="full-image")
    assert path.read_bytes() == before


def test_output_folder_is_checked_before_prediction(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/keypoints\.json.*Not a directory"):
        predict_images(paths, "no such model", tmp_path / "file", detector="full-image")


def test_drawing_names_numbers_equal_names() -> None:
    paths = [Path(name) for name in ("x/a.jpg", "y/a.png", "z/A.jpg", "a-2.jpg", "b.c.jpg", "b.jpg")]
    names = drawing_names(paths)
    assert names == ["a.jpg", "a-3.jpg", "A-4.jpg", "a-2.jpg", "b.c.jpg", "b.jpg"]
    assert len({name.casefold() for name in names}) == len(names)


def test_failed_write_keeps_the_old_file(
    net: PoseNet, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    predict_images(paths[:1], net, out, detector="full-image", device="cpu", report=lambda line: None)
    before, records = (out / "a.jpg").read_bytes(), read_json(out)
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    report = predict_images(paths[:1], net, out, boxes=BOX, device="cpu", report=lambda line: None)
    assert "cannot be encoded" in report.failures[paths[0]]
    assert (out / "a.jpg").read_bytes() == before
    assert read_json(out) == records

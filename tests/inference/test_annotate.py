import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from posedy.images import read_image
from posedy.inference.estimator import PoseEstimator
from posedy.inference.predict import drawing_names, predict_images
from posedy.models.pose_net import PoseNet

BOX = [[10, 20, 120, 140]]


@pytest.fixture
def photos(photo: np.ndarray, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "in" / name for name in ("a.png", "b.png")]
    paths[0].parent.mkdir()
    Image.fromarray(photo).save(paths[0])
    Image.fromarray(photo[:120, ::-1]).save(paths[1])
    return paths


def read_json(out: Path) -> list[dict]:
    return json.loads((out / "keypoints.json").read_text())


def test_one_photo_with_boxes(net: PoseNet, photos: list[Path], photo: np.ndarray, tmp_path: Path) -> None:
    out, lines = tmp_path / "new" / "out", []
    done = predict_images(photos[:1], net, out, boxes=BOX, device="cpu", report=lines.append)
    assert done.failures == {}
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "keypoints.json"]
    poses = PoseEstimator(net, device="cpu")(photos[0], BOX)
    (record,) = read_json(out)
    assert record == done.records[0]
    assert record["persons"] == poses.to_records()
    assert (record["file"], record["width"], record["height"], record["drawing"]) == (str(photos[0]), 200, 150, "a.jpg")
    drawn = read_image(out / "a.jpg")[..., ::-1]
    _, encoded = cv2.imencode(".jpg", poses.draw(photos[0], boxes=True), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert (drawn == cv2.imdecode(encoded, cv2.IMREAD_COLOR)).all()
    assert any("1 person (read" in line and "keypoints" in line for line in lines)
    assert lines[-1].startswith("1 person on 1 of 1 photos: ")


def test_boxes_from_a_file_and_a_photo_that_it_does_not_know(net: PoseNet, photos: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "boxes.json"
    entries = [
        {"file_name": "a.png", "bbox": [10, 20, 110, 120], "score": 0.9},
        {"file_name": "a.png", "bbox": [60, 20, 100, 110], "score": 0.5},
        {"file_name": "a.png", "bbox": [60, 20, 100, 110], "score": 0.1},
    ]
    file.write_text(json.dumps(entries))
    done = predict_images(photos, net, tmp_path / "out", boxes_file=file, device="cpu", report=lambda line: None)
    (record,) = read_json(tmp_path / "out")
    assert [person["box_score"] for person in record["persons"]] == [0.9, 0.5]
    assert record["persons"][0]["box_xyxy"] == [10, 20, 120, 140]
    assert list(done.failures) == [photos[1]]
    assert "does not know this photo: a list knows photos with boxes only" in done.failures[photos[1]]
    with pytest.raises(ValueError, match=r"knows none of the 1 photos: .*'a\.png'.*b\.png"):
        predict_images(photos[1:], net, tmp_path / "other", boxes_file=file, report=lambda line: None)
    assert not (tmp_path / "other").exists()


def test_an_unreadable_photo_does_not_lose_the_others(net: PoseNet, photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "in" / "broken.jpg"
    broken.write_bytes(b"no picture")
    lines: list[str] = []
    order = [photos[0], broken, tmp_path / "absent.jpg", photos[1]]
    done = predict_images(order, net, tmp_path / "out", whole=True, device="cpu", report=lines.append)
    assert list(done.failures) == [broken, tmp_path / "absent.jpg"]
    assert [record["drawing"] for record in read_json(tmp_path / "out")] == ["a.jpg", "b.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jpg", "keypoints.json"]
    assert any("broken.jpg: NOT DONE" in line for line in lines)
    assert lines[-1].endswith("not done: 2")


def test_whole_photos_are_upright(net: PoseNet, photo: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(photo).save(path, exif=exif)
    predict_images([path], net, tmp_path / "out", whole=True, device="cpu", report=lambda line: None)
    (record,) = read_json(tmp_path / "out")
    assert (record["width"], record["height"]) == (150, 200)
    assert record["persons"][0]["box_xyxy"] == [0, 0, 150, 200]
    assert read_image(tmp_path / "out" / "turned.jpg").shape == (200, 150, 3)


def test_a_detector_finds_the_persons(
    net: PoseNet, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Fixed:
        def __init__(self, *given: object) -> None:
            made.append(given)

        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return BOX, [0.7]

    monkeypatch.setattr("posedy.inference.predict.TorchvisionDetector", Fixed)
    weights = tmp_path / "weights.pth"
    given = {"detect": True, "detector_weights": weights, "device": "cpu", "box_threshold": 0.4}
    done = predict_images(photos, net, tmp_path / "out", report=lambda line: None, **given)
    assert made == [(weights, "cpu", 0.4)]
    assert [record["persons"][0]["box_score"] for record in done.records] == [0.7, 0.7]
    with pytest.raises(ValueError, match="--detector-weights belongs to --detect"):
        predict_images(photos, net, tmp_path / "out", whole=True, detector_weights=weights)
    with pytest.raises(ValueError, match="give one way only"):
        predict_images(photos, net, tmp_path / "out", whole=True, detect=True)


def test_a_bad_box_of_the_detector_does_not_lose_the_photo(
    net: PoseNet, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Flawed:
        def __init__(self, *given: object) -> None:
            pass

        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [*BOX, [np.nan, 0, 9, 9], [500, 0, 600, 90]], [0.7, 0.7, 0.7]

    monkeypatch.setattr("posedy.inference.predict.TorchvisionDetector", Flawed)
    with pytest.warns(UserWarning, match="Flawed") as caught:
        done = predict_images(photos, net, tmp_path / "out", detect=True, device="cpu", report=lambda line: None)
    assert len(caught) == 1
    assert done.failures == {}
    assert [len(record["persons"]) for record in done.records] == [1, 1]


def test_boxes_of_another_size_of_photo_are_not_used(net: PoseNet, photo: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    names = ("fits", "turned", "shrunk")
    photos = [tmp_path / f"{name}.jpg" for name in names]
    Image.fromarray(photo).save(photos[0])
    Image.fromarray(photo).save(photos[1], exif=exif)
    Image.fromarray(photo[::2, ::2]).save(photos[2])
    records = [{"id": i, "file_name": path.name, "width": 200, "height": 150} for i, path in enumerate(photos)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [10, 20, 60, 70]} for i in range(3)]
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps({"images": records, "annotations": boxes, "categories": []}))
    out = tmp_path / "out"
    done = predict_images(photos, net, out, boxes_file=file, device="cpu", report=lambda line: None)
    assert [record["file"] for record in done.records] == [str(photos[0])]
    assert "upright the photo is 150 x 200 pixels, the boxes count in 200 x 150 as stored" in done.failures[photos[1]]
    assert "EXIF" in done.failures[photos[1]]
    assert "is 100 x 75 pixels, the boxes count in 200 x 150: give the photo" in done.failures[photos[2]]
    entries = [{"file_name": path.name, "width": 200, "height": 150, "bbox": [10, 20, 60, 70]} for path in photos]
    file.write_text(json.dumps(entries))
    assert (
        predict_images(photos, net, out, boxes_file=file, device="cpu", report=lambda line: None).failures
        == done.failures
    )


def test_zero_boxes_are_zero_persons(net: PoseNet, photos: list[Path], tmp_path: Path) -> None:
    predict_images(photos[:1], net, tmp_path / "out", boxes=[], device="cpu", report=lambda line: None)
    assert read_json(tmp_path / "out")[0]["persons"] == []


def test_it_must_be_clear_where_the_persons_are(net: PoseNet, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"where are the persons\? .*--box x1.*--boxes FILE.*--whole"):
        predict_images(photos, net, out)
    with pytest.raises(ValueError, match="one way only"):
        predict_images(photos[:1], net, out, boxes=BOX, whole=True)
    with pytest.raises(ValueError, match="--box belongs to one photo, got 2 photos"):
        predict_images(photos, net, out, boxes=BOX)
    with pytest.raises(ValueError, match="--annotations belongs to --boxes"):
        predict_images(photos, net, out, whole=True, annotations="x.json")
    with pytest.raises(ValueError, match="box 0 has no area"):
        predict_images(photos[:1], net, out, boxes=[[5, 5, 1, 1]])
    assert not out.exists()


def test_a_photo_is_never_written_over(net: PoseNet, photo: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photo).save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"would take the place of a photo: choose another --out"):
        predict_images([path], net, tmp_path, whole=True)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_said_before_the_work(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/keypoints\.json cannot be written \(Not a directory\)"):
        predict_images(photos, "no such model", tmp_path / "file", whole=True)


def test_equal_names_get_numbers() -> None:
    photos = [Path(name) for name in ("x/a.jpg", "y/a.png", "z/A.jpg", "a-2.jpg", "b.c.jpg", "b.jpg")]
    names = drawing_names(photos)
    assert names == ["a.jpg", "a-3.jpg", "A-4.jpg", "a-2.jpg", "b.c.jpg", "b.jpg"]
    assert len({name.casefold() for name in names}) == len(names)


def test_a_failing_write_leaves_the_old_file(
    net: PoseNet, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    predict_images(photos[:1], net, out, whole=True, device="cpu", report=lambda line: None)
    before = (out / "a.jpg").read_bytes()
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    done = predict_images(photos[:1], net, out, boxes=BOX, device="cpu", report=lambda line: None)
    assert "cannot be encoded" in done.failures[photos[0]]
    assert (out / "a.jpg").read_bytes() == before
    assert read_json(out) == []

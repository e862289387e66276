import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from posedy.cli import main
from posedy.data.coco import read_coco
from posedy.data.detections import read_detections
from posedy.data.synthetic import draw_dataset


class Middle:
    """A detector that finds a person in the middle half of each photo, and one less sure."""

    def __init__(self, *given: object) -> None:
        self.given = given

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        box = np.array([width / 4, height / 4, 3 * width / 4, 3 * height / 4])
        return np.stack([box, box / 2]), np.array([0.9, 0.4])


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw_dataset(tmp_path / "drawn", 1, 4, 0)
    monkeypatch.setattr("posedy.inference.detectors.TorchvisionDetector", Middle)
    return tmp_path / "drawn"


def test_the_file_is_one_for_posedy_test(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations, photos = drawn / "annotations/person_keypoints_val2017.json", drawn / "val2017"
    out = tmp_path / "boxes.json"
    assert main(["detect", str(photos), "--annotations", str(annotations), "--out", str(out)]) == 0
    assert "8 boxes on 4 of 4 photos" in capsys.readouterr().out
    persons = read_coco(annotations, photos)
    boxes = read_detections(out, persons)
    assert len(boxes) == 8
    width, height = persons.image_sizes[boxes.image_index[0]]
    np.testing.assert_allclose(boxes.boxes[0], [width / 4, height / 4, 3 * width / 4, 3 * height / 4])


def test_the_file_is_one_for_posedy_demo(drawn: Path, tmp_path: Path) -> None:
    photo, out = sorted((drawn / "val2017").iterdir())[0], tmp_path / "boxes.json"
    assert main(["detect", str(photo), "--out", str(out)]) == 0
    records = json.loads(out.read_text())
    assert [record["file_name"] for record in records] == [photo.name] * 2
    assert "image_id" not in records[0]
    height, width = cv2.imread(str(photo)).shape[:2]
    assert records[0]["bbox"] == [width / 4, height / 4, width / 2, height / 2]


def test_photos_that_the_annotations_do_not_know_are_named(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = drawn / "annotations/person_keypoints_val2017.json"
    stranger = tmp_path / "stranger.jpg"
    cv2.imwrite(str(stranger), np.zeros((20, 20, 3), dtype=np.uint8))
    assert main(["detect", str(stranger), "--annotations", str(annotations), "--out", str(tmp_path / "b.json")]) == 1
    assert "has no image stranger.jpg" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


def test_photos_without_annotations_are_seen_upright_as_the_demo_sees_them(drawn: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (200, 100)).save(tmp_path / "turned.jpg", exif=exif)
    assert main(["detect", str(tmp_path / "turned.jpg"), "--out", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())[0]["bbox"] == [25, 50, 50, 100]


def test_photos_of_one_name_are_told_apart_by_their_folders_or_refused(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = []
    for folder in ("a", "b"):
        photos.append(tmp_path / folder / "p.jpg")
        photos[-1].parent.mkdir()
        cv2.imwrite(str(photos[-1]), np.zeros((40, 40, 3), dtype=np.uint8))
    words = ["detect", *map(str, photos), "--out", str(tmp_path / "b.json")]
    assert main(words) == 1
    assert "2 photos are named p.jpg" in capsys.readouterr().err
    images = [
        {"id": number, "file_name": f"{folder}/p.jpg", "width": 40, "height": 40}
        for number, folder in ((7, "b"), (8, "a"))
    ]
    categories = [{"id": 5, "name": "person", "keypoints": ["nose"]}]
    (tmp_path / "known.json").write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    assert main([*words, "--annotations", str(tmp_path / "known.json")]) == 0
    records = json.loads((tmp_path / "b.json").read_text())
    assert [record["image_id"] for record in records] == [8, 8, 7, 7]
    assert {record["category_id"] for record in records} == {5}

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from posedy.cli.main import main
from posedy.data.coco import read_coco
from posedy.data.detections import read_detections
from posedy.data.findings import CocoFileError
from posedy.inference.box_files import boxes_from_file
from posedy.inference.predict import predict_images
from posedy.models.pose_net import PoseNet
from tools.lab.synthetic import draw_dataset


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
    height, width = cv2.imread(str(photo)).shape[:2]
    content = json.loads(out.read_text())
    assert content["images"] == [{"id": 1, "file_name": photo.name, "width": width, "height": height}]
    assert content["annotations"][0]["bbox"] == [width / 4, height / 4, width / 2, height / 2]
    found = boxes_from_file(out)
    np.testing.assert_allclose(found.by_name[photo.name][1], [0.9, 0.4])
    assert found.sizes[photo.name] == (width, height)


def test_bad_boxes_are_not_written(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Flawed(Middle):
        def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            boxes, scores = super().detect(image)
            bad = [[np.nan, 0, 9, 9], [-90, 0, -5, 40]]
            return np.concatenate([bad, boxes]), np.concatenate([[0.9, 0.9], scores])

    monkeypatch.setattr("posedy.inference.detectors.TorchvisionDetector", Flawed)
    out = tmp_path / "boxes.json"
    with pytest.warns(UserWarning, match="Flawed") as caught:
        assert main(["detect", str(drawn / "val2017"), "--out", str(out)]) == 0
    assert len(caught) == 1
    assert "8 boxes on 4 of 4 photos" in capsys.readouterr().out
    assert np.isfinite([entry["bbox"] for entry in json.loads(out.read_text())["annotations"]]).all()


def test_the_file_is_one_for_pycocotools(drawn: Path, tmp_path: Path) -> None:
    annotations, photos = drawn / "annotations/person_keypoints_val2017.json", str(drawn / "val2017")
    upright, results = tmp_path / "upright.json", tmp_path / "results.json"
    assert main(["detect", photos, "--out", str(upright)]) == 0
    assert main(["detect", photos, "--annotations", str(annotations), "--out", str(results)]) == 0
    by_itself, truth = COCO(str(upright)), COCO(str(annotations))
    as_results = truth.loadRes(str(results))
    for image in by_itself.imgs.values():
        [image_id] = [known["id"] for known in truth.imgs.values() if known["file_name"] == image["file_name"]]
        boxes = [box["bbox"] for box in by_itself.imgToAnns[image["id"]]]
        assert [box["bbox"] for box in as_results.imgToAnns[image_id]] == boxes
        assert len(boxes) == 2


def test_the_object_is_refused_by_posedy_test_with_what_to_do(drawn: Path, tmp_path: Path) -> None:
    annotations, photos = drawn / "annotations/person_keypoints_val2017.json", drawn / "val2017"
    assert main(["detect", str(photos), "--out", str(tmp_path / "b.json")]) == 0
    with pytest.raises(CocoFileError, match=r"holds a dict .* posedy detect writes such a list if given --annot"):
        read_detections(tmp_path / "b.json", read_coco(annotations, photos))


def test_photos_without_persons_are_known(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, photos = drawn / "annotations/person_keypoints_val2017.json", sorted((drawn / "val2017").iterdir())
    monkeypatch.setattr(Middle, "detect", lambda self, image: ([], []))
    upright, results = tmp_path / "upright.json", tmp_path / "results.json"
    assert main(["detect", *map(str, photos), "--out", str(upright)]) == 0
    assert "0 boxes on 0 of 4 photos" in capsys.readouterr().out
    assert main(["detect", *map(str, photos), "--annotations", str(annotations), "--out", str(results)]) == 0
    assert json.loads(results.read_text()) == []
    for found in (boxes_from_file(upright), boxes_from_file(results, annotations)):
        boxes = found.of(photos[0])
        assert boxes is not None
        assert boxes[0].shape == (0, 4)


def test_photos_that_the_annotations_do_not_know_are_named(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = drawn / "annotations/person_keypoints_val2017.json"
    stranger = tmp_path / "stranger.jpg"
    cv2.imwrite(str(stranger), np.zeros((20, 20, 3), dtype=np.uint8))
    assert main(["detect", str(stranger), "--annotations", str(annotations), "--out", str(tmp_path / "b.json")]) == 1
    assert "has no image stranger.jpg" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """A photo of 200 x 100 pixels as stored, upright 100 x 200, in a folder of its own."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = tmp_path / "train/turned.jpg"
    path.parent.mkdir()
    Image.new("RGB", (200, 100)).save(path, exif=exif)
    return path


def write_annotations(path: Path, *images: tuple[int, str, int, int]) -> Path:
    """An annotation file of images (id, file_name, width, height) whose persons have category 5."""
    listed = [dict(zip(("id", "file_name", "width", "height"), image, strict=True)) for image in images]
    categories = [{"id": 5, "name": "person", "keypoints": ["nose"]}]
    path.write_text(json.dumps({"images": listed, "annotations": [], "categories": categories}))
    return path


def test_photos_without_annotations_are_seen_upright_as_the_demo_sees_them(
    drawn: Path, net: PoseNet, turned: Path, tmp_path: Path
) -> None:
    assert main(["detect", str(turned), "--out", str(tmp_path / "b.json")]) == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["annotations"][0]["bbox"] == [25, 50, 50, 100]
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (100, 200)
    done = predict_images([turned], net, tmp_path / "out", boxes_file=tmp_path / "b.json", device="cpu")
    assert done.records[0]["persons"][0]["box_xyxy"] == [25, 50, 75, 150]


def test_boxes_for_annotations_count_in_stored_pixels_and_the_demo_says_so(
    drawn: Path, net: PoseNet, turned: Path, tmp_path: Path
) -> None:
    known = write_annotations(tmp_path / "known.json", (3, "train/turned.jpg", 200, 100))
    assert main(["detect", str(turned), "--annotations", str(known), "--out", str(tmp_path / "b.json")]) == 0
    record = json.loads((tmp_path / "b.json").read_text())[0]
    # the name is the annotation file's own, by which the demo finds the photo
    assert (record["image_id"], record["file_name"]) == (3, "train/turned.jpg")
    assert (record["width"], record["height"]) == (200, 100)
    assert record["bbox"] == [50, 25, 100, 50]
    for annotations in (None, known):
        boxes = {"boxes_file": tmp_path / "b.json", "annotations": annotations}
        done = predict_images([turned], net, tmp_path / "out", device="cpu", **boxes)
        assert "count in 200 x 100 as stored, before the turn" in done.failures[turned]


def test_boxes_would_not_fit_annotations_of_another_size(
    drawn: Path, turned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = write_annotations(tmp_path / "known.json", (3, "turned.jpg", 100, 200))
    assert main(["detect", str(turned), "--annotations", str(known), "--out", str(tmp_path / "b.json")]) == 1
    assert "records 100 x 200 pixels, as stored the photo has 200 x 100" in capsys.readouterr().err


def test_an_unreadable_photo_does_not_lose_the_others(
    drawn: Path, turned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, out = tmp_path / "broken.jpg", tmp_path / "b.json"
    broken.write_bytes(b"no picture")
    assert main(["detect", str(broken), str(turned), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert f"{broken}: NOT DONE: photo {broken} (10 bytes) is not a picture" in printed.err
    assert printed.err.endswith("1 of 2 photos NOT DONE: see above why\n")
    assert "2 boxes on 1 of 1 photos" in printed.out
    assert [image["file_name"] for image in json.loads(out.read_text())["images"]] == ["turned.jpg"]
    before = out.read_bytes()
    assert main(["detect", str(broken), "--out", str(out)]) == 1
    assert "none of the 1 photos could be looked at, and nothing was written" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("train", "it is a folder"),
        ("train/turned.jpg", "would take the place of"),
        ("known.json", "would take the place of"),
        ("known.json/b.json", "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    out: str,
    words: str,
    turned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("posedy.inference.detectors.TorchvisionDetector", None)
    known = write_annotations(tmp_path / "known.json", (3, "turned.jpg", 200, 100))
    before = known.read_bytes(), turned.read_bytes()
    assert main(["detect", str(turned), "--annotations", str(known), "--out", str(tmp_path / out)]) == 1
    assert words in capsys.readouterr().err
    assert (known.read_bytes(), turned.read_bytes()) == before


@pytest.mark.parametrize("threshold", ["nan", "-0.1", "1.1", "inf", "low"])
def test_thresholds_that_are_no_scores_are_wrong_usage(threshold: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["detect", "a.jpg", "--out", "b.json", f"--box-threshold={threshold}"])
    assert error.value.code == 2
    assert f"'{threshold}' is not a score from 0 to 1" in capsys.readouterr().err


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
    write_annotations(tmp_path / "known.json", (7, "b/p.jpg", 40, 40), (8, "a/p.jpg", 40, 40))
    assert main([*words, "--annotations", str(tmp_path / "known.json")]) == 0
    records = json.loads((tmp_path / "b.json").read_text())
    assert [record["image_id"] for record in records] == [8, 8, 7, 7]
    assert {record["category_id"] for record in records} == {5}

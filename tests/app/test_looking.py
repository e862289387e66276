import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.app.service import EVERYONE, WHOLE, PoseService
from posedy.inference.estimator import PoseEstimator


@pytest.fixture
def looker(model: str) -> PoseService:
    return PoseService((model,), device="cpu")


@pytest.fixture
def photo(tmp_path: Path) -> str:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.resize(coarse, (100, 120)))
    return str(tmp_path / "photo.png")


def test_a_photo_is_what_the_estimator_sees(looker: PoseService, model: str, photo: str) -> None:
    seen = looker.photo(photo, model, WHOLE, 0.2)
    (record,) = json.loads(seen.keypoints.read_text())
    expected = PoseEstimator(model, "cpu")(photo, [[0, 0, 100, 120]])
    assert record["persons"] == expected.to_records()
    assert (record["width"], record["height"]) == (100, 120)
    assert isinstance(seen.drawn, np.ndarray)
    assert seen.drawn.shape == (120, 100, 3)
    assert seen.words.startswith("1 person in")


def test_networks_and_detector_are_loaded_once(looker: PoseService, model: str, photo: str, monkeypatch) -> None:
    made = []

    class Two:
        def __init__(self, *given: object) -> None:
            made.append(given)

        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [[0, 0, 50, 100], [40, 0, 90, 110]], [0.9, 0.8]

    monkeypatch.setattr("posedy.app.service.TorchvisionDetector", Two)
    for _ in range(2):
        assert looker.photo(photo, model, EVERYONE, 0.2).words.startswith("2 persons in")
    assert made == [(None, "cpu", 0.3)]
    assert len(looker._estimators) == 1


def test_bad_boxes_of_the_detector_are_dropped(looker: PoseService, model: str, photo: str, monkeypatch) -> None:
    class Flawed:
        def __init__(self, *given: object) -> None:
            pass

        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [[0, 0, 50, 100], [np.nan, 0, 9, 9], [40, 0, 40, 110]], [0.9, 0.8, 0.8]

    monkeypatch.setattr("posedy.app.service.TorchvisionDetector", Flawed)
    with pytest.warns(UserWarning, match="Flawed") as caught:
        seen = [looker.photo(photo, model, EVERYONE, 0.2) for _ in range(2)]
    assert len(caught) == 1
    assert all(each.words.startswith("1 person in") for each in seen)


def test_a_video_is_drawn(looker: PoseService, model: str, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 96))
    for _ in range(4):
        writer.write(np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8))
    writer.release()
    seen = looker.video(str(tmp_path / "v.avi"), model, WHOLE, 0.2)
    assert seen.words.startswith("4 frames, ")
    assert isinstance(seen.drawn, Path)
    assert seen.drawn.stat().st_size > 0
    assert len(seen.keypoints.read_text().splitlines()) == 4


def test_pictures_of_a_camera_are_followed(looker: PoseService, model: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    drawn, first = looker.camera(picture, model, WHOLE, 0.2, None)
    assert drawn.shape == picture.shape
    _, second = looker.camera(picture, model, WHOLE, 0.2, first)
    assert second is first
    first.last -= 100
    assert looker.camera(picture, model, WHOLE, 0.2, first)[1] is not first


def test_what_is_no_picture_is_refused(looker: PoseService, model: str, photo: str, tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    with pytest.raises((OSError, ValueError), match="notes"):
        looker.photo(str(text), model, WHOLE, 0.2)
    with pytest.raises(ValueError, match=r"notes\.jpg (is no video|has no frame)"):
        looker.video(str(text), model, WHOLE, 0.2)
    with pytest.raises(ValueError, match="the models to choose from"):
        looker.photo(photo, "other", WHOLE, 0.2)
    with pytest.raises(ValueError, match="persons are found as"):
        looker.photo(photo, model, "somehow", 0.2)

import json
import os
import re
import shutil
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from posedy.app.service import VIDEO_FORMAT, PoseService
from posedy.export.onnx import export_onnx
from posedy.inference.detectors import base as detectors
from posedy.inference.estimator import PoseEstimator
from posedy.models.factory import create_model
from posedy.skeleton import COCO17


@pytest.fixture
def service(model: str) -> PoseService:
    return PoseService((model,), device="cpu")


@pytest.fixture
def image_path(tmp_path: Path) -> str:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), cv2.resize(coarse, (100, 120)))
    return str(tmp_path / "image.png")


def test_process_image_equals_estimator(service: PoseService, model: str, image_path: str) -> None:
    result = service.process_image(image_path, model, "full-image", 0.2)
    json_file, csv_file = result.keypoints
    (record,) = json.loads(json_file.read_text())
    expected = PoseEstimator(model, "cpu")(image_path, [[0, 0, 100, 120]])
    assert record["persons"] == expected.to_records()
    assert (record["width"], record["height"]) == (100, 120)
    assert csv_file.read_text() == expected.to_csv()
    assert cv2.imread(str(result.drawing)).shape == (120, 100, 3)
    assert {file.stem for file in (result.drawing, *result.keypoints)} == {"image-poses", "image-keypoints"}
    assert result.summary.startswith("1 person in")


def test_networks_and_detector_are_loaded_once(
    service: PoseService, model: str, image_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    constructed = []

    class TwoPersons:
        def __init__(self, device: str, weights: Path | None = None, threshold: float = 0.5) -> None:
            constructed.append((device, weights, threshold))

        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [[0, 0, 50, 100], [40, 0, 90, 110]], [0.9, 0.8]

    monkeypatch.setitem(detectors._DETECTORS, "posedy", TwoPersons)
    for _ in range(2):
        service._poses.clear()
        assert service.process_image(image_path, model, "posedy", 0.2).summary.startswith("2 persons in")
    assert constructed == [("cpu", None, 0.3)]
    assert len(service._estimators) == 1


def test_another_threshold_draws_the_same_poses(
    service: PoseService, model: str, image_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = service.process_image(image_path, model, "full-image", 0.0)
    monkeypatch.setattr(service, "_get_estimator", None)  # the network is not needed again
    second = service.process_image(image_path, model, "full-image", 1.0)
    assert first.keypoints[0].read_text() == second.keypoints[0].read_text()
    assert first.drawing.read_bytes() != second.drawing.read_bytes()
    assert first.summary == second.summary
    os.utime(image_path, (0, 0))
    with pytest.raises(TypeError):
        service.process_image(image_path, model, "full-image", 0.0)  # a changed file is another image


def test_old_results_are_deleted(
    service: PoseService, model: str, image_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posedy.app.service._NUM_KEPT", 2)
    results = [service.process_image(image_path, model, "full-image", threshold) for threshold in (0.1, 0.2, 0.3)]
    assert [result.drawing.exists() for result in results] == [False, True, True]


def test_invalid_and_low_scoring_boxes_of_detector_are_dropped(
    service: PoseService, model: str, image_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FaultyDetector:
        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [[0, 0, 50, 100], [np.nan, 0, 9, 9], [40, 0, 40, 110], [0, 0, 9, 9]], [0.9, 0.8, 0.8, 0.2]

    monkeypatch.setitem(detectors._DETECTORS, "posedy", FaultyDetector)
    images = [image_path, shutil.copyfile(image_path, Path(image_path).with_name("copy.png"))]
    with pytest.warns(UserWarning, match="FaultyDetector") as caught:
        results = [service.process_image(str(image), model, "posedy", 0.2) for image in images]
    assert sum("FaultyDetector" in str(warning.message) for warning in caught) == 1  # gradio's threads warn, too
    assert all(result.summary.startswith("1 person in") for result in results)


def write_video(path: Path, frames: int) -> str:
    """Writes a video of noise and returns its path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 96))
    for _ in range(frames):
        writer.write(np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8))
    writer.release()
    return str(path)


def test_process_video_writes_video_and_keypoints(service: PoseService, model: str, tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 4)
    progress: list[tuple[int, int | None]] = []
    result = service.process_video(
        str(tmp_path / "v.avi"), model, "full-image", 0.2, lambda *numbers: progress.append(numbers)
    )
    assert progress == [(number, 4) for number in (1, 2, 3, 4)]
    assert result.summary.startswith("4 frames, ")
    assert result.drawing.name == f"v-poses.{VIDEO_FORMAT.lower()}"
    assert result.drawing.stat().st_size > 0
    (keypoints,) = result.keypoints
    assert len(keypoints.read_text().splitlines()) == 4


def test_summary_counts_one_frame_and_missing_ones(service: PoseService, model: str, tmp_path: Path) -> None:
    one = write_video(tmp_path / "one.avi", 1)
    assert service.process_video(one, model, "full-image", 0.2).summary.startswith("1 frame, ")
    content = Path(write_video(tmp_path / "whole.avi", 8)).read_bytes()
    (tmp_path / "truncated.avi").write_bytes(content[: len(content) // 2])
    summary = service.process_video(str(tmp_path / "truncated.avi"), model, "full-image", 0.2).summary
    frames, missing = map(int, re.findall(r"(\d+) frames?(?:,| of)", summary))
    assert "ends early" in summary
    assert frames + missing == 8


def test_service_deletes_its_files_and_stops_a_video_at_its_end(
    service: PoseService, model: str, image_path: str, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "v.avi", 4)
    with service:
        drawing = service.process_image(image_path, model, "full-image", 0.2).drawing
        assert service.folder in drawing.parents
        assert stat.S_IMODE(service.folder.stat().st_mode) == 0o700
        service._is_closed = True  # as while the page stops
        with pytest.raises(InterruptedError, match=r"v\.avi was stopped at frame 0"):
            service.process_video(video, model, "full-image", 0.2)
    assert not service.folder.exists()


def test_process_frame_keeps_state_until_a_gap(service: PoseService, model: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    drawing, first = service.process_frame(frame, model, "full-image", 0.2, None)
    assert drawing.shape == frame.shape
    first.last_time = time.monotonic()  # the first frame may take seconds on a busy machine
    _, second = service.process_frame(frame, model, "full-image", 0.2, first)
    assert second is first
    first.last_time -= 100
    assert service.process_frame(frame, model, "full-image", 0.2, first)[1] is not first


def test_a_slow_frame_is_no_gap(service: PoseService, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 15.0, 15.1, 20.1, 20.2, 25.2])  # before and after frames that take 5 s
    monkeypatch.setattr("posedy.app.service.time", SimpleNamespace(monotonic=lambda: next(times)))
    frame = np.zeros((96, 64, 3), np.uint8)
    _, first = service.process_frame(frame, model, "full-image", 0.2, None)
    for _ in range(2):
        _, state = service.process_frame(frame, model, "full-image", 0.2, first)
        assert state is first


@pytest.mark.parametrize("flip", [False, True])
def test_graphs_that_decode_keep_their_flip_test(tmp_path: Path, image_path: str, flip: bool) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = create_model("mobilenetv2_035-bneck", input_size=(32, 64), skeleton=COCO17)
    model = str(tmp_path / "decoding.onnx")
    export_onnx(net, model, with_decoding=True, flip=flip)
    service = PoseService((model,), device="cpu")
    assert service.process_image(image_path, model, "full-image", 0.2).summary.startswith("1 person")
    video = write_video(tmp_path / "v.avi", 2)
    assert service.process_video(video, model, "full-image", 0.2).summary.startswith("2 frames")


def test_service_rejects_invalid_files_and_settings(
    service: PoseService, model: str, image_path: str, tmp_path: Path
) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not an image")
    with pytest.raises((OSError, ValueError), match="notes"):
        service.process_image(str(text), model, "full-image", 0.2)
    with pytest.raises(ValueError, match=r"notes\.jpg"):
        service.process_video(str(text), model, "full-image", 0.2)
    with pytest.raises(ValueError, match="'other'"):
        service.process_image(image_path, "other", "full-image", 0.2)
    with pytest.raises(ValueError, match="'unknown'"):
        service.process_image(image_path, model, "unknown", 0.2)

import warnings
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.models.detection import (
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_320_fpn,
)

from posedy.inference.detectors import (
    CleanedDetector,
    FullImageDetector,
    TorchvisionDetector,
    create_detector,
    register_detector,
)
from posedy.inference.detectors import base as detectors


def test_full_image_detector_returns_the_image_box() -> None:
    boxes, scores = create_detector("full-image").detect(np.zeros((30, 50, 3), dtype=np.uint8))
    np.testing.assert_array_equal(boxes, [[0, 0, 50, 30]])
    np.testing.assert_array_equal(scores, [1])


def test_create_detector_returns_an_object_with_detect() -> None:
    detector = FullImageDetector()
    assert create_detector(detector) is detector


@pytest.mark.parametrize("detector", [3, object(), FullImageDetector, lambda image: ([], [])])
def test_create_detector_rejects_other_objects(detector: object) -> None:
    with pytest.raises(TypeError, match=r"'full-image'.*detect\(image_bgr\)"):
        create_detector(detector)  # type: ignore[arg-type]


def test_create_detector_rejects_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"'yolo'.*'full-image'"):
        create_detector("yolo")


def test_create_detector_passes_the_arguments_that_the_factory_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "_DETECTORS", {})
    calls: list[tuple[Any, ...]] = []

    @register_detector("all")
    def create_all(device: str, weights: str = "own", threshold: float = 0.5) -> FullImageDetector:
        calls.append((device, weights, threshold))
        return FullImageDetector()

    @register_detector("none")
    def create_none() -> FullImageDetector:
        calls.append(())
        return FullImageDetector()

    create_detector("all", "cpu")
    create_detector("all", "cpu", "w.pth", 0.0)
    create_detector("none", "cpu", threshold=0.3)
    assert calls == [("cpu", "own", 0.5), ("cpu", "w.pth", 0.0), ()]
    for detector in ("none", FullImageDetector()):
        with pytest.raises(ValueError, match=r"w\.pth"):
            create_detector(detector, "cpu", "w.pth")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "weights.pth"
    torch.save(fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None).state_dict(), path)
    return path


def test_torchvision_detector_runs_from_a_weights_file(weights: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    boxes, scores = TorchvisionDetector(weights, "cpu", threshold=0.0).detect(image)
    assert boxes.dtype == scores.dtype == np.float32
    assert len(boxes) == len(scores)
    assert (boxes >= 0).all()
    assert (boxes <= [90, 120, 90, 120]).all()


def test_torchvision_detector_returns_persons_from_rgb(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = TorchvisionDetector(weights, "cpu")
    inputs: list[Any] = []

    def predict(images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        inputs.extend(images)
        boxes = torch.tensor([[1.0, 2, 30, 40], [0, 0, 9, 9], [5, 5, 5, 20], [10, 0, 20, 30]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 18, 1, 1]), "scores": torch.tensor([0.9, 0.8, 0.7, 0.6])}]

    monkeypatch.setattr(detector, "_net", predict)
    blue = np.zeros((50, 60, 3), dtype=np.uint8)
    blue[..., 0] = 255
    boxes, scores = detector.detect(blue)
    np.testing.assert_array_equal(boxes, [[1, 2, 30, 40], [10, 0, 20, 30]])
    np.testing.assert_allclose(scores, [0.9, 0.6])
    assert inputs[0].shape == (3, 50, 60)
    assert inputs[0][:, 0, 0].tolist() == [0, 0, 1]


def test_failed_download_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: Any, **kwargs: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(FasterRCNN_MobileNet_V3_Large_320_FPN_Weights, "get_state_dict", offline)
    with pytest.raises(OSError, match=r"no route.*--detector-weights FILE.*--boxes FILE.*full-image"):
        create_detector("torchvision")


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.5])
def test_threshold_outside_0_to_1_is_rejected(threshold: float) -> None:
    with pytest.raises(ValueError, match=str(threshold)):
        TorchvisionDetector("never read", "cpu", threshold)


def test_invalid_weights_files_are_rejected(tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth"):
        TorchvisionDetector(tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"broken\.pth"):
        TorchvisionDetector(tmp_path / "broken.pth")
    with pytest.raises(OSError, match="absent"):
        TorchvisionDetector(tmp_path / "absent.pth")


class PartlyInvalid:
    """Returns a valid box, an empty one and one outside the image."""

    def detect(self, image: np.ndarray) -> tuple[list, list]:
        return [[-5, 2, 20, 25], [5, 5, 5, 9], [50, 0, 70, 30]], [0.9, 0.8, 0.7]


def test_cleaned_detector_counts_dropped_boxes_and_warns_once() -> None:
    detector = CleanedDetector(PartlyInvalid())
    image = np.zeros((30, 50, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="PartlyInvalid") as caught:
        boxes, scores = detector.detect(image)
    assert len(caught) == 1
    np.testing.assert_array_equal(boxes, [[0, 2, 20, 25]])
    np.testing.assert_allclose(scores, [0.9])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.detect(image)
    assert sorted(detector.dropped.values()) == [2, 2]


class Scored:
    """Returns three boxes with the scores 0.3, 0.2 and -1."""

    def detect(self, image: np.ndarray) -> tuple[list, list]:
        return [[0, 0, 9, 9], [0, 0, 8, 8], [0, 0, 7, 7]], [0.3, 0.2, -1]


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 3), (0.1, 2), (0.3, 1), (0.5, 0)])
def test_cleaned_detector_drops_boxes_below_its_threshold(threshold: float, count: int) -> None:
    detector = CleanedDetector(Scored(), threshold)
    boxes, scores = detector.detect(np.zeros((30, 50, 3), dtype=np.uint8))
    assert boxes[:, 2].tolist() == [9, 8, 7][:count]
    assert boxes.shape == (count, 4)
    np.testing.assert_allclose(scores, [0.3, 0.2, -1][:count])
    assert detector.dropped == {}


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.5])
def test_cleaned_detector_rejects_thresholds_outside_0_to_1(threshold: float) -> None:
    with pytest.raises(ValueError, match=str(threshold)):
        CleanedDetector(FullImageDetector(), threshold)


def test_error_for_invalid_arrays_names_the_detector() -> None:
    class Flat:
        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [1, 2, 3, 4], [0.5]

    with pytest.raises(ValueError, match="Flat"):
        CleanedDetector(Flat()).detect(np.zeros((30, 50, 3), dtype=np.uint8))

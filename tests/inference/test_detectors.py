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

from posedy.inference.detectors import CleanedDetector, FullImageDetector, TorchvisionDetector, as_detector


def test_whole_image_is_one_person() -> None:
    boxes, scores = as_detector("whole").detect(np.zeros((30, 50, 3), dtype=np.uint8))
    np.testing.assert_array_equal(boxes, [[0, 0, 50, 30]])
    np.testing.assert_array_equal(scores, [1])


def test_an_object_with_detect_is_itself() -> None:
    detector = FullImageDetector()
    assert as_detector(detector) is detector


@pytest.mark.parametrize("detector", [3, object(), FullImageDetector, lambda image: ([], [])])
def test_other_objects_are_refused(detector: object) -> None:
    with pytest.raises(TypeError, match=r"'whole'.*detect\(image_bgr\)"):
        as_detector(detector)  # type: ignore[arg-type]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown detector 'yolo'.*'whole'"):
        as_detector("yolo")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "weights.pth"
    torch.save(fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None).state_dict(), path)
    return path


def test_torchvision_s_detector_runs_from_a_file(weights: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    boxes, scores = TorchvisionDetector(weights, "cpu", threshold=0.0).detect(image)
    assert boxes.dtype == scores.dtype == np.float32
    assert len(boxes) == len(scores)
    assert (boxes >= 0).all()
    assert (boxes <= [90, 120, 90, 120]).all()


def test_only_persons_are_kept_and_the_network_sees_rgb(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = TorchvisionDetector(weights, "cpu")
    seen: list[Any] = []

    def found(images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        seen.extend(images)
        boxes = torch.tensor([[1.0, 2, 30, 40], [0, 0, 9, 9], [5, 5, 5, 20], [10, 0, 20, 30]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 18, 1, 1]), "scores": torch.tensor([0.9, 0.8, 0.7, 0.6])}]

    monkeypatch.setattr(detector, "_net", found)
    blue = np.zeros((50, 60, 3), dtype=np.uint8)
    blue[..., 0] = 255
    boxes, scores = detector.detect(blue)
    np.testing.assert_array_equal(boxes, [[1, 2, 30, 40], [10, 0, 20, 30]])
    np.testing.assert_allclose(scores, [0.9, 0.6])
    assert seen[0].shape == (3, 50, 60)
    assert seen[0][:, 0, 0].tolist() == [0, 0, 1]


def test_without_a_network_the_other_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: Any, **kwargs: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(FasterRCNN_MobileNet_V3_Large_320_FPN_Weights, "get_state_dict", offline)
    with pytest.raises(OSError, match=r"no route.*--detector-weights FILE.*--boxes FILE.*--whole"):
        as_detector("torchvision")


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.5])
def test_thresholds_that_are_no_scores_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1, got"):
        TorchvisionDetector("never read", "cpu", threshold)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds no weights of torchvision's fasterrcnn"):
        TorchvisionDetector(tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"broken\.pth is not a file of torch's"):
        TorchvisionDetector(tmp_path / "broken.pth")
    with pytest.raises(OSError, match="absent"):
        TorchvisionDetector(tmp_path / "absent.pth")


class Partly:
    """Finds a valid box, then an empty one and one outside."""

    def detect(self, image: np.ndarray) -> tuple[list, list]:
        return [[-5, 2, 20, 25], [5, 5, 5, 9], [50, 0, 70, 30]], [0.9, 0.8, 0.7]


def test_a_cleaned_detector_counts_what_it_drops_and_warns_once() -> None:
    detector = CleanedDetector(Partly())
    image = np.zeros((30, 50, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="Partly") as caught:
        boxes, scores = detector.detect(image)
    assert len(caught) == 1
    np.testing.assert_array_equal(boxes, [[0, 2, 20, 25]])
    np.testing.assert_allclose(scores, [0.9])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.detect(image)
    assert sorted(detector.dropped.values()) == [2, 2]


def test_the_name_of_a_detector_with_invalid_arrays_is_said() -> None:
    class Flat:
        def detect(self, image: np.ndarray) -> tuple[list, list]:
            return [1, 2, 3, 4], [0.5]

    with pytest.raises(ValueError, match="Flat"):
        CleanedDetector(Flat()).detect(np.zeros((30, 50, 3), dtype=np.uint8))

"""The person detector: decoding and NMS against loops, input sizes, and detection in images."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from posedy.data.coco import GroundTruth
from posedy.geometry import box_iou, xywh_to_xyxy
from posedy.inference.detectors import create_detector, list_detectors, nanodet
from posedy.inference.detectors.nanodet import (
    THRESHOLDS,
    PersonDetector,
    decode_boxes,
    network_size,
    resize,
    scale_boxes,
    suppress_duplicates,
)
from posedy.models.nanodet import NUM_BINS, PERSON_WEIGHTS, STRIDES

MINI = Path(__file__).parents[2] / "data/coco_mini"


@pytest.fixture(scope="module")
def detector() -> PersonDetector:
    return PersonDetector(320, threshold=0.1, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    """Two images of different shapes, and one of the same shape as the first."""
    first, second = (cv2.imread(str(MINI / f"val2017/000000{name}.jpg")) for name in ("091406", "085772"))
    return [first, second[:300, :240], np.ascontiguousarray(first[:, ::-1])]


def random_outputs(size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    count = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    return rng.normal(-1, 2, count).astype(np.float32), rng.normal(0, 2, (count, 4, NUM_BINS)).astype(np.float32)


def decode_with_loops(
    logits: NDArray[np.float32], bins: NDArray[np.float32], size: tuple[int, int], threshold: float
) -> list[list[float]]:
    width, height = size
    decoded, location = [], 0
    for stride in STRIDES:
        for i in range(height // stride):
            for j in range(width // stride):
                score = 1 / (1 + math.exp(-float(logits[location])))
                sides = []
                for side in range(4):
                    weights = [math.exp(float(value)) for value in bins[location, side]]
                    sides.append(stride * sum(k * weight for k, weight in enumerate(weights)) / sum(weights))
                x, y = (j + 0.5) * stride, (i + 0.5) * stride
                left, top, right, bottom = sides
                box = [max(x - left, 0), max(y - top, 0), min(x + right, width), min(y + bottom, height)]
                if score >= threshold:
                    decoded.append([*box, score])
                location += 1
    return sorted(decoded, key=lambda row: -row[4])


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_decoding_equals_loops(threshold: float) -> None:
    size = (96, 64)
    logits, bins = random_outputs(size)
    boxes, scores = decode_boxes(logits, bins, size, threshold)
    expected = np.array(decode_with_loops(logits, bins, size, threshold))
    assert boxes.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(np.column_stack([boxes, scores]), expected, rtol=1e-5, atol=1e-4)


def test_decoding_without_boxes_and_with_extreme_outputs() -> None:
    logits, bins = random_outputs((64, 64))
    boxes, scores = decode_boxes(logits, bins, (64, 64), 1.0)
    assert (boxes.shape, scores.shape) == ((0, 4), (0,))
    boxes, scores = decode_boxes(1e4 * logits, 1e4 * bins, (64, 64), 0.0)
    assert np.isfinite(boxes).all()
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.9])
def test_suppression_equals_loops(iou: float) -> None:
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 60, (200, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (200, 2))], axis=1).astype(np.float32)
    scores = rng.uniform(0.01, 1, 200).astype(np.float32)
    expected: list[int] = []
    for index in np.argsort(-scores):
        if not expected or box_iou(boxes[[index]], boxes[expected]).max() <= iou:
            expected.append(int(index))
    assert suppress_duplicates(boxes, scores, iou).tolist() == expected
    assert suppress_duplicates(boxes[:0], scores[:0], iou).tolist() == []


@pytest.mark.parametrize(
    ("image", "size", "expected"),
    [
        ((640, 480), 416, (480, 352)),
        ((480, 640), 416, (352, 480)),
        ((1920, 1080), 416, (544, 320)),
        ((640, 480), 320, (384, 288)),
        ((1, 1), 416, (416, 416)),
        ((10000, 1), 416, (1312, 32)),
        ((20, 4000), 416, (32, 1312)),
        ((200, 120), 64, (64, 64)),  # rounded to 96x64, which is more than 1.25 times 64x64
    ],
)
def test_network_size_keeps_the_aspect_ratio(image: tuple[int, int], size: int, expected: tuple[int, int]) -> None:
    assert network_size(*image, size) == expected


def test_network_size_is_bounded() -> None:
    rng = np.random.default_rng(0)
    for width, height in (10 ** rng.uniform(0, 4.5, (500, 2))).astype(int).tolist():
        for size in (32, 96, 320, 416):
            sides = network_size(width, height, size)
            assert all(side % 32 == 0 and 32 <= side <= 1312 for side in sides)
            assert math.prod(sides) <= max(1.25 * size**2, 1312 * 32)


def test_large_images_are_averaged() -> None:
    """Bilinear interpolation would only sample the stripes of one color."""
    stripes = np.zeros((400, 400, 3), dtype=np.uint8)
    stripes[:, ::4] = 200
    assert resize(stripes, (100, 100)).mean() == pytest.approx(50, abs=1)
    gradient = np.tile(np.arange(96, dtype=np.uint8)[:, None, None], (1, 64, 3))
    np.testing.assert_array_equal(resize(gradient, (64, 96)), gradient)


def test_boxes_are_scaled_to_the_image() -> None:
    """A box is encoded in the outputs of one location, and decoded in an image of another shape."""
    size = (64, 32)
    logits, bins = random_outputs(size)
    logits[:], bins[:] = -20, -100
    location = 8 * 2 + 3  # center (28, 20) of the finest level
    logits[location] = 2
    for side, distance in enumerate((3, 1, 2, 1)):
        bins[location, side, distance] = 0
    boxes, scores = decode_boxes(logits, bins, size, THRESHOLDS.display)
    np.testing.assert_allclose(scale_boxes(boxes, size, (160, 640, 3)), [[4 * 10, 12 * 5, 44 * 10, 28 * 5]], rtol=1e-6)
    assert scores == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize(
    ("name", "count"),
    [("000000085772.jpg", 1), ("000000091406.jpg", 3)],
)
def test_persons_of_images_are_detected(name: str, count: int) -> None:
    gt = GroundTruth.from_coco(MINI / "annotations/person_keypoints_val2017.json")
    [image_id] = [image_id for image_id, file_name in gt.file_names.items() if file_name == name]
    expected = [xywh_to_xyxy(person["bbox"]) for person in gt.labeled if person["image_id"] == image_id]
    boxes, scores = PersonDetector(threshold=THRESHOLDS.display, device="cpu").detect(
        cv2.imread(str(MINI / "val2017" / name))
    )
    assert (np.diff(scores) <= 0).all()
    assert (box_iou(np.array(expected), boxes).max(axis=1) >= 0.5).sum() >= count
    assert len(boxes) <= len(expected) + 1


def test_batches_equal_single_images(detector: PersonDetector, images: list[NDArray[np.uint8]]) -> None:
    for image, (boxes, scores) in zip(images, detector.detect_many(images), strict=True):
        expected_boxes, expected_scores = detector.detect(image)
        assert len(boxes) > 0
        np.testing.assert_allclose(boxes, expected_boxes, atol=0.05)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
    assert detector.detect_many([]) == []


def test_openvino_equals_pytorch_for_images_of_any_shape(
    detector: PersonDetector, images: list[NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    converted = PersonDetector(320, threshold=0.1, runtime="openvino")
    for image in images[:2]:
        (boxes, scores), (expected, expected_scores) = converted.detect(image), detector.detect(image)
        np.testing.assert_allclose(boxes, expected, atol=0.01)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-4)
        assert len(boxes)


def test_views_are_images_too(detector: PersonDetector, images: list[NDArray[np.uint8]]) -> None:
    view = images[0][:, ::-1]
    np.testing.assert_array_equal(detector.detect(view)[0], detector.detect(view.copy())[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 10000), (10000, 1), (20, 4000), (300, 50)])
@pytest.mark.parametrize("is_black", [True, False])
def test_any_image_is_accepted(detector: PersonDetector, shape: tuple[int, int], is_black: bool) -> None:
    image = np.random.default_rng(0).integers(0, 1 if is_black else 256, (*shape, 3), dtype=np.uint8)
    boxes, scores = detector.detect(image)
    assert boxes.shape == (len(scores), 4)
    assert boxes.dtype == scores.dtype == np.float32
    assert np.isfinite(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes <= [shape[1], shape[0], shape[1], shape[0]]).all()


def test_the_threshold_drops_boxes(images: list[NDArray[np.uint8]]) -> None:
    low, high = (PersonDetector(320, threshold, device="cpu").detect(images[0]) for threshold in (0.1, 0.5))
    kept = low[1] >= 0.5
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(low[0][kept], high[0])


def test_a_pair_as_size_stretches_images(images: list[NDArray[np.uint8]]) -> None:
    detector = PersonDetector((256, 192), threshold=0.1, device="cpu")
    assert {detector.input_size(image) for image in images} == {(256, 192)}
    assert all(len(boxes) > 0 for boxes, _ in detector.detect_many(images))


def test_the_detector_is_registered() -> None:
    assert "posedy" in list_detectors()
    created = create_detector("posedy", "cpu", PERSON_WEIGHTS, 0.7)
    assert isinstance(created, PersonDetector)
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        create_detector("posedy", "cpu", "absent.safetensors")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"image 1.*\(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), r"image 1.*float32"),
        (np.zeros((0, 4, 3), np.uint8), r"image 1.*\(0, 4, 3\)"),
        ([[1]], r"image 1.*list"),
    ],
)
def test_other_images_are_rejected(
    detector: PersonDetector, images: list[NDArray[np.uint8]], image: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        detector.detect_many([images[0], image])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 400}, "400"),
        ({"size": (416, 100)}, r"\(416, 100\)"),
        ({"size": 0}, "0"),
        ({"threshold": 1.5}, r"1\.5"),
        ({"runtime": "abacus"}, "abacus"),
        ({"nms_iou": 0}, "nms_iou"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PersonDetector(**options)  # type: ignore[arg-type]


def test_openvino_runs_on_the_cpu_of_a_machine_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [values[None] for values in random_outputs((32, 32))]
    monkeypatch.setattr(nanodet, "choose_device", lambda name: torch.device("cpu" if name == "cpu" else "cuda"))
    monkeypatch.setattr(nanodet, "_run_graph", lambda net: lambda inputs: (outputs[0][..., None], outputs[1]))
    for device in ("auto", "cpu"):
        detector = PersonDetector((32, 32), device=device, runtime="openvino")
        assert detector.device.type == "cpu"
        assert len(detector.detect(np.zeros((32, 32, 3), np.uint8))[0])
    with pytest.raises(ValueError, match="cuda"):
        PersonDetector(device="cuda", runtime="openvino")

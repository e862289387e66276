"""Groups of images: sizes of groups, detectors with detect_many, and errors of single images."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import posedy
from posedy.inference import image_groups
from posedy.inference.detect import detect_images, entries_from_paths
from posedy.inference.detectors import CleanedDetector
from posedy.inference.image_groups import detect_group, read_groups


def box_of(image: NDArray[np.uint8]) -> tuple[list[list[int]], list[float]]:
    """Returns a box that depends on the first pixel; 255 stands for an image that fails."""
    value = int(image[0, 0, 0])
    if value == 255:
        raise ValueError("an image that fails")
    return [[0, 0, value + 2, value + 2]], [0.9]


class Single:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def detect(self, image: NDArray[np.uint8]) -> tuple[list[list[int]], list[float]]:
        self.calls.append(1)
        return box_of(image)


class Many(Single):
    def detect_many(self, images: list[NDArray[np.uint8]]) -> list[tuple[list[list[int]], list[float]]]:
        self.calls.append(len(images))
        return [box_of(image) for image in images]


def image_of(value: int, side: int = 40) -> NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def test_groups_have_few_images_and_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(value: int) -> NDArray[np.uint8]:
        if value == 3:
            raise OSError("unreadable")
        return image_of(value, side=120 if value == 12 else 40)

    monkeypatch.setattr(image_groups, "_MAX_PIXELS", 8 * 40 * 40)
    groups = list(read_groups(range(14), read))
    assert [[item for item, _ in group] for group in groups] == [list(range(8)), [8, 9, 10, 11], [12], [13]]
    assert [item for group in groups for item, image in group if isinstance(image, OSError)] == [3]


@pytest.mark.parametrize(("detector", "calls"), [(Single(), [1, 1, 1]), (Many(), [3])])
def test_a_group_equals_single_images(detector: Single, calls: list[int]) -> None:
    images = [image_of(value) for value in (5, 0, 9)]
    detected = detect_group(CleanedDetector(detector), images)
    assert detector.calls == calls
    for found, image in zip(detected, images, strict=True):
        assert not isinstance(found, Exception)
        np.testing.assert_array_equal(found[0], box_of(image)[0])


@pytest.mark.parametrize("detector", [Single(), Many()])
def test_an_image_that_fails_does_not_affect_the_others(detector: Single, tmp_path: Path) -> None:
    for value in (5, 255, 9):
        cv2.imwrite(str(tmp_path / f"{value}.png"), image_of(value))
    lines: list[str] = []
    detected = detect_images(entries_from_paths(sorted(tmp_path.glob("*.png"))), detector, lines.append)
    assert [image.file_name for image in detected] == ["5.png", "9.png"]
    assert len(lines) == 1
    assert "255.png" in lines[0]


def test_wrong_results_of_detect_many_are_rejected() -> None:
    class TooFew(Many):
        def detect_many(self, images: list[NDArray[np.uint8]]) -> list[tuple[list[list[int]], list[float]]]:
            return super().detect_many(images[1:])

    with pytest.raises(TypeError, match=r"TooFew.*2 images"):
        CleanedDetector(TooFew()).detect_many([image_of(1), image_of(2)])


def test_lists_of_images_are_detected_in_groups() -> None:
    detector = Many()
    net = posedy.create_model("dy_mobilenetv2_035-dy_fpn", input_size=(32, 64))
    estimator = posedy.PoseEstimator(net, "cpu", detector=detector, flip=False)
    images = [image_of(value) for value in range(10)]
    given = [[[0, 0, 30, 30]] if index == 4 else None for index in range(10)]
    poses = estimator(images, boxes=given)
    assert detector.calls == [7, 2]  # of groups of 8 and 2, one image has given boxes
    for index, (image, found) in enumerate(zip(images, poses, strict=True)):
        single = estimator(image, boxes=given[index])
        np.testing.assert_array_equal(found.boxes, single.boxes)
        np.testing.assert_allclose(found.keypoints, single.keypoints, atol=0.05)
    with pytest.raises(ValueError, match="image 2 of 3"):
        estimator([image_of(1), image_of(2), image_of(255)])


@pytest.mark.parametrize("returned", [None, [], [None, None], [([], []), None], np.zeros((2, 4))])
def test_a_wrong_detect_many_is_no_silent_change_to_detect(returned: object) -> None:
    class Wrong(Single):
        def detect_many(self, images: list[NDArray[np.uint8]]) -> object:
            return returned

    with pytest.raises(TypeError, match="Wrong"):
        detect_group(CleanedDetector(Wrong()), [image_of(1), image_of(2)])


def test_an_error_of_detect_many_alone_is_raised() -> None:
    class Failing(Single):
        def detect_many(self, images: list[NDArray[np.uint8]]) -> object:
            raise RuntimeError("only in groups")

    with pytest.raises(ValueError, match=r"Failing.*only in groups"):
        detect_group(CleanedDetector(Failing()), [image_of(1), image_of(2)])


def test_any_error_of_a_detector_fails_its_image_only(tmp_path: Path) -> None:
    class Fragile(Single):
        def detect(self, image: NDArray[np.uint8]) -> tuple[list[list[int]], list[float]]:
            return box_of(image) if image[0, 0, 0] < 200 else ([][1], [])

    for value in (5, 200, 9):
        cv2.imwrite(str(tmp_path / f"{value}.png"), image_of(value))
    lines: list[str] = []
    detected = detect_images(entries_from_paths(sorted(tmp_path.glob("*.png"))), Fragile(), lines.append)
    assert [image.file_name for image in detected] == ["5.png", "9.png"]
    assert "200.png" in lines[0]
    assert "IndexError" in lines[0]


def test_scores_that_are_no_probabilities_are_warned_of_once() -> None:
    class Percent(Single):
        def detect(self, image: NDArray[np.uint8]) -> tuple[list[list[int]], list[float]]:
            return [[0, 0, 9, 9]] * 3, [0.5, 50, -0.5]

    cleaned = CleanedDetector(Percent())
    with pytest.warns(UserWarning, match="Percent.*50"):
        _, scores = cleaned.detect(image_of(1))
    assert scores.tolist() == [0.5, 50, -0.5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cleaned.detect(image_of(1))

import numpy as np
import pytest

from posedy.inference.detectors import WholeImage, as_detector


def test_whole_image_is_one_person() -> None:
    boxes, scores = as_detector("whole").detect(np.zeros((30, 50, 3), dtype=np.uint8))
    np.testing.assert_array_equal(boxes, [[0, 0, 50, 30]])
    np.testing.assert_array_equal(scores, [1])


def test_an_object_with_detect_is_itself() -> None:
    detector = WholeImage()
    assert as_detector(detector) is detector


@pytest.mark.parametrize("detector", [3, object(), WholeImage, lambda image: ([], [])])
def test_other_objects_are_refused(detector: object) -> None:
    with pytest.raises(TypeError, match=r"'whole'.*detect\(image_bgr\)"):
        as_detector(detector)  # type: ignore[arg-type]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown detector 'yolo'.*'whole'"):
        as_detector("yolo")

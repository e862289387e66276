import numpy as np
import pytest
import torch

from posedy.inference.boxes import check_boxes_meet_image, checked_box_scores, checked_boxes, clean_detections


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros((0, 4), dtype=int), ()])
def test_checked_boxes_accepts_zero_boxes(boxes: object) -> None:
    assert checked_boxes(boxes).shape == (0, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("boxes", [[[1, 2, 3, 4]], ((1, 2, 3, 4.0),), np.array([[1, 2, 3, 4]], dtype=np.uint8)])
def test_checked_boxes_returns_float32(boxes: object) -> None:
    checked = checked_boxes(boxes)  # type: ignore[arg-type]
    assert checked.dtype == np.float32
    assert checked.tolist() == [[1, 2, 3, 4]]


def test_checked_boxes_returns_a_copy() -> None:
    boxes = np.array([[1, 2, 3, 4]], dtype=np.float32)
    assert not np.shares_memory(checked_boxes(boxes), boxes)


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ([[0, 0, 9, 9], [10, 20, 5, 40]], r"box 1 .*\[10\.0, 20\.0, 5\.0, 40\.0\].*\[10\.0, 20\.0, 15\.0, 60\.0\]"),
        ([[0, 0, 9, 0]], r"box 0 .*\[0\.0, 0\.0, 9\.0, 0\.0\]$"),
        ([[0, 0, 9, 9], [0, np.nan, 9, 9]], "box 1 is not finite"),
        ([[0, 0, np.inf, 9]], "box 0 is not finite"),
        ([[0, 0, 1e200, 9]], "box 0 is not finite"),
        # both corners are equal in float32
        ([[1e8, 0, 1e8 + 1, 9]], "box 0 has no area"),
        ([1, 2, 3, 4], r"\(4,\).*\[\[x1"),
        ([[0, 0, 9, 9, 0.5]], r"\(1, 5\).*box_scores"),
        (np.zeros((0, 5)), r"\(0, 5\)"),
        (3, r"\(\)"),
        ([[1, 2, 3]], r"\(1, 3\)"),
        ([[1, 2, 3, 4], [1, 2]], r"\(P, 4\)"),
        ([["a", "b", "c", "d"]], r"\(P, 4\)"),
    ],
)
def test_checked_boxes_rejects_invalid_boxes(boxes: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        checked_boxes(boxes)  # type: ignore[arg-type]


def test_checked_box_scores_validates_number_and_values() -> None:
    assert checked_box_scores(None, 2).tolist() == [1, 1]
    assert checked_box_scores([0.5, 0.25], 2).tolist() == [0.5, 0.25]
    assert checked_box_scores([], 0).shape == (0,)
    with pytest.raises(ValueError, match=r"\(2,\).*\(1,\)"):
        checked_box_scores([0.5], 2)
    with pytest.raises(ValueError, match="box 1"):
        checked_box_scores([0.5, np.nan], 2)
    with pytest.raises(ValueError, match="scores"):
        checked_box_scores(["a"], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_are_boxes_and_scores(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[10, 10, 90, 190], [0, 0, 8, 8]], dtype=dtype, requires_grad=dtype.is_floating_point)
    scores = torch.tensor([0.5, 0.25], requires_grad=True)
    for given in (boxes, list(boxes), [tuple(box) for box in boxes]):
        assert checked_boxes(given).tolist() == [[10, 10, 90, 190], [0, 0, 8, 8]]  # type: ignore[arg-type]
    for given in (scores, list(scores)):
        assert checked_box_scores(given, 2).tolist() == [0.5, 0.25]  # type: ignore[arg-type]


@pytest.mark.parametrize("box", [[-50, 10, -1, 90], [200, 10, 260, 90], [10, 150, 60, 190], [10, -90, 60, 0]])
def test_boxes_outside_the_image_are_rejected(box: list[float]) -> None:
    boxes = checked_boxes([[10, 10, 50, 50], box])
    with pytest.raises(ValueError, match=r"box 1 .*200 x 150"):
        check_boxes_meet_image(boxes, 200, 150)
    check_boxes_meet_image(checked_boxes([[-50, -50, 1, 1], [199, 149, 400, 400]]), 200, 150)
    check_boxes_meet_image(checked_boxes([]), 200, 150)


def test_boxes_in_fractions_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"fractions"):
        check_boxes_meet_image(checked_boxes([[0.1, 0.2, 0.5, 0.9]]), 200, 150)


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [0.25, 0.25, 0.75, 1], [-0.5, 0, 1.5, 1]])
def test_boxes_in_an_image_of_one_pixel_are_no_fractions(box: list[float]) -> None:
    check_boxes_meet_image(checked_boxes([box]), 1, 1)
    cleaned, _, dropped = clean_detections([box], None, 1, 1)
    assert cleaned.tolist() == [np.clip(box, 0, 1).tolist()]
    assert not dropped
    for width, height in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match="fractions"):
            check_boxes_meet_image(checked_boxes([box]), width, height)
        assert list(clean_detections([box], None, width, height)[2].values()) == [1]


def test_clean_detections_clips_boxes_and_drops_invalid_ones() -> None:
    detections = [
        ([-5, -5, 60, 160], 0.9),
        ([np.nan, 0, 9, 9], 0.9),
        ([0, 0, 1e200, 9], 0.9),
        ([10, 10, 20, 20], np.inf),
        ([10, 10, 10, 20], 0.9),
        ([30, 10, 20, 20], 0.9),
        ([200, 10, 260, 90], 0.9),
        ([0.1, 0.1, 0.9, 0.9], 0.9),
        ([10, 20, 30, 40], 0.5),
    ]
    boxes, scores, dropped = clean_detections(
        [box for box, _ in detections], [score for _, score in detections], 200, 150
    )
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.tolist() == [[0, 0, 60, 150], [10, 20, 30, 40]]
    np.testing.assert_allclose(scores, [0.9, 0.5])
    assert list(dropped.values()) == [3, 2, 1, 1]
    assert [reason.split()[0] for reason in dropped] == ["not", "without", "outside", "in"]


@pytest.mark.parametrize(("boxes", "scores"), [([], []), (np.zeros((0, 4)), None), ([[np.nan] * 4], [0.5])])
def test_clean_detections_may_return_zero_boxes(boxes: object, scores: list[float] | None) -> None:
    cleaned, cleaned_scores, dropped = clean_detections(boxes, scores, 200, 150)  # type: ignore[arg-type]
    assert (cleaned.shape, cleaned_scores.shape) == ((0, 4), (0,))
    assert sum(dropped.values()) == len(boxes)  # type: ignore[arg-type]


def test_cleaned_boxes_pass_the_checks_of_user_boxes() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.choice([-1e9, -1, 0, 0.5, 1, 1.4, 2, 30, 199.9, 200, 201, 1e9, 1e39, np.nan, -np.inf], (4000, 4))
    cleaned, scores, dropped = clean_detections(boxes, None, 200, 150)
    assert len(cleaned) == len(scores) == 4000 - sum(dropped.values()) > 100
    for box in cleaned:
        check_boxes_meet_image(checked_boxes(box[None]), 200, 150)


def test_clean_detections_rejects_invalid_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        clean_detections([[1, 2, 3]], [0.5], 200, 150)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        clean_detections([[1, 2, 3, 4]], [0.5, 0.5], 200, 150)

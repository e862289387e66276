import numpy as np
import pytest

from posedy.drawing import (
    CAPTION_HEIGHT,
    DRAW_THRESHOLD,
    LEFT,
    MIDDLE,
    RIGHT,
    draw_caption,
    draw_person_label,
    draw_poses,
    keypoint_colors,
)
from posedy.skeleton import COCO17, Skeleton

LINE = Skeleton(
    keypoints=("left_hand", "right_hand", "chin", "top"),
    flip_pairs=((0, 1),),
    limbs=((0, 2), (1, 2), (2, 3), (0, 1)),
    sigmas=(0.1,) * 4,
)
# a person facing the camera, with the left hand on the right of the image
POSE = np.array([[[150.0, 150.0], [50.0, 150.0], [100.0, 100.0], [100.0, 30.0]]])


def background(level: int = 128, height: int = 200, width: int = 200) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def changed_pixels(drawing: np.ndarray, image: np.ndarray) -> np.ndarray:
    return (drawing != image).any(axis=-1)


def test_input_image_is_unchanged_pixels() -> None:
    image = background()
    drawing = draw_poses(image, POSE, np.ones((1, 4)), LINE, boxes=[[40, 20, 160, 160]])
    assert (image == 128).all()
    assert drawing.shape == image.shape
    assert drawing.dtype == np.uint8
    assert changed_pixels(drawing, image).any()


def test_no_poses_return_an_equal_copy() -> None:
    image = background()
    drawing = draw_poses(image, np.zeros((0, 4, 2)), np.zeros((0, 4)), LINE, boxes=np.zeros((0, 4)))
    np.testing.assert_array_equal(drawing, image)
    assert not np.shares_memory(drawing, image)


@pytest.mark.parametrize(
    ("x", "y", "color"),
    [(125, 125, LEFT), (75, 125, RIGHT), (100, 65, MIDDLE), (100, 150, MIDDLE), (150, 150, LEFT), (100, 30, MIDDLE)],
)
@pytest.mark.parametrize("level", [0, 255])
def test_limbs_have_the_color_of_their_side(x: int, y: int, color: tuple[int, int, int], level: int) -> None:
    drawing = draw_poses(background(level), POSE, np.ones((1, 4)), LINE)
    # the line may be one pixel wide and anti-aliased
    patch = drawing[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int)
    assert np.abs(patch - color).sum(axis=1).min() < 60


def test_limbs_on_a_white_image_have_a_dark_outline() -> None:
    image = background(255)
    drawing = draw_poses(image, POSE, np.ones((1, 4)), LINE)
    assert (drawing.max(axis=-1) < 80).any()


def test_keypoints_with_low_scores_are_faint() -> None:
    image = background()
    scores = np.ones((1, 4))
    confident = draw_poses(image, POSE, scores, LINE)
    scores[0, 3] = DRAW_THRESHOLD
    faint = draw_poses(image, POSE, scores, LINE)
    neck = (slice(50, 80), slice(90, 110))

    def contrast(drawing: np.ndarray) -> float:
        return np.abs(drawing[neck].astype(int) - 128).max()

    assert 0 < contrast(faint) < 0.5 * contrast(confident)
    np.testing.assert_array_equal(faint[140:], confident[140:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_keypoints_without_score_or_position_are_not_drawn(bad: float) -> None:
    image = background()
    scores = np.array([[1, 1, 1, 0.0]])
    without = draw_poses(image, POSE, scores, LINE)
    assert not changed_pixels(without, image)[:90].any()
    invalid = POSE.copy()
    invalid[0, 3] = bad
    np.testing.assert_array_equal(draw_poses(image, invalid, np.ones((1, 4)), LINE), without)


def test_limbs_to_distant_keypoints_are_drawn_to_the_border() -> None:
    far = POSE.copy()
    far[0, 3] = [100, -1e30]
    drawing = draw_poses(background(), far, np.ones((1, 4)), LINE)
    assert changed_pixels(drawing, background())[:90, 95:106].any(axis=1).all()


def test_line_width_depends_on_the_person_not_on_the_image() -> None:
    def drawn_area(scale: float, side: int) -> int:
        image = background(height=side, width=side)
        return int(changed_pixels(draw_poses(image, POSE * scale, np.ones((1, 4)), LINE), image).sum())

    assert drawn_area(1, 200) == drawn_area(1, 1600)
    # the line width is proportional to the person's size, so the area grows with the square of the scale
    assert drawn_area(6, 1600) > 0.3 * 36 * drawn_area(1, 1600)


def test_drawing_moves_with_the_keypoints() -> None:
    image = background(height=300, width=300)
    drawing = draw_poses(image, POSE, np.ones((1, 4)), LINE)
    moved = draw_poses(image, POSE + np.array([60, 40]), np.ones((1, 4)), LINE)
    np.testing.assert_array_equal(moved[40:, 60:], drawing[:-40, :-60])


def test_boxes_may_exceed_the_image() -> None:
    image = background()
    no_scores = np.zeros((1, 4))
    drawing = draw_poses(image, POSE, no_scores, LINE, boxes=[[40, 20, 1e9, 160]])
    assert changed_pixels(drawing, image)[21:159, 40].all()
    assert not changed_pixels(drawing, image)[30:150, 50:].any()


def test_image_may_be_a_noncontiguous_view() -> None:
    image = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    expected = draw_poses(image[:, ::-1].copy(), POSE, np.ones((1, 4)), LINE)
    np.testing.assert_array_equal(draw_poses(image[:, ::-1], POSE, np.ones((1, 4)), LINE), expected)


def test_invalid_shapes_and_dtypes_raise() -> None:
    with pytest.raises(ValueError, match=r"got \(200, 200\)"):
        draw_poses(background()[..., 0], POSE, np.ones((1, 4)), LINE)
    with pytest.raises(ValueError, match="float64"):
        draw_poses(background().astype(float), POSE, np.ones((1, 4)), LINE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(P, 17, 2\).*\(1, 4, 2\)"):
        draw_poses(background(), POSE, np.ones((1, 4)), COCO17)
    with pytest.raises(ValueError, match=r"boxes of shape \(1, 4\), got \(2, 4\)"):
        draw_poses(background(), POSE, np.ones((1, 4)), LINE, boxes=np.zeros((2, 4)))


def test_keypoint_colors_depend_on_the_side() -> None:
    assert keypoint_colors(LINE) == (LEFT, RIGHT, MIDDLE, MIDDLE)


def test_caption_has_texts_side_by_side_and_cuts_long_ones() -> None:
    bar = draw_caption(200, ("left", LEFT), ("right", RIGHT))
    assert bar.shape == (CAPTION_HEIGHT, 200, 3)
    reddish, bluish = (
        np.nonzero(bar[..., first] > bar[..., second].astype(int) + 60)[1] for first, second in ((0, 2), (2, 0))
    )
    assert 0 < len(reddish) < len(bluish)
    assert reddish.max() < bluish.min()
    np.testing.assert_array_equal(draw_caption(50, ("left", LEFT), ("right", RIGHT)), bar[:, :50])
    assert not draw_caption(10).any()


def label_box(canvas: np.ndarray, level: int = 128) -> list[int]:
    """Left, top, right and bottom of what was drawn."""
    y, x = np.nonzero((canvas != level).any(axis=-1))
    return [x.min(), y.min(), x.max(), y.max()]


def test_labels_are_just_above_the_highest_confident_keypoint() -> None:
    box, keypoints = [0, 0, 199, 199], np.array([[100.0, 60.0], [60.0, 90.0], [30.0, 20.0], [np.nan, 5.0]])
    scores = np.array([0.9, 0.9, DRAW_THRESHOLD, 0.9])
    canvas = background()
    draw_person_label(canvas, "7", keypoints, scores, box)
    left, top, right, bottom = label_box(canvas)
    assert abs((left + right) / 2 - 100) <= 1
    assert 50 <= bottom < 60
    assert top > 30
    longer = background()
    draw_person_label(longer, "1234", keypoints, scores, box)
    assert sum(label_box(longer)[::2]) / 2 == pytest.approx(100, abs=1)
    lower = background()
    draw_person_label(lower, "7", keypoints, scores, box, threshold=0.1)
    assert sum(label_box(lower)[::2]) / 2 == pytest.approx(30, abs=1)


def test_labels_without_confident_keypoints_are_at_the_top_of_the_box() -> None:
    canvas = background()
    draw_person_label(canvas, "7", np.zeros((4, 2)), np.zeros(4), [60, 80, 140, 190])
    left, top, right, _ = label_box(canvas)
    assert (left + right) / 2 == pytest.approx(100, abs=1)
    assert top == 80


@pytest.mark.parametrize("point", [(100.0, 1.0), (-50.0, 100.0), (199.0, 199.0), (300.0, 400.0)])
def test_labels_are_inside_the_image(point: tuple[float, float]) -> None:
    canvas, inside = background(), background()
    draw_person_label(canvas, "7", [point], [0.9], [0, 0, 199, 199])
    draw_person_label(inside, "7", [[100.0, 100.0]], [0.9], [0, 0, 199, 199])
    sizes = [np.subtract(label_box(each)[2:], label_box(each)[:2]) for each in (canvas, inside)]
    assert np.abs(np.subtract(*sizes)).max() <= 1

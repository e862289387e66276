"""Batch visualization."""

from typing import Any

import numpy as np
import pytest
import torch

from posedy.codecs import HeatmapCodec, MSRACodec, UnbiasedCodec
from posedy.drawing import CAPTION_HEIGHT, LEFT, MIDDLE, RIGHT
from posedy.skeleton import Skeleton
from posedy.training.visualize import draw_batch

BODY = Skeleton(
    keypoints=("nose", "left_hand", "right_hand"),
    flip_pairs=((1, 2),),
    limbs=((0, 1), (0, 2)),
    sigmas=(0.1,) * 3,
)
GROUND_TRUTH, TARGET, HEATMAP, PREDICTION = range(4)
# maximum L1 distance of a color; a heatmap's peak may lie between pixels
COLOR_TOLERANCE = 60
SIZES = [(32, 64), (64, 96), (192, 256)]


def batch(
    count: int = 3, size: tuple[int, int] = (64, 96), level: int = 90, codec_class: type[HeatmapCodec] = MSRACodec
) -> dict[str, Any]:
    """Gray crops of persons facing the camera, with perfect predictions."""
    width, height = size
    pose = np.array([[0.5, 0.25], [0.75, 0.5], [0.25, 0.5]], dtype=np.float32) * [width, height]
    keypoints = np.stack([pose + np.array([0, n * height / 16]) for n in range(count)]).astype(np.float32)
    labeled = np.ones((count, 3), dtype=bool)
    codec = codec_class(size)
    targets, _ = codec.encode(torch.from_numpy(keypoints), torch.from_numpy(labeled))
    predictions, scores = codec.decode({"heatmaps": targets})
    return {
        "crops": np.full((count, height, width, 3), level, dtype=np.uint8),
        "keypoints": keypoints,
        "labeled": labeled,
        "targets": targets.numpy(),
        "heatmaps": targets.numpy().copy(),
        "predictions": predictions.numpy(),
        "scores": scores.numpy(),
        "skeleton": BODY,
        "heatmap_to_crop": codec.heatmap_to_crop_matrix().numpy(),
    }


def scale_factor(inputs: dict[str, Any]) -> int:
    return int(np.ceil(128 / inputs["crops"].shape[1]))


def tile(image: np.ndarray, inputs: dict[str, Any], row: int, column: int) -> np.ndarray:
    """The tile of a row and a column, as int."""
    height, width = (scale_factor(inputs) * side for side in inputs["crops"].shape[1:3])
    top = CAPTION_HEIGHT + row * (height + 2) + (CAPTION_HEIGHT if row > HEATMAP else 0)
    left = CAPTION_HEIGHT + column * (width + 2)
    return image[top : top + height, left : left + width].astype(int)


def peak_caption(image: np.ndarray, inputs: dict[str, Any], column: int) -> np.ndarray:
    height, width = (scale_factor(inputs) * side for side in inputs["crops"].shape[1:3])
    top = CAPTION_HEIGHT + 3 * height + 4
    left = CAPTION_HEIGHT + column * (width + 2)
    return image[top : top + CAPTION_HEIGHT, left : left + width]


def color_position(shown: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """The mean (x, y) of the pixels close to a color."""
    rows, columns = np.nonzero(np.abs(shown - color).sum(axis=-1) < COLOR_TOLERANCE)
    assert len(rows) > 0
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
def test_image_has_one_column_per_sample(size: tuple[int, int], count: int) -> None:
    inputs = batch(count, size)
    image = draw_batch(**inputs)
    width, height = (scale_factor(inputs) * side for side in size)
    assert height >= 128
    assert image.shape == (2 * CAPTION_HEIGHT + 4 * (height + 2), CAPTION_HEIGHT + count * (width + 2), 3)
    assert image.dtype == np.uint8


def test_max_samples_limits_the_columns() -> None:
    inputs = batch(5)
    few = draw_batch(**inputs, max_samples=2)
    np.testing.assert_array_equal(
        tile(few, inputs, GROUND_TRUTH, 1), tile(draw_batch(**inputs), inputs, GROUND_TRUTH, 1)
    )
    assert few.shape == draw_batch(**batch(2)).shape


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("row", range(4))
def test_keypoints_have_the_right_position_and_color_in_every_row(size: tuple[int, int], row: int) -> None:
    inputs = batch(2, size)
    image = draw_batch(**inputs)
    scale = scale_factor(inputs)
    # rounding to heatmap pixels moves a peak by up to half a heatmap pixel
    tolerance = 2 * scale + 1
    for column, pose in enumerate(inputs["keypoints"]):
        shown = tile(image, inputs, row, column)
        for (x, y), color in zip(pose, (MIDDLE, LEFT, RIGHT), strict=True):
            center_x, center_y = (round(scale * value + (scale - 1) / 2) for value in (x, y))
            around = shown[
                center_y - tolerance : center_y + tolerance + 1, center_x - tolerance : center_x + tolerance + 1
            ]
            assert np.abs(around - color).sum(axis=-1).min() < COLOR_TOLERANCE
            if row in (TARGET, HEATMAP):
                assert np.abs(color_position(shown, color) - [center_x, center_y]).max() <= tolerance


@pytest.mark.parametrize("row", range(4))
def test_swapped_labels_swap_the_colors(row: int) -> None:
    inputs = batch(2)
    permutation = [0, 2, 1]
    swapped = inputs | {
        name: inputs[name][:, permutation] for name in ("keypoints", "targets", "heatmaps", "predictions", "scores")
    }
    before, after = (tile(draw_batch(**each), each, row, 0) for each in (inputs, swapped))
    np.testing.assert_allclose(color_position(before, LEFT), color_position(after, RIGHT), atol=1)
    assert color_position(before, LEFT)[0] > color_position(after, LEFT)[0] + 20


def test_heatmaps_overlay_the_dimmed_crop() -> None:
    inputs = batch(1, level=100)
    shown = tile(draw_batch(**inputs), inputs, TARGET, 0)
    assert (shown[-10:] == 40).all()
    assert shown.max() > 200


@pytest.mark.parametrize("codec_class", [MSRACodec, UnbiasedCodec])
def test_targets_are_at_the_border_where_the_codec_has_them(codec_class: type[HeatmapCodec]) -> None:
    inputs = batch(1, (192, 256), codec_class=codec_class)
    codec, place = codec_class((192, 256)), np.array([188.0, 252.0], np.float32)  # a heatmap pixel of "msra"
    inputs["keypoints"][:] = place
    targets, _ = codec.encode(torch.from_numpy(inputs["keypoints"]), torch.from_numpy(inputs["labeled"]))
    inputs["targets"] = targets.numpy()
    inputs["targets"][0, 1:] = 0
    shown = tile(draw_batch(**inputs), inputs, TARGET, 0)
    brightest = np.unravel_index(shown.sum(axis=-1).argmax(), shown.shape[:2])
    assert np.abs(np.array(brightest[::-1]) - place).max() <= 1


def test_unlabeled_keypoint_appears_in_heatmap_and_prediction_only() -> None:
    inputs = batch(1)
    inputs["labeled"][0, 1] = False
    inputs["targets"][0, 1] = 0
    image = draw_batch(**inputs)
    for row in range(4):
        shown = tile(image, inputs, row, 0)
        assert (np.abs(shown - LEFT).sum(axis=-1) < COLOR_TOLERANCE).any() == (row in (HEATMAP, PREDICTION))


def test_heatmaps_are_scaled_and_their_peak_is_printed() -> None:
    inputs = batch(1)
    faint = inputs | {"heatmaps": inputs["heatmaps"] / 128}
    bright, scaled = draw_batch(**inputs), draw_batch(**faint)
    np.testing.assert_allclose(tile(bright, inputs, HEATMAP, 0), tile(scaled, inputs, HEATMAP, 0), atol=1)
    assert (peak_caption(bright, inputs, 0) != peak_caption(scaled, inputs, 0)).any()
    assert (peak_caption(bright, inputs, 0) > 200).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0, -1.5, np.nan, np.inf, -np.inf])
def test_heatmaps_without_a_positive_peak_show_the_dimmed_crop(value: float) -> None:
    inputs = batch(2)
    inputs["heatmaps"][0] = value
    image = draw_batch(**inputs)
    assert (tile(image, inputs, HEATMAP, 0) == 36).all()
    np.testing.assert_array_equal(tile(image, inputs, HEATMAP, 1), tile(image, inputs, TARGET, 1))


@pytest.mark.filterwarnings("error")
def test_non_finite_values_are_reported_and_do_not_affect_others() -> None:
    inputs = batch(1)
    broken = inputs | {"heatmaps": inputs["heatmaps"].copy(), "predictions": inputs["predictions"].copy()}
    broken["heatmaps"][0, 0, 0, :2] = np.inf, np.nan
    broken["predictions"][0, 0] = np.nan, np.inf
    broken["scores"] = np.array([[np.nan, 0.9, -1]], dtype=np.float32)
    valid, image = draw_batch(**inputs), draw_batch(**broken)
    np.testing.assert_array_equal(tile(valid, inputs, HEATMAP, 0), tile(image, inputs, HEATMAP, 0))
    assert (peak_caption(valid, inputs, 0) != peak_caption(image, inputs, 0)).any()
    shown = tile(image, inputs, PREDICTION, 0)
    assert color_position(shown, LEFT)[0] > 64
    assert not (np.abs(shown - RIGHT).sum(axis=-1) < COLOR_TOLERANCE).any()


def test_inputs_are_not_modified() -> None:
    inputs = batch(2)
    copies = {name: value.copy() for name, value in inputs.items() if isinstance(value, np.ndarray)}
    draw_batch(**inputs)
    for name, copy in copies.items():
        np.testing.assert_array_equal(inputs[name], copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crops", np.zeros((2, 96, 64, 3), dtype=np.float32)),
        ("keypoints", np.zeros((2, 4, 2))),
        ("labeled", np.ones((1, 3), dtype=bool)),
        ("targets", np.zeros((2, 3, 24, 15))),
        ("heatmaps", np.zeros((2, 3, 16, 24))),
        ("predictions", np.zeros((2, 3, 3))),
        ("scores", np.zeros((3, 2))),
    ],
)
def test_invalid_shapes_are_rejected(name: str, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match=name):
        draw_batch(**(batch(2) | {name: value}))


def test_zero_samples_are_rejected() -> None:
    with pytest.raises(ValueError, match="max_samples=0"):
        draw_batch(**batch(1), max_samples=0)

"""The picture of a batch."""

from typing import Any

import numpy as np
import pytest
import torch

from posedy.codecs import MSRACodec
from posedy.drawing import CAPTION_HEIGHT, LEFT, MIDDLE, RIGHT
from posedy.skeleton import Skeleton
from posedy.training.visualize import batch_picture

BODY = Skeleton(
    keypoints=("nose", "left_hand", "right_hand"),
    flip_pairs=((1, 2),),
    limbs=((0, 1), (0, 2)),
    sigmas=(0.1,) * 3,
)
TRUTH, TARGET, HEATMAP, PREDICTION = range(4)
# sum of the channels' differences; the highest heat may lie between pixels
NEAR = 60
SIZES = [(32, 64), (64, 96), (192, 256)]


def batch(count: int = 3, size: tuple[int, int] = (64, 96), level: int = 90) -> dict[str, Any]:
    """Gray crops of persons who look at the camera, and perfect predictions."""
    width, height = size
    pose = np.array([[0.5, 0.25], [0.75, 0.5], [0.25, 0.5]], dtype=np.float32) * [width, height]
    keypoints = np.stack([pose + np.array([0, n * height / 16]) for n in range(count)]).astype(np.float32)
    labeled = np.ones((count, 3), dtype=bool)
    codec = MSRACodec(size)
    targets, _ = codec.encode(torch.from_numpy(keypoints), torch.from_numpy(labeled))
    found, scores = codec.decode(targets)
    return {
        "crops": np.full((count, height, width, 3), level, dtype=np.uint8),
        "keypoints": keypoints,
        "labeled": labeled,
        "targets": targets.numpy(),
        "heatmaps": targets.numpy().copy(),
        "found": found.numpy(),
        "scores": scores.numpy(),
        "skeleton": BODY,
    }


def factor(of: dict[str, Any]) -> int:
    return int(np.ceil(128 / of["crops"].shape[1]))


def tile(picture: np.ndarray, of: dict[str, Any], row: int, column: int) -> np.ndarray:
    """The crop of a row and a column, as int."""
    height, width = (factor(of) * side for side in of["crops"].shape[1:3])
    top = CAPTION_HEIGHT + row * (height + 2) + (CAPTION_HEIGHT if row > HEATMAP else 0)
    left = CAPTION_HEIGHT + column * (width + 2)
    return picture[top : top + height, left : left + width].astype(int)


def peak_number(picture: np.ndarray, of: dict[str, Any], column: int) -> np.ndarray:
    height, width = (factor(of) * side for side in of["crops"].shape[1:3])
    top = CAPTION_HEIGHT + 3 * height + 4
    left = CAPTION_HEIGHT + column * (width + 2)
    return picture[top : top + CAPTION_HEIGHT, left : left + width]


def place(shown: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """The mean (x, y) of the pixels nearly of a color."""
    rows, columns = np.nonzero(np.abs(shown - color).sum(axis=-1) < NEAR)
    assert len(rows) > 0
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
def test_a_column_for_each_sample_of_the_expected_size(size: tuple[int, int], count: int) -> None:
    given = batch(count, size)
    picture = batch_picture(**given)
    width, height = (factor(given) * side for side in size)
    assert height >= 128
    assert picture.shape == (2 * CAPTION_HEIGHT + 4 * (height + 2), CAPTION_HEIGHT + count * (width + 2), 3)
    assert picture.dtype == np.uint8


def test_only_the_first_samples_are_shown() -> None:
    given = batch(5)
    few = batch_picture(**given, most=2)
    np.testing.assert_array_equal(tile(few, given, TRUTH, 1), tile(batch_picture(**given), given, TRUTH, 1))
    assert few.shape == batch_picture(**batch(2)).shape


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("row", range(4))
def test_every_row_shows_each_keypoint_at_its_place_in_the_color_of_its_side(size: tuple[int, int], row: int) -> None:
    given = batch(2, size)
    picture = batch_picture(**given)
    scale = factor(given)
    # half a cell is what rounding to cells may move it
    reach = 2 * scale + 1
    for column, pose in enumerate(given["keypoints"]):
        shown = tile(picture, given, row, column)
        for (x, y), color in zip(pose, (MIDDLE, LEFT, RIGHT), strict=True):
            center_x, center_y = (round(scale * value + (scale - 1) / 2) for value in (x, y))
            around = shown[center_y - reach : center_y + reach + 1, center_x - reach : center_x + reach + 1]
            assert np.abs(around - color).sum(axis=-1).min() < NEAR
            if row in (TARGET, HEATMAP):
                assert np.abs(place(shown, color) - [center_x, center_y]).max() <= reach


@pytest.mark.parametrize("row", range(4))
def test_exchanged_labels_exchange_the_colors(row: int) -> None:
    given = batch(2)
    exchanged = [0, 2, 1]
    swapped = given | {
        name: given[name][:, exchanged] for name in ("keypoints", "targets", "heatmaps", "found", "scores")
    }
    before, after = (tile(batch_picture(**each), each, row, 0) for each in (given, swapped))
    np.testing.assert_allclose(place(before, LEFT), place(after, RIGHT), atol=1)
    assert place(before, LEFT)[0] > place(after, LEFT)[0] + 20


def test_heat_lies_on_the_dimmed_crop() -> None:
    given = batch(1, level=100)
    shown = tile(batch_picture(**given), given, TARGET, 0)
    assert (shown[-10:] == 40).all()
    assert shown.max() > 200


def test_an_unlabeled_keypoint_is_in_the_prediction_alone() -> None:
    given = batch(1)
    given["labeled"][0, 1] = False
    given["targets"][0, 1] = 0
    picture = batch_picture(**given)
    for row in range(4):
        shown = tile(picture, given, row, 0)
        assert (np.abs(shown - LEFT).sum(axis=-1) < NEAR).any() == (row in (HEATMAP, PREDICTION))


def test_heatmaps_are_scaled_and_their_peak_is_written_below() -> None:
    given = batch(1)
    faint = given | {"heatmaps": given["heatmaps"] / 128}
    bright, scaled = batch_picture(**given), batch_picture(**faint)
    np.testing.assert_allclose(tile(bright, given, HEATMAP, 0), tile(scaled, given, HEATMAP, 0), atol=1)
    assert (peak_number(bright, given, 0) != peak_number(scaled, given, 0)).any()
    assert (peak_number(bright, given, 0) > 200).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0, -1.5, np.nan, np.inf, -np.inf])
def test_heatmaps_without_heat_show_the_dimmed_crop(value: float) -> None:
    given = batch(2)
    given["heatmaps"][0] = value
    picture = batch_picture(**given)
    assert (tile(picture, given, HEATMAP, 0) == 36).all()
    np.testing.assert_array_equal(tile(picture, given, HEATMAP, 1), tile(picture, given, TARGET, 1))


@pytest.mark.filterwarnings("error")
def test_single_broken_values_are_named_and_leave_the_rest() -> None:
    given = batch(1)
    broken = given | {"heatmaps": given["heatmaps"].copy(), "found": given["found"].copy()}
    broken["heatmaps"][0, 0, 0, :2] = np.inf, np.nan
    broken["found"][0, 0] = np.nan, np.inf
    broken["scores"] = np.array([[np.nan, 0.9, -1]], dtype=np.float32)
    sound, picture = batch_picture(**given), batch_picture(**broken)
    np.testing.assert_array_equal(tile(sound, given, HEATMAP, 0), tile(picture, given, HEATMAP, 0))
    assert (peak_number(sound, given, 0) != peak_number(picture, given, 0)).any()
    shown = tile(picture, given, PREDICTION, 0)
    assert place(shown, LEFT)[0] > 64
    assert not (np.abs(shown - RIGHT).sum(axis=-1) < NEAR).any()


def test_what_is_given_stays_as_it_is() -> None:
    given = batch(2)
    copies = {name: value.copy() for name, value in given.items() if isinstance(value, np.ndarray)}
    batch_picture(**given)
    for name, copy in copies.items():
        np.testing.assert_array_equal(given[name], copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crops", np.zeros((2, 96, 64, 3), dtype=np.float32)),
        ("keypoints", np.zeros((2, 4, 2))),
        ("labeled", np.ones((1, 3), dtype=bool)),
        ("targets", np.zeros((2, 3, 24, 15))),
        ("heatmaps", np.zeros((2, 3, 16, 24))),
        ("found", np.zeros((2, 3, 3))),
        ("scores", np.zeros((3, 2))),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match=name):
        batch_picture(**(batch(2) | {name: value}))


def test_no_sample_is_no_picture() -> None:
    with pytest.raises(ValueError, match="one sample"):
        batch_picture(**batch(1), most=0)

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import make_smoothing_spline
from scipy.signal import butter, filtfilt

from posedy.inference.offline_smoothing import OfflineSmoothing, _fit_curve, smooth_tracks
from posedy.inference.track_table import TrackTable
from posedy.skeleton import Skeleton

SKELETON = Skeleton(("a", "b"), (), (), (0.05, 0.05))
SIZE = 100.0


def make_table(x: np.ndarray, times: np.ndarray, score: float = 0.9, frames: np.ndarray | None = None) -> TrackTable:
    """A table of one track whose two keypoints are at (x, 2 x) and (x + 50, 7)."""
    frames = np.arange(len(times)) if frames is None else frames
    keypoints = np.stack([np.stack([x, 2 * x], 1), np.stack([x + 50, np.full_like(x, 7)], 1)], axis=1)
    boxes = np.tile([0.0, 0.0, 60.0, SIZE], (len(x), 1))
    ones = np.ones(len(x))
    return TrackTable(
        *(SKELETON, np.arange(len(times)), times, frames, np.ones(len(x), int), keypoints),
        *(np.full((len(x), 2), score), np.zeros((len(x), 2), bool), boxes, ones, ones),
    )


def noisy(count: int, rate: float = 30.0, seed: int = 0) -> TrackTable:
    times = np.arange(count) / rate
    return make_table(40 * np.sin(2 * times) + np.random.default_rng(seed).normal(0, 1, count), times)


@pytest.mark.parametrize("count", [5, 60])
def test_curve_is_scipys_smoothing_spline(count: int) -> None:
    rng = np.random.default_rng(0)
    times, values = np.cumsum(rng.uniform(0.3, 2, count)), rng.normal(300, 10, (count, 2))
    weights, at = rng.uniform(0.2, 1, count), np.linspace(times[0], times[-1], 50)
    expected = np.stack([make_smoothing_spline(times, column, weights, 1.3)(at) for column in values.T], axis=1)
    np.testing.assert_allclose(_fit_curve(times, values, weights, 1.3, at), expected, atol=1e-9)


def test_frequency_response_is_that_of_a_butterworth_filter_run_forward_and_backward() -> None:
    times = np.arange(2400) / 240
    x = 3 * np.sin(2 * np.pi * 4 * times) + np.sin(2 * np.pi * 9 * times)
    table = make_table(x, times)
    smoothed = smooth_tracks(table, OfflineSmoothing(cutoff=5, max_shift=1)).keypoints[:, 0, 0]
    b, a = butter(2, 5, fs=240)
    middle = slice(400, 2000)
    np.testing.assert_allclose(smoothed[middle], filtfilt(b, a, x)[middle], atol=0.02)


def test_reversed_tracks_are_smoothed_the_same() -> None:
    table = noisy(50)
    times = table.times[-1] - table.times[::-1]
    backward = make_table(table.keypoints[::-1, 0, 0].copy(), times)
    forward = smooth_tracks(table).keypoints
    assert np.abs(forward - table.keypoints).max() > 0.5
    np.testing.assert_allclose(smooth_tracks(backward).keypoints[::-1], forward, atol=1e-6)


def test_uniform_motion_is_unchanged_at_a_variable_rate() -> None:
    times = np.cumsum(np.random.default_rng(0).choice([0.02, 0.033, 0.1], 40))
    times[7] = times[6] + 1e-6  # two frames at nearly one time
    table = make_table(120 * times, times)
    np.testing.assert_allclose(smooth_tracks(table).keypoints, table.keypoints, atol=0.05)


def test_keypoints_in_whole_pixels_are_smoothed() -> None:
    times = np.arange(60) / 30
    table = make_table(100 * times, times)
    whole = replace(table, keypoints=np.rint(table.keypoints).astype(np.int64))
    smoothed = smooth_tracks(whole).keypoints[:, 0, 0]
    assert np.abs(smoothed - 100 * times).mean() < 0.8 * np.abs(whole.keypoints[:, 0, 0] - 100 * times).mean()


def test_jitter_is_reduced_without_lag() -> None:
    table = noisy(300)
    gt = 40 * np.sin(2 * table.times)
    raw, smoothed = table.keypoints[:, 0, 0], smooth_tracks(table).keypoints[:, 0, 0]
    assert np.diff(smoothed - gt, 2).std() < 0.3 * np.diff(raw - gt, 2).std()
    assert np.abs(smoothed - gt).mean() < 0.8 * np.abs(raw - gt).mean()
    velocity = np.gradient(gt)
    assert abs(np.sum((raw - smoothed) * velocity) / np.sum(velocity**2)) < 0.05


def test_confident_keypoints_move_by_at_most_the_bound() -> None:
    table = noisy(60)
    table.keypoints[30, 0] += [80, 0]  # an outlier with a high score
    shift = np.linalg.norm(smooth_tracks(table, OfflineSmoothing(max_shift=0.05)).keypoints - table.keypoints, axis=-1)
    assert shift.max() == pytest.approx(0.05 * SIZE)
    unmoved = smooth_tracks(table, OfflineSmoothing(max_shift=0)).keypoints
    np.testing.assert_allclose(unmoved, table.keypoints, atol=1e-9)


def test_short_gaps_are_filled_and_long_ones_left() -> None:
    times = np.arange(40) / 20
    table = make_table(30 * times, times)
    table.scores[10:14, 0], table.keypoints[10:14, 0] = 0.1, -500  # 0.25 s between the confident neighbors
    table.scores[20:25, 0], table.keypoints[20:25, 0] = 0.1, -500  # 0.3 s
    table.scores[:2, 1] = 0.2  # not between confident ones
    smoothed = smooth_tracks(table)
    assert np.flatnonzero(smoothed.filled[:, 0]).tolist() == [10, 11, 12, 13]
    assert not smoothed.filled[:, 1].any()
    np.testing.assert_allclose(smoothed.keypoints[10:14, 0, 0], 30 * times[10:14], atol=1e-6)
    np.testing.assert_allclose(smoothed.scores[10:14, 0], 0.9)
    assert (smoothed.keypoints[20:25, 0] == -500).all()
    np.testing.assert_array_equal(smoothed.scores[20:25], table.scores[20:25])


def test_absent_persons_get_rows_within_short_gaps_only() -> None:
    times = np.arange(40) / 20
    present = np.setdiff1d(np.arange(40), [10, 11, *range(20, 30)])
    table = make_table(30 * times[present], times, frames=present)
    other = replace(table, track_ids=np.where(table.row_frames < 5, 8, 1))
    smoothed = smooth_tracks(table)
    assert np.setdiff1d(smoothed.row_frames, present).tolist() == [10, 11]
    rows = np.isin(smoothed.row_frames, [10, 11])
    assert smoothed.filled[rows].all()
    assert not smoothed.filled[~rows].any()
    np.testing.assert_allclose(smoothed.keypoints[rows, 0, 0], 30 * times[[10, 11]], atol=1e-6)
    assert np.unique(smooth_tracks(other).track_ids).tolist() == [1, 8]


def test_keypoints_are_weighted_by_their_scores() -> None:
    table = noisy(40)
    scores = np.random.default_rng(1).uniform(0.3, 1, (40, 2))
    smoothed = smooth_tracks(replace(table, scores=scores), OfflineSmoothing(cutoff=3, max_shift=10)).keypoints
    lam = 30 / (2 * np.pi * 3) ** 4
    for k in range(2):
        weights = scores[:, k] / scores[:, k].mean()
        for values, actual in zip(table.keypoints[:, k].T, smoothed[:, k].T, strict=True):
            expected = make_smoothing_spline(table.times, values, weights, lam)(table.times)
            np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_rows_of_an_absence_follow_the_times_and_have_the_lower_scores() -> None:
    """The frames 4 to 6 are absent, between scores of 0.9 and 0.4 in one order or the other."""
    times = np.array([0, 0.05, 0.1, 0.15, 0.16, 0.18, 0.3, 0.35, 0.4, 0.45])
    present, absent = np.array([0, 1, 2, 3, 7, 8, 9]), slice(4, 7)
    table = make_table(200 * times[present], times, frames=present)
    table.boxes[:] += np.stack([200, 100, 240, 80] * times[present, None], axis=0)
    for before, after in ((0.9, 0.4), (0.4, 0.9)):
        low_first = np.where(present < 5, before, after)
        scores = np.stack([low_first, 1.3 - low_first], axis=1)
        smoothed = smooth_tracks(replace(table, scores=scores, box_scores=low_first, pose_scores=low_first / 2))
        assert smoothed.row_frames.tolist() == list(range(10))
        assert smoothed.filled[absent].all()
        assert not smoothed.filled[[0, 1, 2, 3, 7, 8, 9]].any()
        np.testing.assert_allclose(
            smoothed.boxes[absent], [0, 0, 60, SIZE] + np.array([200, 100, 240, 80]) * times[absent, None]
        )
        np.testing.assert_allclose(smoothed.keypoints[absent, 0, 0], 200 * times[absent], atol=1e-6)
        np.testing.assert_allclose(smoothed.scores[absent], 0.4)
        np.testing.assert_allclose(smoothed.box_scores[absent], 0.4)
        np.testing.assert_allclose(smoothed.pose_scores[absent], 0.2)
        np.testing.assert_array_equal(smoothed.scores[smoothed.row_frames < 4], scores[present < 4])


def test_keypoints_of_an_absence_without_confident_neighbors_are_interpolated() -> None:
    times = np.array([0, 0.05, 0.06, 0.2, 0.25])
    present = np.array([0, 1, 3, 4])
    table = make_table(200 * times[present], times, score=0.1, frames=present)
    table.scores[1:3] = [[0.15, 0.05], [0.1, 0.2]]
    smoothed = smooth_tracks(table)
    np.testing.assert_allclose(smoothed.keypoints[2, :, 0], [200 * 0.06, 200 * 0.06 + 50])
    np.testing.assert_allclose(smoothed.scores[2], [0.1, 0.05])
    assert smoothed.filled[2].all()


def test_keypoints_that_were_filled_before_are_no_measurements() -> None:
    times = np.arange(40) / 20
    table = make_table(30 * times, times)
    table.keypoints[10:13, 0] += 80
    table.filled[10:13, 0] = True
    smoothed = smooth_tracks(table)
    np.testing.assert_allclose(smoothed.keypoints[:, 0, 0], 30 * times, atol=1e-6)
    np.testing.assert_array_equal(smoothed.filled, table.filled)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("score", [0.9, 0.0])
def test_short_tracks_stay_finite(count: int, score: float) -> None:
    table = make_table(np.arange(count) * 3.0, np.arange(count + 1) / 30, score, np.arange(count))
    smoothed = smooth_tracks(table)
    np.testing.assert_allclose(smoothed.keypoints, table.keypoints, atol=1e-9)
    assert not smoothed.filled.any()


@pytest.mark.parametrize("name", ["cutoff", "max_gap", "min_score", "max_shift"])
@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_invalid_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        OfflineSmoothing(**{name: value})

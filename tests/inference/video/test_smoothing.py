import numpy as np
import pytest

from posedy.inference.smoothing import OneEuroFilter

TIMES = np.arange(120) / 30
REST = np.array([[100.0, 50.0], [20.0, 30.0]])


def smoothed(points: np.ndarray, size: float = 100.0) -> np.ndarray:
    smooth = OneEuroFilter()
    return np.stack([smooth(each, time, size) for each, time in zip(points, TIMES, strict=True)])


def test_what_rests_stays_and_what_came_first_is_kept() -> None:
    np.testing.assert_allclose(smoothed(np.repeat(REST[None], 120, axis=0)), np.repeat(REST[None], 120, axis=0))


def test_jitter_at_rest_is_at_most_half() -> None:
    noisy = REST + np.random.default_rng(0).normal(0, 1, (120, 2, 2))
    after = smoothed(noisy)
    assert (after[30:] - REST).std() < 0.5 * (noisy[30:] - REST).std()
    steps_before, steps_after = np.diff(noisy, axis=0)[30:], np.diff(after, axis=0)[30:]
    assert steps_after.std() < 0.3 * steps_before.std()


def test_motion_lags_by_less_than_two_frames() -> None:
    speed = np.array([120.0, 0.0])  # pixels/s: more than a size of the person
    moving = REST + TIMES[:, None, None] * speed
    lag = (moving - smoothed(moving))[60:, :, 0] / speed[0] * 30
    assert (lag < 2).all()
    assert (lag >= 0).all()


def test_larger_persons_are_smoothed_as_much_at_the_same_speed_in_sizes() -> None:
    rng = np.random.default_rng(1)
    points = REST + rng.normal(0, 3, (120, 2, 2)).cumsum(axis=0)
    np.testing.assert_allclose(smoothed(10 * points, size=1000.0), 10 * smoothed(points, size=100.0))


def test_bad_steps_are_refused() -> None:
    smooth = OneEuroFilter()
    smooth(REST, 1.0, 100)
    with pytest.raises(ValueError, match=r"time must advance, got 1\.0 s after 1\.0 s"):
        smooth(REST, 1.0, 100)
    with pytest.raises(ValueError, match=r"began with points \(2, 2\), got \(3, 2\)"):
        smooth(np.zeros((3, 2)), 2.0, 100)
    with pytest.raises(ValueError, match="cutoffs are positive"):
        OneEuroFilter(min_cutoff=0)

import numpy as np
import pytest

from posedy.inference.smoothing import OneEuroFilter

TIMES = np.arange(120) / 30
REST = np.array([[100.0, 50.0], [20.0, 30.0]])


def smoothed(keypoints: np.ndarray, size: float = 100.0) -> np.ndarray:
    one_euro = OneEuroFilter()
    return np.stack([one_euro(each, time, size) for each, time in zip(keypoints, TIMES, strict=True)])


def test_filter_does_not_change_constant_keypoints() -> None:
    np.testing.assert_allclose(smoothed(np.repeat(REST[None], 120, axis=0)), np.repeat(REST[None], 120, axis=0))


def test_filter_halves_jitter_at_rest() -> None:
    noisy = REST + np.random.default_rng(0).normal(0, 1, (120, 2, 2))
    after = smoothed(noisy)
    assert (after[30:] - REST).std() < 0.5 * (noisy[30:] - REST).std()
    steps_before, steps_after = np.diff(noisy, axis=0)[30:], np.diff(after, axis=0)[30:]
    assert steps_after.std() < 0.3 * steps_before.std()


def test_filter_lags_less_than_two_frames() -> None:
    velocity = np.array([120.0, 0.0])  # pixels/s: more than one person size per second
    moving = REST + TIMES[:, None, None] * velocity
    lag = (moving - smoothed(moving))[60:, :, 0] / velocity[0] * 30
    assert (lag < 2).all()
    assert (lag >= 0).all()


def test_filter_is_invariant_to_scale() -> None:
    rng = np.random.default_rng(1)
    keypoints = REST + rng.normal(0, 3, (120, 2, 2)).cumsum(axis=0)
    np.testing.assert_allclose(smoothed(10 * keypoints, size=1000.0), 10 * smoothed(keypoints, size=100.0))


def test_filter_rejects_bad_arguments() -> None:
    one_euro = OneEuroFilter()
    one_euro(REST, 1.0, 100)
    with pytest.raises(ValueError, match=r"1\.0 s"):
        one_euro(REST, 1.0, 100)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(3, 2\)"):
        one_euro(np.zeros((3, 2)), 2.0, 100)
    with pytest.raises(ValueError, match="min_cutoff=0"):
        OneEuroFilter(min_cutoff=0)

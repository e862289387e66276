import math

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


def one_euro_by_loops(
    keypoints: np.ndarray, times: np.ndarray, sizes: np.ndarray, min_cutoff: float, beta: float, speed_cutoff: float
) -> np.ndarray:
    """The equations of the class, keypoint by keypoint and number by number."""

    def gain(cutoff: float, dt: float) -> float:
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / dt)

    smoothed = keypoints.copy()
    for k in range(keypoints.shape[1]):
        x, y = keypoints[0, k]
        speed_x = speed_y = 0.0
        for frame in range(1, len(keypoints)):
            dt = times[frame] - times[frame - 1]
            new_x, new_y = keypoints[frame, k]
            a = gain(speed_cutoff, dt)
            speed_x, speed_y = speed_x + a * ((new_x - x) / dt - speed_x), speed_y + a * ((new_y - y) / dt - speed_y)
            a = gain(min_cutoff + beta * math.hypot(speed_x, speed_y) / sizes[frame], dt)
            x, y = x + a * (new_x - x), y + a * (new_y - y)
            smoothed[frame, k] = x, y
    return smoothed


@pytest.mark.parametrize("settings", [(1.0, 2.0, 1.0), (0.5, 5.0, 3.0)])
def test_filter_equals_a_loop_at_irregular_times(settings: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(2)
    times = np.cumsum(rng.choice([0.01, 0.033, 0.2], 50))
    directions = np.array([[90.0, 120.0], [-200.0, 40.0], [0.0, 0.0]])
    keypoints = directions * times[:, None, None] + rng.normal(0, 2, (50, 3, 2))
    sizes = rng.uniform(40, 400, 50)
    one_euro = OneEuroFilter(*settings)
    actual = [one_euro(*each) for each in zip(keypoints, times, sizes, strict=True)]
    np.testing.assert_allclose(actual, one_euro_by_loops(keypoints, times, sizes, *settings))


def test_filter_rejects_bad_arguments() -> None:
    one_euro = OneEuroFilter()
    one_euro(REST, 1.0, 100)
    with pytest.raises(ValueError, match=r"1\.0 s"):
        one_euro(REST, 1.0, 100)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(3, 2\)"):
        one_euro(np.zeros((3, 2)), 2.0, 100)
    with pytest.raises(ValueError, match="min_cutoff=0"):
        OneEuroFilter(min_cutoff=0)

"""Times of frames from their timestamps, and from steps where these are missing or invalid."""

import math

import pytest

from posedy.inference.video_frame import Clock


def test_valid_timestamps_are_kept() -> None:
    clock = Clock(25.0)
    assert [clock.tick(number, time) for number, time in enumerate((0.0, 0.04, 0.5, 7.25))] == [0.0, 0.04, 0.5, 7.25]


@pytest.mark.parametrize("invalid", [None, math.nan, math.inf, -1.0, 0.5, 0.2])
def test_frames_without_a_valid_timestamp_are_steps_later(invalid: float | None) -> None:
    """Also after damaged frames, which have numbers; 0.5 is the last time, and 0.2 is earlier."""
    clock = Clock(25.0)
    clock.tick(0, 0.5)
    assert clock.tick(3, invalid) == pytest.approx(0.5 + 3 / 25)
    assert clock.tick(4, invalid, duration=0.2) == pytest.approx(0.5 + 3 / 25 + 0.2)
    assert clock.tick(6, invalid, duration=0.2) == pytest.approx(0.5 + 3 / 25 + 0.6)


def test_the_first_frame_without_a_timestamp_is_at_0() -> None:
    assert Clock(25.0).tick(0, None) == 0

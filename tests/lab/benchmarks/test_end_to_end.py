"""The benchmark of whole videos: its videos, and one short run against the same checkout."""

import numpy as np
import pytest

from tools.lab.benchmarks.end_to_end import benchmark_end_to_end, format_end_to_end, moving_camera
from tools.lab.benchmarks.subprocesses import REPOSITORY


def test_the_camera_sways_within_the_frame() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    image[20:40, 30:50] = 255
    frames = list(moving_camera(image, 60))
    assert {frame.shape for frame in frames} == {(720, 960, 3)}
    middles = np.array([np.argwhere(frame[..., 0] > 200).mean(axis=0) for frame in frames])
    assert np.linalg.norm(np.diff(middles, axis=0), axis=1).max() < 4
    assert np.ptp(middles, axis=0).min() > 20
    assert np.ptp(middles, axis=0).max() < 60


@pytest.mark.slow
def test_a_run_counts_people_and_compares_checkouts() -> None:
    report = benchmark_end_to_end("balanced", [1], frames=12, rounds=1, before=REPOSITORY)
    (video,) = report["videos"]
    assert video["found"] >= 1
    rates = video["frames_per_second"]
    assert rates.keys() == {"now", "flip test", "before", "poses alone"}
    for key in ("now", "flip test"):
        assert video["relative_to_before"][key]["median"] == pytest.approx(rates[key] / rates["before"])
    row = f"| 1 | {video['found']:.1f} | {rates['now']:.1f} | {rates['flip test']:.1f} | {rates['before']:.1f} |"
    assert row in format_end_to_end(report)


def test_an_impossible_number_of_people_raises() -> None:
    with pytest.raises(ValueError, match=r"no image of .* has 99 people"):
        benchmark_end_to_end("balanced", [99], frames=1, rounds=1)

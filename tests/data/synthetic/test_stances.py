"""Builds and stances vary, within what an animal can do."""

import numpy as np

from posedy.data.synthetic.stances import sample_animal_build, sample_stance


def test_builds_reach_from_dogs_to_horses() -> None:
    builds = [sample_animal_build(np.random.default_rng(seed)) for seed in range(200)]
    legs, heads = np.array([build.legs for build in builds]), np.array([build.head for build in builds])
    assert legs.min() < 0.65 < 0.85 < legs.max()
    # Who has longer legs has a smaller head.
    assert np.corrcoef(legs, heads)[0, 1] < -0.3
    assert {(build.floppy, build.mane) for build in builds} >= {(True, False), (False, True), (False, False)}


def test_stances_vary_and_horses_tails_hang() -> None:
    rng = np.random.default_rng(0)
    builds = [sample_animal_build(rng) for _ in range(200)]
    stances = [sample_stance(rng, build) for build in builds]
    assert max(stance.tail[0] for stance, build in zip(stances, builds, strict=True) if build.mane) < 0
    assert max(stance.tail[0] for stance in stances) > 30
    necks = np.array([stance.neck[0] for stance in stances])
    assert 0.08 < (necks < 0).mean() < 0.3
    swings = np.array([stance.swings for stance in stances])
    assert np.abs(swings).max() < 70
    assert (np.abs(swings).max(axis=(1, 2)) < 20).mean() > 0.15
    assert (np.abs(swings).max(axis=(1, 2)) > 30).mean() > 0.15
    assert min(stance.bends.min() for stance in stances) >= 0

"""Animals have their joints where a four-legged animal has them, and left and right in their own sense."""

from dataclasses import replace

import numpy as np
import pytest

from posedy.data.synthetic.animal import ANIMAL12, Animal, Stance, pose_animal
from posedy.data.synthetic.body import View
from posedy.data.synthetic.stances import sample_animal, sample_animal_build, sample_stance

INDEX = {name: index for index, name in enumerate(ANIMAL12.keypoints)}


def animal(seed: int, view: View) -> Animal:
    rng = np.random.default_rng(seed)
    build = sample_animal_build(rng)
    return pose_animal(build, sample_stance(rng, build), view)


def mirrored(stance: Stance) -> Stance:
    return replace(
        stance,
        neck=(stance.neck[0], -stance.neck[1]),
        head=(stance.head[0], -stance.head[1], -stance.head[2]),
        swings=stance.swings[:, ::-1],
        bends=stance.bends[:, ::-1],
        tail=(stance.tail[0], -stance.tail[1]),
    )


def test_pairs_are_those_that_the_names_tell() -> None:
    category = {"keypoints": list(ANIMAL12.keypoints), "sigmas": ANIMAL12.sigmas}
    from_names = type(ANIMAL12).from_coco_category(category)
    assert set(from_names.flip_pairs) == set(ANIMAL12.flip_pairs)
    assert len(from_names.flip_pairs) == 5


@pytest.mark.parametrize("seed", range(20))
def test_a_mirrored_animal_has_left_and_right_exchanged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    build = sample_animal_build(rng)
    stance, yaw, roll = sample_stance(rng, build), rng.uniform(-150, 150), rng.normal(0, 5)
    keypoints = pose_animal(build, stance, View(yaw, 8, roll)).keypoints
    other = pose_animal(build, mirrored(stance), View(-yaw, 8, -roll)).keypoints
    np.testing.assert_allclose(other[list(ANIMAL12.flip_permutation)] * [-1, 1, 1], keypoints, atol=1e-12)


@pytest.mark.parametrize(("yaw", "near"), [(-90, "left"), (90, "right")])
def test_who_walks_to_the_left_shows_the_left_side(yaw: float, near: str) -> None:
    for seed in range(10):
        seen = animal(seed, View(yaw, 8, 0))
        assert ("left", "right")[seen.near_side] == near
        keypoints, far = seen.keypoints, {"left": "right", "right": "left"}[near]
        for part in ("front_knee", "hind_knee", "front_paw", "hind_paw"):
            assert keypoints[INDEX[f"{near}_{part}"], 2] > keypoints[INDEX[f"{far}_{part}"], 2]
        # The head is on the side to which the animal faces, the tail on the other.
        assert np.sign(yaw) * (keypoints[INDEX["nose"], 0] - keypoints[INDEX["tail_base"], 0]) > 0.5


@pytest.mark.parametrize("seed", range(20))
def test_legs_stand_below_the_trunk_and_reach_the_ground(seed: int) -> None:
    seen = animal(seed, View(-90, 0, 0))
    height = seen.keypoints[:, 1]
    for end in ("front", "hind"):
        for side in ("left", "right"):
            knee, paw = height[INDEX[f"{side}_{end}_knee"]], height[INDEX[f"{side}_{end}_paw"]]
            assert paw < knee < height[INDEX["tail_base"]]
            assert -1.25 * seen.build.legs < paw < -0.6 * seen.build.legs


@pytest.mark.parametrize("seed", range(20))
def test_everything_lies_within_the_extent(seed: int) -> None:
    seen = sample_animal(np.random.default_rng(seed))
    low, high = seen.extent()
    assert (seen.keypoints[:, :2] >= low).all()
    assert (seen.keypoints[:, :2] <= high).all()
    assert 0.8 < (high - low).max() < 3


def test_views_are_from_the_side_and_both_directions_are_as_frequent() -> None:
    animals = [sample_animal(np.random.default_rng(seed)) for seed in range(200)]
    forward = np.array([seen.trunk_frame[:, 2] for seen in animals])
    assert np.abs(forward[:, 0]).min() > np.cos(np.deg2rad(56))
    assert 0.35 < (forward[:, 0] > 0).mean() < 0.65
    assert 0.35 < np.mean([seen.from_behind for seen in animals]) < 0.65

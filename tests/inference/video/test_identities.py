from collections.abc import Sequence

import numpy as np
import pytest

from posedy.inference.association import TrackAssociator
from posedy.skeleton import COCO17

SIGMAS = np.array(COCO17.sigmas)
NOBODY = np.zeros((0, 17, 2)), np.zeros((0, 4)), np.zeros((0, 12, 3))
RNG = np.random.default_rng(0)
SHAPES = RNG.uniform(0, 1, (5, 17, 2)) * [40, 120]


def person(shape: int, left: float, top: float = 50.0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    keypoints = SHAPES[shape] + [left, top] + RNG.normal(0, noise, (17, 2))
    return keypoints, np.array([left, top, left + 40, top + 120])


def frame(
    *persons: tuple[np.ndarray, np.ndarray], colors: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Persons whose limbs have colors of their own lightness, or colors that are not known."""
    known = np.full(len(persons), np.nan) if colors is None else np.array(colors)
    limbs = np.broadcast_to(known[:, None, None], (len(persons), 12, 3))
    return np.stack([keypoints for keypoints, _ in persons]), np.stack([box for _, box in persons]), limbs


def test_ids_follow_persons_whatever_their_order() -> None:
    identities = TrackAssociator(SIGMAS)
    lefts = np.array([10.0, 150.0, 300.0])
    ids = identities(*frame(*(person(index, left) for index, left in enumerate(lefts))), 0.0)
    assert ids.tolist() == [1, 2, 3]
    for step in range(1, 20):
        order = RNG.permutation(3)
        found = identities(*frame(*(person(index, lefts[index] + 4 * step, noise=1) for index in order)), step / 30)
        assert found.tolist() == (order + 1).tolist()


def test_persons_who_cross_keep_their_ids() -> None:
    """Two persons of the same shape, so that only motion tells them apart."""
    identities = TrackAssociator(SIGMAS)
    for step in range(60):
        found = identities(
            *frame(person(0, 20 + 5.0 * step, noise=1), person(0, 320 - 5.0 * step, top=56, noise=1)), step / 30
        )
        assert found.tolist() == [1, 2]


def test_a_person_unseen_for_a_while_is_the_same_and_after_long_another() -> None:
    identities = TrackAssociator(SIGMAS, patience=1.0)
    assert identities(*frame(person(0, 10)), 0.0).tolist() == [1]
    assert identities(*NOBODY, 0.5).tolist() == []
    assert identities(*frame(person(0, 12)), 0.9).tolist() == [1]
    identities(*NOBODY, 1.5)
    assert identities(*frame(person(0, 12)), 2.5).tolist() == [2]


def test_slow_videos_keep_ids_from_frame_to_frame() -> None:
    identities = TrackAssociator(SIGMAS, patience=1.0)
    assert [identities(*frame(person(0, 10 + step)), 5.0 * step).tolist() for step in range(4)] == [[1]] * 4


def test_strangers_get_new_ids() -> None:
    identities = TrackAssociator(SIGMAS)
    identities(*frame(person(0, 10)), 0.0)
    assert identities(*frame(person(1, 400), person(0, 10)), 0.1).tolist() == [2, 1]


def test_a_wrong_pose_in_the_same_box_is_the_same_person() -> None:
    identities = TrackAssociator(SIGMAS)
    identities(*frame(person(0, 10)), 0.0)
    assert identities(*frame(person(3, 12)), 0.1).tolist() == [1]


@pytest.mark.parametrize("rate", [15, 30, 60])
@pytest.mark.parametrize("followed", [(0, 0), (1, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("speeds", [(120, -120), (150, 30), (90, 0)])
def test_persons_who_meet_as_one_pose_part_with_their_ids(
    speeds: tuple[float, float], followed: tuple[int, int], rate: int
) -> None:
    """Whichever of two persons one pose follows before and after they cross, motion tells who is who afterward."""
    identities, rng = TrackAssociator(SIGMAS), np.random.default_rng(0)
    for step in range(-2 * rate, 2 * rate):
        lefts = [300 + speed * step / rate for speed in speeds]
        still = [person(0, left, top) for left, top in zip(lefts, (50, 56), strict=True)]
        both = [(keypoints + rng.normal(0, 3, keypoints.shape), box) for keypoints, box in still]
        met = abs(lefts[0] - lefts[1]) < 40
        found = identities(*frame(*([both[followed[step >= 0]]] if met else both)), (step + 2 * rate) / rate)
        if not met:
            assert found.tolist() == [1, 2]
        else:
            assert len(found) == 1


def test_who_walks_on_beside_a_hidden_person_keeps_the_id() -> None:
    """A person who is missed for a while, and seen again in the same order, is no reason for an exchange."""
    identities = TrackAssociator(SIGMAS)
    for step in range(60):
        both = [person(0, 100 + 2 * step, noise=2), person(0, 118 + 2 * step, top=56, noise=2)]
        hidden = 20 <= step < 40
        found = identities(*frame(*(both[1:] if hidden else both)), step / 30)
        assert found.tolist() == ([2] if hidden else [1, 2])


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("followed", [0, 1])
def test_who_stood_together_for_long_is_told_apart_by_colors(followed: int, swapped: bool) -> None:
    """Two persons of the same shape meet and stand as one pose for two seconds; then they go on, or back."""
    identities, lightness = TrackAssociator(SIGMAS), [30.0, 60.0]
    for step in range(180):
        if 60 <= step < 120:
            found = identities(*frame(person(0, 220, noise=2), colors=[lightness[followed]]), step / 30)
            assert len(found) == 1
            continue
        way = abs(step - 60) if step < 60 else step - 119
        ways = [-way, way] if step < 60 or not swapped else [way, -way]
        both = [person(0, 220 + 4 * one, noise=2) for one in ways]
        found = identities(*frame(*both, colors=lightness), step / 30)
        if way > 12:
            assert found.tolist() == [1, 2], step


def test_a_pose_that_goes_over_to_who_was_hidden_gets_their_id() -> None:
    """While two persons are one pose, colors tell whose it is."""
    identities, lightness = TrackAssociator(SIGMAS), [30.0, 60.0]
    for step in range(90):
        way = 4 * max(30 - step, step - 60, 0)
        both = [person(0, 220 - way, noise=2), person(0, 220 + way, noise=2)]
        if way:
            found = identities(*frame(*both, colors=lightness), step / 30)
            assert found.tolist() == [1, 2] or way <= 12
        else:
            shown = int(step >= 45)
            found = identities(*frame(both[shown], colors=[lightness[shown]]), step / 30)
            assert found.tolist() == [shown + 1]


def test_colors_that_differ_little_leave_it_to_motion() -> None:
    """Persons in the same clothes who cross: the light on them changes by less than tells anything."""
    identities = TrackAssociator(SIGMAS)
    for step in range(-30, 30):
        met = abs(step) < 6
        lefts = [220 + 4 * step, 220 - 4 * step]
        both = [person(0, left, top, noise=1) for left, top in zip(lefts, (50, 56), strict=True)]
        colors = [50.0, 53.0] if step < 0 else [53.0, 50.0]
        shown = frame(both[1], colors=colors[1:]) if met else frame(*both, colors=colors)
        found = identities(*shown, (step + 30) / 30)
        if not met:
            assert found.tolist() == [1, 2]

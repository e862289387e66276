from collections.abc import Sequence

import numpy as np
import pytest

from posedy.inference.association import TrackAssociator
from posedy.inference.tracking_settings import TrackingSettings
from posedy.skeleton import COCO17

SIGMAS = np.array(COCO17.sigmas)
NO_POSES = np.zeros((0, 17, 2)), np.zeros((0, 4)), np.zeros((0, 12, 3))
RNG = np.random.default_rng(0)
SHAPES = RNG.uniform(0, 1, (5, 17, 2)) * [40, 120]


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the noise of a test independent of the tests that run before."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))


def person(shape: int, left: float, top: float = 50.0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    keypoints = SHAPES[shape] + [left, top] + RNG.normal(0, noise, (17, 2))
    return keypoints, np.array([left, top, left + 40, top + 120])


def frame(
    *persons: tuple[np.ndarray, np.ndarray], colors: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Persons with limb colors of one lightness each, or unknown limb colors."""
    known = np.full(len(persons), np.nan) if colors is None else np.array(colors)
    limbs = np.broadcast_to(known[:, None, None], (len(persons), 12, 3))
    return np.stack([keypoints for keypoints, _ in persons]), np.stack([box for _, box in persons]), limbs


def test_ids_are_independent_of_pose_order() -> None:
    associator = TrackAssociator(SIGMAS)
    lefts = np.array([10.0, 150.0, 300.0])
    ids = associator.update(*frame(*(person(index, left) for index, left in enumerate(lefts))), 0.0)
    assert ids.tolist() == [1, 2, 3]
    for step in range(1, 20):
        order = RNG.permutation(3)
        ids = associator.update(
            *frame(*(person(index, lefts[index] + 4 * step, noise=1) for index in order)), step / 30
        )
        assert ids.tolist() == (order + 1).tolist()


def test_ids_survive_crossing() -> None:
    """Two persons of the same shape differ only by motion."""
    associator = TrackAssociator(SIGMAS)
    for step in range(60):
        ids = associator.update(
            *frame(person(0, 20 + 5.0 * step, noise=1), person(0, 320 - 5.0 * step, top=56, noise=1)), step / 30
        )
        assert ids.tolist() == [1, 2]


def test_lost_track_is_recovered_until_max_age() -> None:
    associator = TrackAssociator(SIGMAS, TrackingSettings(max_age=1.0))
    assert associator.update(*frame(person(0, 10)), 0.0).tolist() == [1]
    assert associator.update(*NO_POSES, 0.5).tolist() == []
    assert associator.update(*frame(person(0, 12)), 0.9).tolist() == [1]
    associator.update(*NO_POSES, 1.5)
    assert associator.update(*frame(person(0, 12)), 2.5).tolist() == [2]


@pytest.mark.parametrize(("height", "ids"), [(120, [1]), (70, [1]), (50, [2]), (250, [2])])
def test_a_lost_track_does_not_pass_to_a_person_of_another_size(height: float, ids: list[int]) -> None:
    """A person of 120 pixels is lost; a second later a person stands next to the place."""
    associator = TrackAssociator(SIGMAS)
    associator.update(*frame(person(0, 100)), 0.0)
    associator.update(*NO_POSES, 0.5)
    scale = height / 120
    keypoints, box = SHAPES[1] * scale + [170, 60], np.array([170, 60, 170 + 40 * scale, 60 + height])
    assert associator.update(*frame((keypoints, box)), 1.0).tolist() == ids


def test_ids_survive_frame_intervals_longer_than_max_age() -> None:
    associator = TrackAssociator(SIGMAS, TrackingSettings(max_age=1.0))
    assert [associator.update(*frame(person(0, 10 + step)), 5.0 * step).tolist() for step in range(4)] == [[1]] * 4


def test_unmatched_poses_get_new_ids() -> None:
    associator = TrackAssociator(SIGMAS)
    associator.update(*frame(person(0, 10)), 0.0)
    assert associator.update(*frame(person(1, 400), person(0, 10)), 0.1).tolist() == [2, 1]


def test_different_pose_in_same_box_keeps_id() -> None:
    associator = TrackAssociator(SIGMAS)
    associator.update(*frame(person(0, 10)), 0.0)
    assert associator.update(*frame(person(3, 12)), 0.1).tolist() == [1]


@pytest.mark.parametrize("rate", [30, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (15, 60))])
@pytest.mark.parametrize("followed", [(0, 0), (1, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("speeds", [(120, -120), (150, 30), (90, 0)])
def test_ids_survive_merging_into_one_pose(speeds: tuple[float, float], followed: tuple[int, int], rate: int) -> None:
    """Motion restores the ids, whichever person the single pose follows before and after the crossing."""
    associator, rng = TrackAssociator(SIGMAS), np.random.default_rng(0)
    for step in range(-2 * rate, 2 * rate):
        lefts = [300 + speed * step / rate for speed in speeds]
        exact = [person(0, left, top) for left, top in zip(lefts, (50, 56), strict=True)]
        both = [(keypoints + rng.normal(0, 3, keypoints.shape), box) for keypoints, box in exact]
        merged = abs(lefts[0] - lefts[1]) < 40
        ids = associator.update(*frame(*([both[followed[step >= 0]]] if merged else both)), (step + 2 * rate) / rate)
        if not merged:
            assert ids.tolist() == [1, 2]
        else:
            assert len(ids) == 1


def test_ids_survive_occlusion_without_crossing() -> None:
    """A person who is occluded for a while and reappears on the same side causes no swap."""
    associator = TrackAssociator(SIGMAS)
    for step in range(60):
        both = [person(0, 100 + 2 * step, noise=2), person(0, 118 + 2 * step, top=56, noise=2)]
        is_occluded = 20 <= step < 40
        ids = associator.update(*frame(*(both[1:] if is_occluded else both)), step / 30)
        assert ids.tolist() == ([2] if is_occluded else [1, 2])


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("followed", [0, 1])
def test_colors_resolve_long_occlusions(followed: int, swapped: bool) -> None:
    """Two persons of the same shape are one pose for two seconds; then they cross or turn back."""
    associator, lightness = TrackAssociator(SIGMAS), [30.0, 60.0]
    for step in range(180):
        if 60 <= step < 120:
            ids = associator.update(*frame(person(0, 220, noise=2), colors=[lightness[followed]]), step / 30)
            assert len(ids) == 1
            continue
        distance = abs(step - 60) if step < 60 else step - 119
        offsets = [-distance, distance] if step < 60 or not swapped else [distance, -distance]
        both = [person(0, 220 + 4 * offset, noise=2) for offset in offsets]
        ids = associator.update(*frame(*both, colors=lightness), step / 30)
        if distance > 12:
            assert ids.tolist() == [1, 2], step


@pytest.mark.parametrize("noise_seed", range(5))
def test_single_pose_takes_id_of_occluded_person_by_colors(noise_seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colors identify the person of a single pose, from the first frame on."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(noise_seed))
    associator, lightness = TrackAssociator(SIGMAS), [30.0, 60.0]
    for step in range(90):
        distance = 4 * max(30 - step, step - 60, 0)
        both = [person(0, 220 - distance, noise=2), person(0, 220 + distance, noise=2)]
        if distance:
            ids = associator.update(*frame(*both, colors=lightness), step / 30)
            assert ids.tolist() == [1, 2] or distance <= 12
        else:
            visible = int(step >= 45)
            ids = associator.update(*frame(both[visible], colors=[lightness[visible]]), step / 30)
            assert ids.tolist() == [visible + 1]


def test_motion_decides_for_similar_colors() -> None:
    """Lighting changes the colors of two crossing persons in the same clothes by little."""
    associator = TrackAssociator(SIGMAS)
    for step in range(-30, 30):
        merged = abs(step) < 6
        lefts = [220 + 4 * step, 220 - 4 * step]
        both = [person(0, left, top, noise=1) for left, top in zip(lefts, (50, 56), strict=True)]
        colors = [50.0, 53.0] if step < 0 else [53.0, 50.0]
        visible = frame(both[1], colors=colors[1:]) if merged else frame(*both, colors=colors)
        ids = associator.update(*visible, (step + 30) / 30)
        if not merged:
            assert ids.tolist() == [1, 2]


def test_reset_deletes_tracks_and_restarts_ids() -> None:
    associator = TrackAssociator(SIGMAS)
    first, second = person(0, 10), person(1, 400)
    assert associator.update(*frame(first, second), 5.0).tolist() == [1, 2]
    associator.reset()
    assert associator.update(*frame(second, first), 0.0).tolist() == [1, 2]

"""What is painted of an animal tells left from right, and the flags say what is seen."""

from dataclasses import replace

import numpy as np
import pytest

from posedy.data.synthetic.animal import ANIMAL12, AnimalBuild, Stance, pose_animal
from posedy.data.synthetic.animal_painter import (
    NUM_ANIMAL_PARTS,
    AnimalPart,
    DrawnAnimal,
    animal_visibilities,
    paint_animal,
)
from posedy.data.synthetic.body import View
from posedy.data.synthetic.canvas import Canvas
from posedy.data.synthetic.coat import sample_coat

BUILD = AnimalBuild(0.7, 1.0, 0.35, 1.2, 1.0, 1.0, floppy=False, tail=0.5, mane=False)
WALKING = Stance(0, (35, 0), (-15, 0, 0), np.array([[24.0, -24], [-24, 24]]), np.zeros((2, 2)), (20, 0))
COAT = replace(sample_coat(np.random.default_rng(1)), patches=())


def drawn(yaw: float, x: float = 110.0, label: int = 1, stance: Stance = WALKING) -> DrawnAnimal:
    return DrawnAnimal(pose_animal(BUILD, stance, View(yaw, 5, 0)), COAT, 90.0, np.array([x, 85.0]), label)


def flags_of(canvas: Canvas, animal: DrawnAnimal) -> dict[str, int]:
    return dict(zip(ANIMAL12.keypoints, animal_visibilities(canvas, animal).tolist(), strict=True))


@pytest.fixture
def canvas() -> Canvas:
    return Canvas(np.full((180, 221, 3), 90, np.uint8))


@pytest.mark.parametrize(("yaw", "near", "far"), [(-90, "left", "right"), (90, "right", "left")])
def test_in_profile_all_of_the_near_side_is_seen(canvas: Canvas, yaw: float, near: str, far: str) -> None:
    animal = drawn(yaw)
    paint_animal(canvas, animal)
    flags = flags_of(canvas, animal)
    assert flags["nose"] == flags["tail_base"] == flags[f"{near}_ear"] == 2
    for part in ("front_knee", "hind_knee", "front_paw", "hind_paw"):
        assert flags[f"{near}_{part}"] == 2
    # Legs of a walking animal are apart, so the far paws are seen too.
    assert flags[f"{far}_front_paw"] == flags[f"{far}_hind_paw"] == 2


def test_far_legs_are_darker(canvas: Canvas) -> None:
    animal = drawn(-90)
    paint_animal(canvas, animal)

    def light(part: int) -> float:
        pixels = canvas.pixels[canvas.labels == animal.label + part]
        return float(np.median(pixels.astype(float).sum(axis=-1)))

    for part in (AnimalPart.FRONT_LOWER, AnimalPart.HIND_LOWER):
        assert light(part + 1) < 0.75 * light(part)


def test_a_mirrored_photo_exchanges_left_and_right(canvas: Canvas) -> None:
    stance = replace(WALKING, swings=WALKING.swings[:, ::-1])
    other = Canvas(np.full((180, 221, 3), 90, np.uint8))
    one, two = drawn(-70), drawn(70, stance=stance)
    paint_animal(canvas, one)
    paint_animal(other, two)
    flipped = other.picture()[:, ::-1].astype(int)
    assert np.abs(canvas.picture() - flipped).mean() < 1
    exchanged = list(ANIMAL12.flip_permutation)
    points = two.project(two.animal.keypoints)[exchanged]
    np.testing.assert_allclose(one.project(one.animal.keypoints), [220, 0] + points * [-1, 1], atol=1e-9)
    assert flags_of(canvas, one) == dict(
        zip(ANIMAL12.keypoints, animal_visibilities(other, two)[exchanged].tolist(), strict=True)
    )


def test_a_rump_shows_the_tail_and_a_face_the_nose(canvas: Canvas) -> None:
    toward, away = drawn(-40), drawn(-140)
    paint_animal(canvas, toward)
    assert flags_of(canvas, toward)["nose"] == 2
    assert flags_of(canvas, toward)["tail_base"] == 1
    other = Canvas(np.full((180, 221, 3), 90, np.uint8))
    paint_animal(other, away)
    assert flags_of(other, away)["nose"] == 1
    assert flags_of(other, away)["tail_base"] == 2


def test_other_animals_and_objects_hide(canvas: Canvas) -> None:
    behind, before = drawn(-90), drawn(-90, label=1 + NUM_ANIMAL_PARTS)
    paint_animal(canvas, behind)
    paint_animal(canvas, before)
    assert set(flags_of(canvas, behind).values()) == {1}
    canvas.polygon(np.array([[0, 130], [220, 130], [220, 180], [0, 180]]), (9, 9, 9))
    assert flags_of(canvas, before)["nose"] == 2
    assert flags_of(canvas, before)["left_front_paw"] == flags_of(canvas, before)["right_hind_paw"] == 1


def test_outside_of_the_picture_is_not_labelled(canvas: Canvas) -> None:
    animal = drawn(-90, x=20)
    paint_animal(canvas, animal)
    flags = flags_of(canvas, animal)
    assert flags["nose"] == flags["left_ear"] == 0
    assert flags["tail_base"] == 2


def test_every_part_has_its_label(canvas: Canvas) -> None:
    animal = drawn(-70, label=40)
    paint_animal(canvas, animal)
    seen = set(np.unique(canvas.labels).tolist()) - {0}
    assert {animal.label + part for part in AnimalPart} <= seen <= set(range(40, 40 + NUM_ANIMAL_PARTS))

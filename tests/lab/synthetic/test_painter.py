"""What is painted shows front and back, and the flags say what is seen."""

import numpy as np
import pytest

from posedy.skeleton import COCO17
from tools.lab.synthetic.body import Arm, Build, Leg, Pose, View, pose_body
from tools.lab.synthetic.canvas import Canvas
from tools.lab.synthetic.outfit import sample_outfit
from tools.lab.synthetic.painter import keypoint_visibilities, paint_person
from tools.lab.synthetic.person import NUM_PARTS, Part, Person

INDEX = {name: index for index, name in enumerate(COCO17.keypoints)}
ARM = Arm(elevation=35, azimuth=0, bend=10, toward=(0, 0, 1))
STANDING = Pose("standing", (0, 0), (0, 0, 0), (0, 0, 0), (ARM, ARM), (Leg(0, 8, 0), Leg(0, 8, 0)))


def figure(yaw: float, x: float = 100.0, label: int = 1) -> Person:
    body = pose_body(STANDING, Build(1.2, 1, 1, 1), View(yaw, 0, 0))
    return Person(body, sample_outfit(np.random.default_rng(1)), 160.0, np.array([x, 110.0]), label)


def flags_of(canvas: Canvas, person: Person) -> dict[str, int]:
    return dict(zip(COCO17.keypoints, keypoint_visibilities(canvas, person).tolist(), strict=True))


@pytest.fixture
def canvas() -> Canvas:
    return Canvas(np.full((220, 200, 3), 90, np.uint8))


def test_everything_is_seen_from_the_front(canvas: Canvas) -> None:
    person = figure(0)
    paint_person(canvas, person)
    assert set(flags_of(canvas, person).values()) == {2}


def test_a_face_turned_away_is_not_labeled(canvas: Canvas) -> None:
    person = figure(180)
    paint_person(canvas, person)
    flags = flags_of(canvas, person)
    assert {name for name, flag in flags.items() if flag == 0} == {"nose", "left_eye", "right_eye"}
    assert flags["left_shoulder"] == flags["right_hip"] == flags["left_ankle"] == 2


def test_in_profile_the_near_side_is_seen_and_the_far_side_is_not(canvas: Canvas) -> None:
    person = figure(90)
    paint_person(canvas, person)
    flags = flags_of(canvas, person)
    for part in ("shoulder", "hip"):
        assert (flags[f"right_{part}"], flags[f"left_{part}"]) == (2, 1)
    assert (flags["nose"], flags["right_ear"], flags["left_ear"]) == (2, 2, 0)


def test_front_and_back_look_different_and_the_same_person_is_the_same(canvas: Canvas) -> None:
    pictures = []
    for yaw in (0, 180, 0):
        other = Canvas(np.full((220, 200, 3), 90, np.uint8))
        paint_person(other, figure(yaw))
        pictures.append(other.picture().astype(int))
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert (np.abs(pictures[0] - pictures[1]).max(axis=-1) > 40).sum() > 100


def test_another_person_and_objects_hide(canvas: Canvas) -> None:
    behind, before = figure(0), figure(0, x=115, label=1 + NUM_PARTS)
    paint_person(canvas, behind)
    paint_person(canvas, before)
    canvas.polygon(np.array([[0, 150], [200, 150], [200, 220], [0, 220]]), (9, 9, 9))
    flags = flags_of(canvas, behind)
    assert flags["left_shoulder"] == 1
    assert flags["right_wrist"] == 2
    assert flags["left_knee"] == flags["right_ankle"] == flags_of(canvas, before)["left_ankle"] == 1


def test_outside_of_the_picture_is_not_labeled(canvas: Canvas) -> None:
    person = figure(0, x=5)
    paint_person(canvas, person)
    flags = flags_of(canvas, person)
    assert flags["right_wrist"] == flags["right_shoulder"] == 0
    assert flags["left_wrist"] == 2


def test_every_part_has_its_label(canvas: Canvas) -> None:
    person = figure(0, label=40)
    paint_person(canvas, person)
    seen = set(np.unique(canvas.labels).tolist()) - {0}
    parts = {person.label + part for part in Part if part != Part.LONG_HAIR}
    assert parts <= seen <= set(range(40, 40 + NUM_PARTS))

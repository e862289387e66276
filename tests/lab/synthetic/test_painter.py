"""Painting of front and back views, and the visibility of keypoints."""

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


def standing_person(yaw: float, x: float = 100.0, label: int = 1) -> Person:
    body = pose_body(STANDING, Build(1.2, 1, 1, 1), View(yaw, 0, 0))
    return Person(body, sample_outfit(np.random.default_rng(1)), 160.0, np.array([x, 110.0]), label)


def visibility_of(canvas: Canvas, person: Person) -> dict[str, int]:
    return dict(zip(COCO17.keypoints, keypoint_visibilities(canvas, person).tolist(), strict=True))


@pytest.fixture
def canvas() -> Canvas:
    return Canvas(np.full((220, 200, 3), 90, np.uint8))


def test_all_keypoints_are_visible_from_the_front(canvas: Canvas) -> None:
    person = standing_person(0)
    paint_person(canvas, person)
    assert set(visibility_of(canvas, person).values()) == {2}


def test_face_turned_away_is_not_labeled(canvas: Canvas) -> None:
    person = standing_person(180)
    paint_person(canvas, person)
    visibility = visibility_of(canvas, person)
    assert {name for name, flag in visibility.items() if flag == 0} == {"nose", "left_eye", "right_eye"}
    assert visibility["left_shoulder"] == visibility["right_hip"] == visibility["left_ankle"] == 2


def test_in_profile_the_near_side_is_visible_and_the_far_side_occluded(canvas: Canvas) -> None:
    person = standing_person(90)
    paint_person(canvas, person)
    visibility = visibility_of(canvas, person)
    for part in ("shoulder", "hip"):
        assert (visibility[f"right_{part}"], visibility[f"left_{part}"]) == (2, 1)
    assert (visibility["nose"], visibility["right_ear"], visibility["left_ear"]) == (2, 2, 0)


def test_front_and_back_differ_and_painting_is_deterministic(canvas: Canvas) -> None:
    images = []
    for yaw in (0, 180, 0):
        other = Canvas(np.full((220, 200, 3), 90, np.uint8))
        paint_person(other, standing_person(yaw))
        images.append(other.image().astype(int))
    np.testing.assert_array_equal(images[0], images[2])
    assert (np.abs(images[0] - images[1]).max(axis=-1) > 40).sum() > 100


def test_other_people_and_objects_occlude(canvas: Canvas) -> None:
    back, front = standing_person(0), standing_person(0, x=115, label=1 + NUM_PARTS)
    paint_person(canvas, back)
    paint_person(canvas, front)
    canvas.polygon(np.array([[0, 150], [200, 150], [200, 220], [0, 220]]), (9, 9, 9))
    visibility = visibility_of(canvas, back)
    assert visibility["left_shoulder"] == 1
    assert visibility["right_wrist"] == 2
    assert visibility["left_knee"] == visibility["right_ankle"] == visibility_of(canvas, front)["left_ankle"] == 1


def test_keypoints_outside_the_image_are_not_labeled(canvas: Canvas) -> None:
    person = standing_person(0, x=5)
    paint_person(canvas, person)
    visibility = visibility_of(canvas, person)
    assert visibility["right_wrist"] == visibility["right_shoulder"] == 0
    assert visibility["left_wrist"] == 2


def test_every_part_has_its_label(canvas: Canvas) -> None:
    person = standing_person(0, label=40)
    paint_person(canvas, person)
    seen = set(np.unique(canvas.labels).tolist()) - {0}
    parts = {person.label + part for part in Part if part != Part.LONG_HAIR}
    assert parts <= seen <= set(range(40, 40 + NUM_PARTS))

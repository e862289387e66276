"""Body geometry: segment lengths, and anatomical left and right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posedy.skeleton import COCO17
from tools.lab.synthetic.body import FOREARM, SHIN, THIGH, UPPER_ARM, Arm, Body, Build, Leg, Pose, View, pose_body
from tools.lab.synthetic.poses import FAMILIES, sample_build, sample_pose, sample_view

INDEX = {name: index for index, name in enumerate(COCO17.keypoints)}
AVERAGE = Build(head=1.2, girth=1.0, legs=1.0, shoulders=1.0)


def standing_body(yaw: float, **angles: tuple) -> Body:
    arm, leg = Arm(10, 0, 0, (0, 0, 1)), Leg(0, 5, 0)
    pose = Pose(
        "standing", (0, 0), (0, 0, 0), (0, 0, 0), angles.get("arms", (arm, arm)), angles.get("legs", (leg, leg))
    )
    return pose_body(pose, AVERAGE, View(yaw, 0, 0))


def sample_body(seed: int) -> Body:
    rng = np.random.default_rng(seed)
    pose = sample_pose(rng)
    return pose_body(pose, sample_build(rng), sample_view(rng, pose.family))


@pytest.mark.parametrize("part", ["eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"])
def test_left_side_is_on_the_right_in_front_views_and_on_the_left_in_back_views(part: str) -> None:
    left, right = INDEX[f"left_{part}"], INDEX[f"right_{part}"]
    front, back = standing_body(0).keypoints[:, 0], standing_body(180).keypoints[:, 0]
    assert front[left] > 0 > front[right]
    assert back[left] < 0 < back[right]


def test_turning_left_moves_the_face_to_the_right_of_the_image() -> None:
    body = standing_body(90)
    assert body.keypoints[INDEX["nose"], 0] > body.keypoints[INDEX["left_ear"], 0]
    assert body.toes[:, 0].min() > body.heels[:, 0].max()
    # the right side of the person is nearer
    assert body.keypoints[INDEX["right_shoulder"], 2] > body.keypoints[INDEX["left_shoulder"], 2]


def test_arm_pose_moves_only_its_side() -> None:
    raised, hanging = Arm(150, 0, 20, (0, 1, 0)), Arm(10, 0, 0, (0, 0, 1))
    moved = np.abs(standing_body(0, arms=(raised, hanging)).keypoints - standing_body(0).keypoints).max(axis=1) > 1e-9
    assert {COCO17.keypoints[index] for index in np.flatnonzero(moved)} == {
        "left_shoulder",
        "left_elbow",
        "left_wrist",
    }


def test_bent_knee_moves_the_ankle_back_and_bent_elbow_the_wrist_forward() -> None:
    arm, leg = Arm(5, 0, 80, (0, 0, 1)), Leg(20, 0, 60)
    body = standing_body(0, arms=(arm, arm), legs=(leg, leg))
    keypoints = body.keypoints[:, 2]
    for side in ("left", "right"):
        assert keypoints[INDEX[f"{side}_ankle"]] < keypoints[INDEX[f"{side}_knee"]]
        assert keypoints[INDEX[f"{side}_wrist"]] > keypoints[INDEX[f"{side}_elbow"]]


@given(st.integers(0, 2**32))
def test_segment_lengths_and_frames_are_valid_in_every_pose(seed: int) -> None:
    body = sample_body(seed)
    for frame in (body.pelvis_frame, body.chest_frame, body.head_frame):
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(frame) > 0
    for name, other, length in (
        ("shoulder", "elbow", UPPER_ARM),
        ("elbow", "wrist", FOREARM),
        ("hip", "knee", THIGH * body.build.legs),
        ("knee", "ankle", SHIN * body.build.legs),
    ):
        for side in ("left", "right"):
            ends = body.keypoints[INDEX[f"{side}_{name}"]], body.keypoints[INDEX[f"{side}_{other}"]]
            assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(length)
    low, high = body.extent()
    assert (low <= body.keypoints[:, :2]).all()
    assert (body.keypoints[:, :2] <= high).all()


@given(st.integers(0, 2**32))
def test_from_behind_means_left_shoulder_on_the_left_of_the_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    family = str(rng.choice([name for name in FAMILIES if name not in ("lying", "leaning", "crouching")]))
    body = pose_body(FAMILIES[family](rng), sample_build(rng), sample_view(rng, family))
    across = body.keypoints[INDEX["left_shoulder"], 0] - body.keypoints[INDEX["right_shoulder"], 0]
    if abs(body.chest_frame[2, 2]) > 0.3:
        assert (across < 0) == body.from_behind


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_name_and_is_random(family: str) -> None:
    rng = np.random.default_rng(0)
    first, second = FAMILIES[family](rng), FAMILIES[family](rng)
    assert first.family == second.family == family
    assert first != second

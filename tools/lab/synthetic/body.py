"""An articulated 3D human body: builds, poses, views, and the positions of COCO's keypoints.

Lengths are in units of the person's stature. Body frames have x to the person's left, y up and z forward. View
coordinates have x to the right of the image, y up and z toward the viewer, so the left side of a person facing the
viewer is on the right of the image. Angles are in degrees. Index 0 of a pair is the person's left, index 1 the right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]

SIDES = (1.0, -1.0)  # the sign of x on the person's left and right
WAIST, SHOULDER, NECK = 0.11, 0.175, 0.195  # heights: the waist above the pelvis, the other two above the waist
UPPER_ARM, FOREARM, HAND = 0.17, 0.145, 0.045
THIGH, SHIN, HEEL, TOE = 0.245, 0.235, 0.028, 0.095
HEAD_AXES = np.array([0.056, 0.076, 0.068])  # half width, height and depth of the head
FACE = np.array(  # nose, left and right eye, left and right ear, relative to the center of the head
    [[0, -0.012, 0.074], [0.024, 0.014, 0.057], [-0.024, 0.014, 0.057], [0.06, -0.002, -0.004], [-0.06, -0.002, -0.004]]
)


@dataclass(frozen=True)
class Build:
    """Proportions of one person relative to the average.

    Attributes:
        head: size of the head; larger than in reality, so that faces are visible at small sizes.
        girth: thickness of trunk and limbs.
        legs: length of the legs.
        shoulders: width of the shoulders.
    """

    head: float
    girth: float
    legs: float
    shoulders: float


@dataclass(frozen=True)
class Arm:
    """Angles of one arm.

    Attributes:
        elevation: angle of the upper arm: 0 is down, 90 horizontal, 180 up.
        azimuth: direction of the raised upper arm: 0 is outward, 90 forward, negative backward.
        bend: angle of the elbow: 0 is a straight arm.
        toward: (inward, up, forward) direction of the forearm when the elbow bends.
    """

    elevation: float
    azimuth: float
    bend: float
    toward: tuple[float, float, float]


@dataclass(frozen=True)
class Leg:
    """Angles of one leg: flexion (forward) and abduction (sideways) of the hip, flexion of the knee."""

    flexion: float
    abduction: float
    knee: float


@dataclass(frozen=True)
class Pose:
    """All angles of a body.

    Attributes:
        family: name of the kind of pose, see `poses.FAMILIES`.
        pelvis: (forward lean, sideways lean) of the whole body.
        spine: (forward bend, sideways bend, twist) of the chest relative to the pelvis.
        head: (turn, nod, tilt) of the head relative to the chest.
        arms: left and right.
        legs: left and right.
    """

    family: str
    pelvis: tuple[float, float]
    spine: tuple[float, float, float]
    head: tuple[float, float, float]
    arms: tuple[Arm, Arm]
    legs: tuple[Leg, Leg]


@dataclass(frozen=True)
class View:
    """Direction of view: yaw 0 is the front and 180 the back view, pitch is from above, roll in the image plane."""

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True)
class Body:
    """A posed body in view coordinates with the pelvis as origin.

    Attributes:
        build: the proportions.
        family: type of the pose.
        keypoints: (17, 3) in COCO's order.
        hands: (2, 3) finger tips.
        heels: (2, 3).
        toes: (2, 3).
        waist: (3,).
        neck: (3,) base of the neck.
        head: (3,) center of the head.
        pelvis_frame: (3, 3), columns are the left, up and forward directions of the pelvis.
        chest_frame: (3, 3), those of the chest.
        head_frame: (3, 3), those of the head.
    """

    build: Build
    family: str
    keypoints: FloatArray
    hands: FloatArray
    heels: FloatArray
    toes: FloatArray
    waist: FloatArray
    neck: FloatArray
    head: FloatArray
    pelvis_frame: FloatArray
    chest_frame: FloatArray
    head_frame: FloatArray

    @property
    def from_behind(self) -> bool:
        """Whether the chest faces away from the viewer."""
        return bool(self.chest_frame[2, 2] < 0)

    def extent(self) -> tuple[FloatArray, FloatArray]:
        """Returns the minimum and maximum (x, y) of the body, y up, ignoring the thickness of the limbs."""
        head_radius = HEAD_AXES.max() * self.build.head
        points = np.concatenate(
            [self.keypoints, self.hands, self.heels, self.toes, self.head + head_radius, self.head - head_radius],
            axis=None,
        ).reshape(-1, 3)[:, :2]
        return points.min(axis=0), points.max(axis=0)


def pose_body(pose: Pose, build: Build, view: View) -> Body:
    """Computes the body of a pose by forward kinematics, rotated to the view."""
    pelvis = (
        rotation(2, view.roll)
        @ rotation(0, view.pitch)
        @ rotation(1, view.yaw)
        @ rotation(2, pose.pelvis[1])
        @ rotation(0, pose.pelvis[0])
    )
    bend, sideways, twist = pose.spine
    chest = pelvis @ rotation(0, bend) @ rotation(2, sideways) @ rotation(1, twist)
    turn, nod, tilt = pose.head
    head_frame = chest @ rotation(1, turn) @ rotation(0, nod) @ rotation(2, tilt)

    waist = pelvis @ [0, WAIST, 0]
    neck = waist + chest @ [0, NECK, 0]
    head = neck + chest @ [0, 0.046, 0.008] + head_frame @ [0, 0.068 * build.head, 0.012]

    keypoints = np.empty((17, 3))
    keypoints[:5] = head + build.head * FACE @ head_frame.T
    hands, heels, toes = np.empty((3, 2, 3))
    for index, side in enumerate(SIDES):
        arm = pose.arms[index]
        shrug = 0.03 * arm.elevation / 180
        shoulder = waist + chest @ [side * (0.1 * build.shoulders - shrug / 2), SHOULDER + shrug, 0]
        upper_arm, forearm = _arm_directions(arm, side)
        elbow = shoulder + UPPER_ARM * chest @ upper_arm
        wrist = elbow + FOREARM * chest @ forearm
        hands[index] = wrist + HAND * chest @ forearm

        leg = pose.legs[index]
        hip = pelvis @ [side * 0.056 * build.girth, -0.01, 0]
        knee = hip + THIGH * build.legs * pelvis @ leg_direction(leg.flexion, leg.abduction, side)
        ankle = knee + SHIN * build.legs * pelvis @ leg_direction(leg.flexion - leg.knee, leg.abduction * 0.7, side)
        # the foot is horizontal for a straight leg and rotates with the shin, slightly outward
        foot_down = pelvis @ leg_direction((leg.flexion - leg.knee) * 0.75, leg.abduction * 0.5, side)
        foot_forward = pelvis @ leg_direction(90 + (leg.flexion - leg.knee) * 0.75, 12, side)
        heels[index] = ankle + HEEL * foot_down - 0.02 * foot_forward
        toes[index] = ankle + HEEL * foot_down + TOE * foot_forward
        keypoints[5 + index :: 2] = shoulder, elbow, wrist, hip, knee, ankle
    return Body(build, pose.family, keypoints, hands, heels, toes, waist, neck, head, pelvis, chest, head_frame)


def rotation(axis: int, degrees: float) -> FloatArray:
    """Returns the right-handed rotation matrix about an axis: about x it leans forward, about y it turns left."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    after, last = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[[after, after, last, last], [after, last, after, last]] = cos, -sin, sin, cos
    return matrix


def _arm_directions(arm: Arm, side: float) -> tuple[FloatArray, FloatArray]:
    """Returns the unit vectors of upper arm and forearm in the chest frame."""
    elevation, azimuth, bend = np.deg2rad([arm.elevation, arm.azimuth, arm.bend])
    upper = np.array(
        [side * np.sin(elevation) * np.cos(azimuth), -np.cos(elevation), np.sin(elevation) * np.sin(azimuth)]
    )
    inward, up, forward = arm.toward
    toward = np.array([-side * inward, up, forward])
    toward -= upper * (upper @ toward)
    return upper, np.cos(bend) * upper + np.sin(bend) * toward / np.linalg.norm(toward)


def leg_direction(flexion: float, abduction: float, side: float) -> FloatArray:
    """Returns the unit vector of a leg segment in the pelvis frame: down at 0, forward at a flexion of 90."""
    flexion, abduction = np.deg2rad([flexion, abduction])
    return np.array(
        [side * np.sin(abduction), -np.cos(abduction) * np.cos(flexion), np.cos(abduction) * np.sin(flexion)]
    )

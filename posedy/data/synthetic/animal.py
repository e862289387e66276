"""A jointed four-legged animal in three dimensions: builds, stances, views, and where its keypoints lie.

Lengths are in units of the trunk's length. Frames, views and angles are those of `body`: an animal's frame has x to its
left, y up and z forward; it is seen with x to the right of the picture, y up and z toward the viewer. Index 0 of a pair
is the animal's left, index 1 the right.
"""

from dataclasses import dataclass

import numpy as np

from posedy.data.synthetic.body import SIDES, FloatArray, View, leg_direction, rotation
from posedy.skeleton import Skeleton

_NAMES = (
    *("nose", "left_ear", "right_ear", "tail_base"),
    *("left_front_knee", "right_front_knee", "left_hind_knee", "right_hind_knee"),
    *("left_front_paw", "right_front_paw", "left_hind_paw", "right_hind_paw"),
)
_PAIRS = ((1, 2), (4, 5), (6, 7), (8, 9), (10, 11))
_LIMBS = ((0, 1), (0, 2), (1, 2), (1, 4), (2, 5), (4, 8), (5, 9), (1, 3), (2, 3), (3, 6), (3, 7), (6, 10), (7, 11))
ANIMAL12 = Skeleton(_NAMES, _PAIRS, _LIMBS, sigmas=(0.05,) * len(_NAMES))

# Along the trunk: rump, waist and chest; places, heights and radii.
TRUNK_Z = np.array([-0.38, -0.03, 0.32])
TRUNK_Y = np.array([0.02, 0.01, -0.02])
_TRUNK_RADII = np.array([0.18, 0.165, 0.215])
NECK_RADII = (0.165, 0.1)
SKULL_RADIUS = 0.12
_SIX_WAYS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])


@dataclass(frozen=True)
class AnimalBuild:
    """Proportions of one animal.

    Attributes:
        legs: from the middle of the trunk to the ground, in trunk lengths.
        girth: thickness of trunk and legs, as a factor.
        neck: length, in trunk lengths.
        head: size, as a factor.
        muzzle: length, as a factor.
        ears: length, as a factor.
        floppy: whether the ears hang.
        tail: length, in trunk lengths.
        mane: whether hair grows along the neck.
    """

    legs: float
    girth: float
    neck: float
    head: float
    muzzle: float
    ears: float
    floppy: bool
    tail: float
    mane: bool


@dataclass(frozen=True)
class Stance:
    """All angles of an animal, in degrees.

    Attributes:
        pitch: of the trunk; positive lifts the chest.
        neck: (elevation, turn to the left).
        head: (elevation, turn to the left, tilt), against the ground.
        swings: (2, 2) of front and hind legs, left and right; forward is positive.
        bends: (2, 2) how far these are folded.
        tail: (elevation, sway).
    """

    pitch: float
    neck: tuple[float, float]
    head: tuple[float, float, float]
    swings: FloatArray
    bends: FloatArray
    tail: tuple[float, float]


@dataclass(frozen=True)
class Animal:
    """A posed animal as it is seen; the middle of the trunk is the origin.

    Attributes:
        build: the proportions.
        trunk_frame: (3, 3), columns are the trunk's left, up and forward directions.
        head_frame: (3, 3) likewise.
        neck: (2, 3) from the withers to behind the skull.
        skull: (3,) its centre.
        muzzle: (3,) the end of the muzzle, behind the nose.
        nose: (3,).
        eyes: (2, 3).
        ears: (2, 2, 3) base and tip of each.
        tail: (3, 3) base, middle and end.
        front_legs: (2, 4, 3) shoulder, elbow, knee and paw of each.
        hind_legs: (2, 4, 3) hip, knee, hock and paw of each.
        toe: (3,) from the paw to the toes.
    """

    build: AnimalBuild
    trunk_frame: FloatArray
    head_frame: FloatArray
    neck: FloatArray
    skull: FloatArray
    muzzle: FloatArray
    nose: FloatArray
    eyes: FloatArray
    ears: FloatArray
    tail: FloatArray
    front_legs: FloatArray
    hind_legs: FloatArray
    toe: FloatArray

    @property
    def keypoints(self) -> FloatArray:
        """(12, 3) in the order of `ANIMAL12`; ears are marked at their middle, paws between heel and toes."""
        knees = (self.front_legs[:, 2], self.hind_legs[:, 1])
        paws = (self.front_legs[:, 3] + self.toe / 2, self.hind_legs[:, 3] + self.toe / 2)
        return np.concatenate([self.nose[None], self.ears.mean(axis=1), self.tail[:1], *knees, *paws])

    @property
    def from_behind(self) -> bool:
        """Whether the chest faces away from the viewer."""
        return bool(self.trunk_frame[2, 2] < 0)

    @property
    def near_side(self) -> int:
        """The side that is turned to the viewer: 0 left, 1 right."""
        return 0 if self.trunk_frame[2, 0] > 0 else 1

    def trunk_radius(self, z: FloatArray | float) -> FloatArray:
        """Half the thickness of the trunk at places along it."""
        return self.build.girth * np.interp(z, TRUNK_Z, _TRUNK_RADII)

    def trunk_surface(self, z: FloatArray, angle: FloatArray) -> FloatArray:
        """Points (..., 3) of the skin at places along the trunk; an angle of 0 is the back, 90 the left side."""
        radius, angle = self.trunk_radius(z), np.deg2rad(angle)
        around = np.stack([radius * np.sin(angle), np.interp(z, TRUNK_Z, TRUNK_Y) + radius * np.cos(angle), z], axis=-1)
        return around @ self.trunk_frame.T

    def extent(self) -> tuple[FloatArray, FloatArray]:
        """The lowest and highest (x, y) of the animal, y up, without the thickness of its legs."""
        z, angle = np.meshgrid([-0.5, *TRUNK_Z, 0.45], np.arange(0, 360, 45))
        legs = np.concatenate([self.front_legs, self.hind_legs]).reshape(-1, 3)
        skull = self.skull + self.build.head * SKULL_RADIUS * _SIX_WAYS @ self.head_frame.T
        parts = [self.trunk_surface(z.ravel(), angle.ravel()), legs, legs[3::4] + self.toe, skull, self.nose[None]]
        points = np.concatenate([*parts, self.ears.reshape(-1, 3), self.tail])[:, :2]
        return points.min(axis=0), points.max(axis=0)


def pose_animal(build: AnimalBuild, stance: Stance, view: View) -> Animal:
    """Puts the joints of an animal where the angles say and turns it as the view says."""
    ground = rotation(2, view.roll) @ rotation(0, view.pitch) @ rotation(1, view.yaw)
    trunk = ground @ rotation(0, -stance.pitch)

    elevation, turn = stance.neck
    withers = trunk @ [0, 0.06, 0.34]
    poll = withers + build.neck * ground @ rotation(1, turn) @ rotation(0, -elevation) @ [0, 0, 1]
    elevation, turn, tilt = stance.head
    head = ground @ rotation(1, turn) @ rotation(0, -elevation) @ rotation(2, tilt)
    skull = poll + build.head * head @ [0, 0.01, 0.05]

    def on_head(x: float, y: float, z: float) -> FloatArray:
        return skull + build.head * head @ [x, y, z]

    ears = np.empty((2, 2, 3))
    eyes = np.empty((2, 3))
    front_legs, hind_legs = np.empty((2, 2, 4, 3))
    for index, side in enumerate(SIDES):
        eyes[index] = on_head(side * 0.085, 0.045, 0.075)
        if build.floppy:
            ears[index] = on_head(side * 0.085, 0.06, -0.04), on_head(side * 0.14, 0.06 - 0.16 * build.ears, -0.02)
        else:
            ears[index] = on_head(side * 0.065, 0.08, -0.03), on_head(side * 0.105, 0.08 + 0.15 * build.ears, -0.05)

        swing, bend = stance.swings[0, index], stance.bends[0, index]
        shoulder = trunk @ [side * 0.115 * build.girth, 0, 0.33]
        angles = (0.6 * swing - 14, swing + 8, swing - bend)
        front_legs[index] = _leg(ground, side, shoulder, build.legs * np.array([0.3, 0.42, 0.31]), angles)
        swing, bend = stance.swings[1, index], stance.bends[1, index]
        hip = trunk @ [side * 0.1 * build.girth, 0.02, -0.38]
        angles = (0.7 * swing + 26, 0.8 * swing - 36 - 0.4 * bend, swing + 6 - 0.5 * bend)
        hind_legs[index] = _leg(ground, side, hip, build.legs * np.array([0.45, 0.36, 0.29]), angles)

    base = trunk @ [0, 0.02 + 0.1 * build.girth, -0.38 - 0.145 * build.girth]
    elevation, sway = stance.tail
    middle = base + build.tail / 2 * trunk @ rotation(1, sway) @ rotation(0, elevation) @ [0, 0, -1]
    # The end hangs more, or curls when the tail is held up.
    curl = 1.6 * elevation if elevation > 0 else 1.2 * elevation
    end = middle + build.tail / 2 * trunk @ rotation(1, 1.5 * sway) @ rotation(0, curl) @ [0, 0, -1]
    return Animal(
        build=build,
        trunk_frame=trunk,
        head_frame=head,
        neck=np.stack([withers, poll]),
        skull=skull,
        muzzle=on_head(0, -0.045, 0.1 + 0.13 * build.muzzle),
        nose=on_head(0, -0.025, 0.145 + 0.13 * build.muzzle),
        eyes=eyes,
        ears=ears,
        tail=np.stack([base, middle, end]),
        front_legs=front_legs,
        hind_legs=hind_legs,
        toe=ground @ [0, -0.01, 0.07],
    )


def _leg(
    ground: FloatArray, side: float, start: FloatArray, lengths: FloatArray, angles: tuple[float, float, float]
) -> FloatArray:
    """The four joints (4, 3) of a leg from where it starts, the lengths of its segments and how far each is swung."""
    directions = np.stack([leg_direction(angle, 2, side) for angle in angles])
    return start + np.concatenate([np.zeros((1, 3)), np.cumsum(lengths[:, None] * directions, axis=0)]) @ ground.T

"""Random builds, views and poses: mostly upright people, a minority in difficult poses."""

from collections.abc import Callable

import numpy as np

from tools.lab.synthetic.body import Arm, Build, Leg, Pose, View

Generator = np.random.Generator

# arm poses: ranges of (elevation, azimuth, bend), and the direction of the forearm
_Range = tuple[float, float]
_ARMS: dict[str, tuple[_Range, _Range, _Range, tuple[float, float, float]]] = {
    "hanging": ((5, 20), (-15, 40), (2, 35), (0.2, 0.0, 1.0)),
    "forward swing": ((15, 40), (60, 85), (15, 60), (0.2, 0.3, 1.0)),
    "backward swing": ((15, 38), (-85, -60), (5, 35), (0.2, 0.0, 1.0)),
    "on the hip": ((28, 45), (-35, -5), (85, 105), (1.0, -0.1, 0.3)),
    "folded": ((12, 25), (30, 60), (85, 110), (0.9, 0.25, 0.5)),
    "up": ((118, 172), (-10, 45), (0, 70), (0.6, 0.8, 0.2)),
    "goal post": ((68, 100), (-10, 30), (50, 110), (0.0, 1.0, 0.25)),
    "aside": ((50, 100), (-15, 40), (0, 40), (0.2, 0.3, 0.8)),
    "ahead": ((55, 105), (60, 90), (0, 60), (0.2, 0.9, 0.1)),
    "at the ear": ((15, 40), (20, 60), (120, 140), (0.1, 0.9, 0.6)),
}


def sample_build(rng: Generator) -> Build:
    """Samples the proportions of a person."""
    return Build(
        head=rng.uniform(1.1, 1.45),
        girth=rng.uniform(0.9, 1.3),
        legs=rng.uniform(0.92, 1.08),
        shoulders=rng.uniform(0.95, 1.15),
    )


def sample_view(rng: Generator, family: str) -> View:
    """Samples a view: mostly front and back, about equally often; lying people are rotated by about 90 degrees."""
    if rng.random() < 0.06:
        yaw = rng.choice([-90, 90]) + rng.normal(0, 15)
    else:
        yaw = (180 if rng.random() < 0.45 else 0) + np.clip(rng.normal(0, 24), -75, 75)
    roll = rng.choice([-90, 90]) + rng.normal(0, 12) if family == "lying" else rng.normal(0, 4)
    return View(yaw=float(yaw), pitch=float(rng.uniform(0, 14)), roll=float(roll))


def sample_pose(rng: Generator) -> Pose:
    """Samples a pose of a random family."""
    family = str(rng.choice(list(FAMILIES), p=list(_WEIGHTS)))
    return FAMILIES[family](rng)


def _arm(rng: Generator, *names: str) -> Arm:
    elevation, azimuth, bend, toward = _ARMS[names[rng.integers(len(names))]]
    return Arm(rng.uniform(*elevation), rng.uniform(*azimuth), rng.uniform(*bend), toward)


def _two_arms(rng: Generator, *names: str) -> tuple[Arm, Arm]:
    return _arm(rng, *names), _arm(rng, *names)


def _leg(rng: Generator, flexion: _Range, abduction: _Range, knee: _Range) -> Leg:
    return Leg(rng.uniform(*flexion), rng.uniform(*abduction), rng.uniform(*knee))


def _pose(
    rng: Generator,
    family: str,
    arms: tuple[Arm, Arm],
    legs: tuple[Leg, Leg],
    lean: tuple[float, float] = (0.0, 0.0),
    bend: float = 0.0,
) -> Pose:
    """Returns a pose with small random rotations of the spine and the head."""
    lean = (lean[0] + rng.normal(0, 3), lean[1] + rng.normal(0, 3))
    spine = (bend + rng.normal(3, 5), rng.normal(0, 5), rng.normal(0, 10))
    head = (float(np.clip(rng.normal(0, 25), -60, 60)), rng.normal(4, 10) - lean[0] / 2, rng.normal(0, 7))
    return Pose(family, lean, spine, head, arms, legs)


def _standing(rng: Generator) -> Pose:
    legs = (_leg(rng, (-4, 8), (1, 11), (0, 8)), _leg(rng, (-4, 8), (1, 11), (0, 8)))
    return _pose(rng, "standing", _two_arms(rng, "hanging", "hanging", "on the hip", "folded", "at the ear"), legs)


def _walking(rng: Generator) -> Pose:
    legs = (_leg(rng, (15, 35), (0, 5), (5, 35)), _leg(rng, (-30, -8), (0, 5), (10, 50)))
    arms = (_arm(rng, "backward swing", "hanging"), _arm(rng, "forward swing", "hanging", "at the ear"))
    if rng.random() < 0.5:
        arms, legs = (arms[1], arms[0]), (legs[1], legs[0])
    return _pose(rng, "walking", arms, legs, lean=(4, 0))


def _arms_up(rng: Generator) -> Pose:
    legs = (_leg(rng, (-5, 12), (2, 16), (0, 15)), _leg(rng, (-5, 12), (2, 16), (0, 15)))
    return _pose(rng, "arms up", _two_arms(rng, "up", "up", "goal post"), legs)


def _reaching(rng: Generator) -> Pose:
    legs = (_leg(rng, (-10, 20), (2, 14), (0, 20)), _leg(rng, (-10, 20), (2, 14), (0, 20)))
    arms = (_arm(rng, "up", "aside", "ahead", "goal post"), _arm(rng, "hanging", "aside", "on the hip"))
    if rng.random() < 0.5:
        arms = arms[1], arms[0]
    return _pose(rng, "reaching", arms, legs, lean=(rng.uniform(-3, 12), 0))


def _sitting(rng: Generator) -> Pose:
    legs = (_leg(rng, (70, 92), (3, 20), (65, 100)), _leg(rng, (70, 92), (3, 20), (65, 100)))
    return _pose(rng, "sitting", _two_arms(rng, "forward swing", "folded", "hanging", "at the ear", "up"), legs)


def _crouching(rng: Generator) -> Pose:
    legs = (_leg(rng, (85, 115), (8, 28), (105, 135)), _leg(rng, (60, 115), (8, 28), (105, 135)))
    arms = _two_arms(rng, "forward swing", "ahead", "hanging", "aside")
    return _pose(rng, "crouching", arms, legs, lean=(rng.uniform(10, 25), 0), bend=10)


def _jumping(rng: Generator) -> Pose:
    legs = (_leg(rng, (-15, 45), (12, 35), (10, 80)), _leg(rng, (-15, 45), (12, 35), (10, 80)))
    return _pose(rng, "jumping", _two_arms(rng, "up", "aside", "goal post"), legs)


def _leaning(rng: Generator) -> Pose:
    legs = (_leg(rng, (10, 30), (2, 18), (0, 25)), _leg(rng, (10, 30), (2, 18), (0, 25)))
    lean = (rng.uniform(10, 30), rng.choice([-1, 1]) * rng.uniform(0, 14))
    return _pose(rng, "leaning", _two_arms(rng, "hanging", "ahead", "aside", "on the hip"), legs, lean, bend=15)


def _lying(rng: Generator) -> Pose:
    legs = (_leg(rng, (-5, 50), (1, 15), (0, 70)), _leg(rng, (-5, 50), (1, 15), (0, 70)))
    return _pose(rng, "lying", _two_arms(rng, "hanging", "aside", "up", "folded"), legs)


FAMILIES: dict[str, Callable[[Generator], Pose]] = {
    "standing": _standing,
    "walking": _walking,
    "arms up": _arms_up,
    "reaching": _reaching,
    "sitting": _sitting,
    "crouching": _crouching,
    "jumping": _jumping,
    "leaning": _leaning,
    "lying": _lying,
}
_WEIGHTS = (0.42, 0.24, 0.1, 0.1, 0.05, 0.02, 0.03, 0.03, 0.01)

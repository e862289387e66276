"""Random animals: builds between a dog's and a horse's, gaits, and views from the side."""

import numpy as np

from posedy.data.synthetic.animal import Animal, AnimalBuild, Stance, pose_animal
from posedy.data.synthetic.body import View

Generator = np.random.Generator


def sample_animal(rng: Generator) -> Animal:
    """An animal of a random build in a random stance, seen within about 50 degrees of its profile."""
    yaw = rng.choice([-90, 90]) + np.clip(rng.normal(0, 12), -35, 35)
    view = View(yaw=float(yaw), pitch=float(rng.uniform(2, 14)), roll=float(rng.normal(0, 2)))
    build = sample_animal_build(rng)
    return pose_animal(build, sample_stance(rng, build), view)


def sample_animal_build(rng: Generator) -> AnimalBuild:
    """Proportions between a small dog's and a horse's."""
    horse = float(rng.beta(0.7, 0.7))

    def between(dog: float, other: float, spread: float) -> float:
        return float(dog + (other - dog) * horse) * float(rng.uniform(1 - spread, 1 + spread))

    return AnimalBuild(
        legs=between(0.62, 0.84, 0.13),
        girth=between(0.95, 1.05, 0.12),
        neck=between(0.3, 0.5, 0.12),
        head=between(1.28, 1.0, 0.08),
        muzzle=between(0.95, 1.6, 0.15),
        ears=between(1.15, 0.85, 0.2),
        floppy=bool(rng.random() < 0.6 * (1 - horse)),
        tail=between(0.5, 0.6, 0.25),
        mane=bool(horse > 0.55),
    )


def sample_stance(rng: Generator, build: AnimalBuild) -> Stance:
    """A standing, walking, trotting or galloping animal with its head somewhere between the ground and the sky."""
    gait = rng.choice(["stand", "walk", "trot", "gallop"], p=[0.45, 0.4, 0.1, 0.05])
    first = rng.choice([-1.0, 1.0])
    if gait == "stand":
        swings, bends = np.zeros((2, 2)), np.zeros((2, 2))
    elif gait == "walk":
        # A leg that is ahead stands opposite to one that is behind.
        swings = first * rng.uniform(14, 26, (2, 2)) * [[1, -1], [-1, 1]]
        bends = np.where(swings < 0, rng.uniform(0, 35, (2, 2)), 0)
    elif gait == "trot":
        swings = first * rng.uniform(18, 32, (2, 2)) * [[1, -1], [-1, 1]]
        bends = np.where(swings < 0, rng.uniform(15, 50, (2, 2)), rng.uniform(0, 25, (2, 2)))
    else:
        reach = rng.choice([-0.7, 1.0])  # gathered under the trunk, or stretched
        swings = reach * rng.uniform(25, 45, (2, 2)) * [[1, 1], [-1, -1]]
        bends = rng.uniform(0, 40, (2, 2)) + (25 if reach < 0 else 0)
    swings = swings + rng.normal(0, 5, (2, 2))
    turn = rng.normal(0, 18)
    tail = rng.uniform(-80, -5) if build.mane else rng.uniform(-65, 60)  # horses' tails hang
    low = gait != "gallop" and rng.random() < 0.18
    neck = rng.uniform(-62, -25) if low else rng.uniform(8, 62)
    head = rng.uniform(-75, -45) if low else rng.uniform(-45, 8)
    return Stance(
        pitch=float(rng.normal(0, 7 if gait == "gallop" else 2)),
        neck=(float(neck), float(turn)),
        head=(float(head), float(1.8 * turn + rng.normal(0, 8)), float(rng.normal(0, 6))),
        swings=swings,
        bends=bends,
        tail=(float(tail), float(rng.normal(0, 14))),
    )

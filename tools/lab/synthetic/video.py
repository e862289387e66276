"""Synthetic videos of people who walk back and forth and cross each other, with ground truth for each frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.lab.synthetic.background import draw_background
from tools.lab.synthetic.body import Arm, Body, Build, FloatArray, Leg, Pose, View, pose_body
from tools.lab.synthetic.canvas import Canvas
from tools.lab.synthetic.outfit import Outfit, sample_outfit
from tools.lab.synthetic.painter import paint_person
from tools.lab.synthetic.person import NUM_PARTS, Person
from tools.lab.synthetic.poses import sample_build

_STRIDE = 0.42  # length of a step in statures
_MARGIN = 0.04  # margin of the box around the keypoints, in statures


@dataclass(frozen=True, eq=False)
class SyntheticFrame:
    """A video frame and its ground truth.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        keypoints: (P, 17, 2) in image pixels, occluded or not; people have the same order in all frames.
        boxes: (P, 4) xyxy in image pixels, occluded or not.
    """

    image: NDArray[np.uint8]
    keypoints: FloatArray
    boxes: FloatArray


@dataclass(frozen=True)
class _Walker:
    """A person who walks back and forth: x = center + amplitude sin(2 pi t / period + phase)."""

    build: Build
    outfit: Outfit
    stature: float
    ground: float
    center: float
    amplitude: float
    period: float
    phase: float

    def person_at(self, time: float, label: int) -> Person:
        angle = 2 * np.pi * time / self.period + self.phase
        body = self._body(angle)
        low = body.extent()[0][1]
        origin = np.array([self.center + self.amplitude * np.sin(angle), self.ground + low * self.stature])
        return Person(body, self.outfit, self.stature, origin, label)

    def _body(self, angle: float) -> Body:
        # steps are synchronized with the distance walked, so that feet do not slide
        swing = np.sin(np.pi * self.amplitude * np.sin(angle) / self.stature / _STRIDE)
        legs = tuple(Leg(26 * side * swing, 3, 12 + 18 * max(0.0, -side * swing)) for side in (1, -1))
        arms = tuple(Arm(14, 20 - 40 * side * swing, 25 + 10 * side * swing, (0.2, 0.3, 1.0)) for side in (1, -1))
        pose = Pose("walking", (3, 0), (3, 0, 6 * swing), (0, 4, 0), (arms[0], arms[1]), (legs[0], legs[1]))
        return pose_body(pose, self.build, View(yaw=40 * np.cos(angle), pitch=5, roll=0))


def generate_video(
    seed: int, frames: int, people: int, size: tuple[int, int] = (640, 360), rate: float = 30.0
) -> Iterator[SyntheticFrame]:
    """Generates a video of people who cross each other repeatedly at different speeds.

    Args:
        seed: random seed; it determines the video.
        frames: number of frames.
        people: number of people.
        size: (width, height) in pixels.
        rate: frames per second.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    background = draw_background(rng, width, height)
    walkers = [
        _Walker(
            build=sample_build(rng),
            outfit=sample_outfit(rng),
            stature=height * rng.uniform(0.5, 0.62),
            ground=height * (0.8 + 0.16 * index / max(people - 1, 1)),
            center=width * rng.uniform(0.45, 0.55),
            amplitude=width * rng.uniform(0.3, 0.38),
            period=rng.uniform(9, 14),
            phase=2 * np.pi * index / people,
        )
        for index in range(people)
    ]
    for index in range(frames):
        canvas = Canvas(background)
        persons = [walker.person_at(index / rate, 1 + NUM_PARTS * number) for number, walker in enumerate(walkers)]
        for person in persons:  # back to front
            paint_person(canvas, person)
        keypoints = np.stack([person.project(person.body.keypoints) for person in persons])
        yield SyntheticFrame(canvas.image(), keypoints, np.stack([_box(person) for person in persons]))


def _box(person: Person) -> FloatArray:
    (x1, y1), (x2, y2) = person.body.extent()
    margin = _MARGIN * person.scale
    corners = person.origin[[0, 1, 0, 1]] + person.scale * np.array([x1, -y2, x2, -y1])
    return np.asarray(corners + margin * np.array([-1, -1, 1, 1]))

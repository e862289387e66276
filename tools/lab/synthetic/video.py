"""Synthetic videos of people who walk back and forth and cross each other, with ground truth for each frame."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
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
_BLUR_SAMPLES = 5  # images that are averaged for motion blur
_LEAVING = 1.9  # amplitude of people who leave the image, relative to others


@dataclass(frozen=True, eq=False)
class SyntheticFrame:
    """A video frame and its ground truth.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        keypoints: (P, 17, 2) in image pixels, occluded or not; people have the same order in all frames.
        boxes: (P, 4) xyxy in image pixels, occluded, outside the image, or not.
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


@dataclass(frozen=True)
class _Camera:
    """A camera that pans, zooms and shakes: sums of sines with the given amplitudes, periods and phases.

    Attributes:
        center: (2,) fixed point of the zoom, in image pixels.
        amplitudes: (N, 3) of the shift in x and y, in image pixels, and of the zoom.
        periods: (N, 3) in seconds.
        phases: (N, 3).
    """

    center: FloatArray
    amplitudes: FloatArray
    periods: FloatArray
    phases: FloatArray

    @classmethod
    def sample(cls, rng: np.random.Generator, width: int, height: int) -> "_Camera":
        """Samples a slow pan and a hand-held shake."""
        pan, shake = [0.12 * width, 0.04 * height, 0.08], [0.008 * width, 0.012 * height, 0.005]
        periods = np.stack([rng.uniform(5, 9, 3), rng.uniform(0.4, 0.9, 3)])
        center = np.array([(width - 1) / 2, (height - 1) / 2])
        return cls(center, np.array([pan, shake]), periods, rng.uniform(0, 2 * np.pi, (2, 3)))

    def matrix_at(self, time: float) -> FloatArray:
        """Returns the matrix (2, 3) from the image of a fixed camera to that at a time."""
        x, y, zoom = (self.amplitudes * np.sin(2 * np.pi * time / self.periods + self.phases)).sum(axis=0)
        shift = np.array([x, y]) - zoom * self.center
        return np.concatenate([(1 + zoom) * np.eye(2), shift[:, None]], axis=1)


def generate_video(
    seed: int,
    frames: int,
    people: int,
    size: tuple[int, int] = (640, 360),
    rate: float = 30.0,
    *,
    camera_motion: bool = False,
    exposure: float = 0.0,
    leaving: bool = False,
    same_outfit: bool = False,
    background: NDArray[np.uint8] | None = None,
) -> Iterator[SyntheticFrame]:
    """Generates a video of people who cross each other repeatedly at different speeds.

    Args:
        seed: random seed; it determines the video.
        frames: number of frames.
        people: number of people.
        size: (width, height) in pixels.
        rate: frames per second.
        camera_motion: whether the camera pans, zooms and shakes.
        exposure: seconds over which each frame is averaged, for motion blur; ground truth is from their middle.
        leaving: whether every other person, from the first, walks out of the image and comes back.
        same_outfit: whether all people wear the clothes of the first.
        background: image (H, W, 3) uint8 BGR of any size; None for a synthetic one.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    scenery = draw_background(rng, width, height)
    if background is not None:
        scenery = _cover(background, width, height)
    walkers = [
        _Walker(
            build=sample_build(rng),
            outfit=sample_outfit(rng),
            stature=height * rng.uniform(0.5, 0.62),
            ground=height * (0.8 + 0.16 * index / max(people - 1, 1)),
            center=width * rng.uniform(0.45, 0.55),
            amplitude=width * rng.uniform(0.3, 0.38) * (_LEAVING if leaving and index % 2 == 0 else 1),
            period=rng.uniform(9, 14),
            phase=2 * np.pi * index / people,
        )
        for index in range(people)
    ]
    if same_outfit:
        walkers = [replace(walker, outfit=walkers[0].outfit) for walker in walkers]
    camera = _Camera.sample(rng, width, height) if camera_motion else None
    offsets = np.linspace(-0.5, 0.5, _BLUR_SAMPLES) * exposure if exposure else np.zeros(1)
    for index in range(frames):
        samples = [_render(walkers, scenery, camera, index / rate + offset) for offset in offsets]
        middle = samples[len(samples) // 2]
        if len(samples) > 1:
            mean = np.mean([sample.image for sample in samples], axis=0, dtype=np.float32)
            middle = replace(middle, image=np.rint(mean).astype(np.uint8))
        yield middle


def _render(
    walkers: list[_Walker], background: NDArray[np.uint8], camera: _Camera | None, time: float
) -> SyntheticFrame:
    """Renders people, back to front, in front of a background of the size of the image."""
    persons = [walker.person_at(time, 1 + NUM_PARTS * number) for number, walker in enumerate(walkers)]
    if camera is not None:
        matrix = camera.matrix_at(time)
        size = (background.shape[1], background.shape[0])
        moved = cv2.warpAffine(background, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        background = np.asarray(moved, np.uint8)
        persons = [
            replace(person, origin=matrix[:, :2] @ person.origin + matrix[:, 2], scale=person.scale * matrix[0, 0])
            for person in persons
        ]
    canvas = Canvas(background)
    for person in persons:
        paint_person(canvas, person)
    keypoints = np.stack([person.project(person.body.keypoints) for person in persons])
    return SyntheticFrame(canvas.image(), keypoints, np.stack([_box(person) for person in persons]))


def _cover(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Returns the middle of an image, resized to cover (height, width)."""
    scale = max(width / image.shape[1], height / image.shape[0])
    resized = cv2.resize(image, (round(scale * image.shape[1]), round(scale * image.shape[0])))
    top, left = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    return np.asarray(resized[top : top + height, left : left + width], np.uint8)


def _box(person: Person) -> FloatArray:
    (x1, y1), (x2, y2) = person.body.extent()
    margin = _MARGIN * person.scale
    corners = person.origin[[0, 1, 0, 1]] + person.scale * np.array([x1, -y2, x2, -y1])
    return np.asarray(corners + margin * np.array([-1, -1, 1, 1]))

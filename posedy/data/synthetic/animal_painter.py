"""Painting one animal, part by part from the farthest to the nearest, and telling which keypoints are seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from posedy.data.synthetic.animal import NECK_RADII, SKULL_RADIUS, TRUNK_Y, TRUNK_Z, Animal
from posedy.data.synthetic.annotation import inside
from posedy.data.synthetic.body import SIDES, FloatArray
from posedy.data.synthetic.canvas import Canvas, Colour, capsule, shade
from posedy.data.synthetic.coat import Coat


class AnimalPart(IntEnum):
    """What a labelled pixel of an animal shows; the right side's number follows the left's."""

    TRUNK = 0
    NECK = 1
    SKULL = 2
    MUZZLE = 3
    NOSE = 4
    EAR = 5
    TAIL = 7
    FRONT_UPPER = 8
    FRONT_LOWER = 10
    FRONT_PAW = 12
    HIND_UPPER = 14
    HIND_LOWER = 16
    HIND_PAW = 18


NUM_ANIMAL_PARTS = 20
_LEGS = (
    (AnimalPart.FRONT_UPPER, AnimalPart.FRONT_LOWER, AnimalPart.FRONT_PAW),
    (AnimalPart.HIND_UPPER, AnimalPart.HIND_LOWER, AnimalPart.HIND_PAW),
)
_RADII = ((0.1, 0.07, 0.045, 0.036), (0.145, 0.085, 0.046, 0.037))  # at the joints of front and hind legs
_FAR_SHADE = 0.62  # of the legs and the ear on the far side
_NOSE_SEEN_ABOVE = -0.45  # the nose stands out, so it shows beyond the profile
_NOSE_COLOUR: Colour = (35.0, 28.0, 30.0)
_HORN: Colour = (48.0, 55.0, 62.0)

Stroke = tuple[float, Callable[[], None]]  # depth toward the viewer, and what paints there
Blob = tuple[FloatArray, Colour, int]  # outline in image pixels, colour, label


@dataclass(frozen=True)
class DrawnAnimal:
    """An animal with fur at its place in the picture.

    Attributes:
        animal: as it is seen.
        coat: its fur.
        scale: image pixels per trunk length.
        origin: (2,) image pixels of the trunk's middle.
        label: of its first part on the canvas; the other parts follow as `AnimalPart` numbers them.
    """

    animal: Animal
    coat: Coat
    scale: float
    origin: FloatArray
    label: int

    def project(self, points: FloatArray) -> FloatArray:
        """Points of the seen animal (..., 3) in image pixels (..., 2)."""
        return self.origin + self.scale * np.asarray(points)[..., :2] * [1, -1]

    @property
    def outline(self) -> float:
        """Width of the dark edge around each part, in image pixels."""
        return 0.4 + self.scale / 250

    @property
    def box(self) -> FloatArray:
        """The xyxy box of the whole animal in image pixels, covered or not."""
        (x1, y1), (x2, y2) = self.animal.extent()
        return self.origin[[0, 1, 0, 1]] + self.scale * np.array([x1, -y2, x2, -y1])


def paint_animal(canvas: Canvas, drawn: DrawnAnimal) -> None:
    """Paints all parts of an animal, the nearest last."""
    for _, paint in sorted(_strokes(canvas, drawn), key=lambda stroke: stroke[0]):
        paint()


def animal_visibilities(canvas: Canvas, drawn: DrawnAnimal) -> NDArray[np.int64]:
    """What an annotator would say of each keypoint on the finished canvas.

    Returns:
        (12,) flags: 2 where the part that carries the keypoint is seen; 1 where another animal, an object or the
        animal's own body covers it; 0 outside of the picture.
    """
    points = drawn.project(drawn.animal.keypoints)
    seen = [canvas.label_at(point) - drawn.label for point in points]
    carriers: list[set[int]] = [{AnimalPart.NOSE}, {AnimalPart.EAR}, {AnimalPart.EAR + 1}, {AnimalPart.TAIL}]
    carriers += [{upper + index, lower + index} for upper, lower, _ in _LEGS for index in range(2)]
    carriers += [{paw + index, lower + index} for _, lower, paw in _LEGS for index in range(2)]
    flags = np.array([2 if part in parts else 1 for part, parts in zip(seen, carriers, strict=True)])
    return np.where(inside(canvas, points), flags, 0)


def _strokes(canvas: Canvas, drawn: DrawnAnimal) -> list[Stroke]:
    """Every part with its depth: what is behind the trunk below 0, what is before it above."""
    animal = drawn.animal
    strokes: list[Stroke] = [(0.0, partial(_paint_trunk, canvas, drawn))]
    for index in range(2):
        layer = 10 if index == animal.near_side else -10
        for hind, legs in enumerate((animal.front_legs, animal.hind_legs)):
            strokes.append((layer + float(legs[index, :, 2].mean()), partial(_paint_leg, canvas, drawn, hind, index)))
    # A head that points away lies behind the trunk and the neck.
    points_away = animal.skull[2] < animal.neck[0, 2] - 0.12
    strokes.append(((-10 if points_away else 10) + float(animal.skull[2]), partial(_paint_head, canvas, drawn)))
    # A tail starts before the rump unless that is turned away from the viewer.
    strokes.append((-5 if animal.trunk_frame[2, 2] > 0.2 else 5, partial(_paint_tail, canvas, drawn)))
    return strokes


def _paint_blobs(canvas: Canvas, drawn: DrawnAnimal, blobs: Sequence[Blob]) -> None:
    """All edges first, so that none of them runs across parts that grow into each other."""
    for outline in (drawn.outline, 0.0):
        for points, colour, part in blobs:
            canvas.hull(points, colour, drawn.label + part, outline)


def _capsules(drawn: DrawnAnimal, joints: FloatArray, radii: FloatArray) -> list[FloatArray]:
    """The outlines of round-ended limbs between joints (N, 3) with radii (N,) in trunk lengths."""
    places, radii = drawn.project(joints), drawn.scale * radii
    return [capsule(places[i], places[i + 1], (radii[i], radii[i + 1])) for i in range(len(joints) - 1)]


def _paint_trunk(canvas: Canvas, drawn: DrawnAnimal) -> None:
    """Trunk and neck."""
    animal, coat = drawn.animal, drawn.coat
    axis = np.stack([0 * TRUNK_Z, TRUNK_Y, TRUNK_Z], axis=-1) @ animal.trunk_frame.T
    neck_radii = np.array([NECK_RADII[0] * animal.build.girth, NECK_RADII[1] * animal.build.head])
    (neck,) = _capsules(drawn, animal.neck, neck_radii)
    trunk = _capsules(drawn, axis, animal.trunk_radius(TRUNK_Z))
    if animal.build.mane:
        crest = animal.neck + np.array([[0, 0.1, -0.06], [0, 0.05, -0.1]]) @ animal.head_frame.T
        (mane,) = _capsules(drawn, crest, np.array([0.05, 0.07]))
        _paint_blobs(canvas, drawn, [(mane, coat.tail, AnimalPart.NECK)])
    blobs = [(neck, coat.fur, AnimalPart.NECK), *((points, coat.fur, AnimalPart.TRUNK) for points in trunk)]
    _paint_blobs(canvas, drawn, blobs)
    _mark_trunk(canvas, drawn)


def _mark_trunk(canvas: Canvas, drawn: DrawnAnimal) -> None:
    """Markings, a light back and a dark belly."""
    animal = drawn.animal
    label = drawn.label + AnimalPart.TRUNK
    left, up, _ = animal.trunk_frame[2]
    for z, angle in (patch.T for patch in drawn.coat.patches):
        turned = np.sin(np.deg2rad(angle)) * left + np.cos(np.deg2rad(angle)) * up
        if turned.max() > 0.3:
            seen = canvas.within(drawn.project(animal.trunk_surface(z, angle)), label)
            canvas.pixels[seen] = drawn.coat.marking
    z = np.tile(np.linspace(-0.6, 0.55, 8), 3)
    for middle, half, factor in ((0, 42, 1.12), (180, 58, 0.8)):
        angle = np.repeat([middle - half, middle, middle + half], 8)
        seen = canvas.within(drawn.project(animal.trunk_surface(z, angle)), label)
        canvas.pixels[seen] = np.minimum(canvas.pixels[seen] * factor, 255)


def _paint_leg(canvas: Canvas, drawn: DrawnAnimal, hind: int, index: int) -> None:
    animal, coat = drawn.animal, drawn.coat
    joints = (animal.hind_legs if hind else animal.front_legs)[index]
    tone = 1.0 if index == animal.near_side else _FAR_SHADE
    fur, sock = shade(coat.fur, tone), shade(coat.marking if coat.socks else coat.fur, tone)
    upper, lower, paw = (part + index for part in _LEGS[hind])
    segments = _capsules(drawn, joints, animal.build.girth * np.array(_RADII[hind]))
    (toes,) = _capsules(drawn, np.stack([joints[3], joints[3] + animal.toe]), np.array([0.04, 0.034]))
    # The knee is the second joint of a hind leg, and the third of a front leg.
    middle = (fur, lower) if hind else (fur, upper)
    hoof = _HORN if animal.build.mane else sock
    looks = [(hoof, paw), (sock, lower), middle, (fur, upper)]
    blobs = [(points, *look) for points, look in zip([toes, *reversed(segments)], looks, strict=True)]
    _paint_blobs(canvas, drawn, blobs)


def _paint_head(canvas: Canvas, drawn: DrawnAnimal) -> None:
    """Ears, skull, muzzle, eyes and nose."""
    animal, coat = drawn.animal, drawn.coat
    size, label = animal.build.head, drawn.label
    left, _, forward = animal.head_frame[2]
    nose = partial(
        canvas.disc, drawn.project(animal.nose), 0.045 * size * drawn.scale, _NOSE_COLOUR, label + AnimalPart.NOSE
    )
    near_ear = 0 if left > 0 else 1
    _paint_ear(canvas, drawn, 1 - near_ear, _FAR_SHADE)
    if forward <= _NOSE_SEEN_ABOVE:
        nose()
    skull, muzzle = drawn.project(np.stack([animal.skull, animal.muzzle]))
    radius = SKULL_RADIUS * size * drawn.scale
    blobs = [
        (capsule(skull, skull, (radius, radius)), coat.fur, AnimalPart.SKULL),
        (capsule(skull, muzzle, (0.75 * radius, 0.52 * radius)), coat.muzzle, AnimalPart.MUZZLE),
    ]
    _paint_blobs(canvas, drawn, blobs if forward > -0.2 else blobs[::-1])
    # The brow lies over the muzzle.
    canvas.disc(skull, 0.85 * radius, coat.fur, label + AnimalPart.SKULL)
    if forward > _NOSE_SEEN_ABOVE:
        nose()
    for eye, side in zip(drawn.project(animal.eyes), SIDES, strict=True):
        if 0.8 * side * left + 0.6 * forward > 0.15:
            canvas.disc(eye, 0.03 * size * drawn.scale, (235.0, 240.0, 240.0), label + AnimalPart.SKULL)
            canvas.disc(eye, 0.021 * size * drawn.scale, (20.0, 15.0, 15.0), label + AnimalPart.SKULL)
    _paint_ear(canvas, drawn, near_ear, 1.0)


def _paint_ear(canvas: Canvas, drawn: DrawnAnimal, index: int, tone: float) -> None:
    build = drawn.animal.build
    radii = np.array([0.04, 0.055] if build.floppy else [0.06, 0.012]) * build.head
    (ear,) = _capsules(drawn, drawn.animal.ears[index], radii)
    _paint_blobs(canvas, drawn, [(ear, shade(drawn.coat.ears, tone), AnimalPart.EAR + index)])


def _paint_tail(canvas: Canvas, drawn: DrawnAnimal) -> None:
    build, coat = drawn.animal.build, drawn.coat
    # A horse's tail is hair, which is wider at its end.
    radii = np.array([0.045, 0.075, 0.03] if build.mane else [0.05, 0.042, 0.028])
    first, second = _capsules(drawn, drawn.animal.tail, radii)
    colour = coat.tail if build.mane else coat.fur
    _paint_blobs(canvas, drawn, [(second, coat.tail, AnimalPart.TAIL), (first, colour, AnimalPart.TAIL)])

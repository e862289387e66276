"""Composing one photo of animals: which stand where, what covers them, and what its annotations say."""

import numpy as np

from posedy.data.synthetic.animal_painter import NUM_ANIMAL_PARTS, DrawnAnimal, animal_visibilities, paint_animal
from posedy.data.synthetic.annotation import Photo, annotation_record
from posedy.data.synthetic.background import degrade, draw_background, draw_cover, draw_distractor
from posedy.data.synthetic.canvas import Canvas
from posedy.data.synthetic.coat import sample_coat
from posedy.data.synthetic.stances import sample_animal

Generator = np.random.Generator


def draw_animals(rng: Generator) -> Photo:
    """Draws a photo of one to three animals; every random choice comes from `rng`."""
    width, height = int(rng.integers(288, 353)), int(rng.integers(216, 265))
    if rng.random() < 0.15:
        width, height = height, width
    canvas = Canvas(draw_background(rng, width, height))
    for _ in range(rng.integers(0, 3)):
        draw_distractor(rng, canvas)
    # Who stands lower in the picture stands nearer.
    animals = sorted(_herd(rng, canvas.size), key=lambda drawn: drawn.box[3])
    for drawn in animals:
        paint_animal(canvas, drawn)
    if rng.random() < 0.1:
        draw_cover(rng, canvas, animals[rng.integers(len(animals))].box)

    photo = Photo(degrade(rng, canvas.picture()))
    for drawn in animals:
        labels = range(drawn.label, drawn.label + NUM_ANIMAL_PARTS)
        points = drawn.project(drawn.animal.keypoints)
        record = annotation_record(canvas, labels, points, animal_visibilities(canvas, drawn))
        if record is not None:
            photo.annotations.append(record)
            photo.from_behind.append(drawn.animal.from_behind)
    return photo


def _herd(rng: Generator, size: tuple[int, int]) -> list[DrawnAnimal]:
    """One to three animals of about one size, at times close to each other."""
    width, height = size
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
    length = np.exp(rng.uniform(np.log(70), np.log((170, 125, 100)[count - 1])))
    herd: list[DrawnAnimal] = []
    for index in range(count):
        scale = float(length * rng.uniform(0.8, 1.2))
        drawn = DrawnAnimal(sample_animal(rng), sample_coat(rng), scale, np.zeros(2), 1 + index * NUM_ANIMAL_PARTS)
        x1, y1, x2, y2 = drawn.box
        center, half = (x1 + x2) / 2, (x2 - x1) / 2
        if herd and rng.random() < 0.2:
            left, _, right, low = herd[rng.integers(len(herd))].box
            x = (left + right) / 2 + rng.choice([-1, 1]) * rng.uniform(0.55, 1.0) * (half + (right - left) / 2)
            bottom = low + rng.normal(0, 0.12) * scale
        else:
            # Where there is most room, of a few places.
            middles = [(other.box[0] + other.box[2]) / 2 for other in herd]
            places = rng.uniform(0.1, 0.9, 4) * width
            x = max(places, key=lambda place: min((abs(place - middle) for middle in middles), default=0.0))
            bottom = height * rng.uniform(0.6, 0.98)
        bottom = max(bottom, 0.04 * height + (y2 - y1))
        # Some reach out of the picture.
        margin = min(half, width / 2) * (0.3 if rng.random() < 0.12 else 1.0)
        origin = np.array([float(np.clip(x, margin, width - margin)) - center, bottom - y2])
        herd.append(DrawnAnimal(drawn.animal, drawn.coat, scale, origin, drawn.label))
    return herd

"""Composition of a synthetic image: people, occluders and annotations."""

import numpy as np

from tools.lab.synthetic.annotation import MIN_AREA, SyntheticImage, annotation_record, visible_region
from tools.lab.synthetic.background import degrade, draw_background, draw_distractor, draw_occluder, draw_seat
from tools.lab.synthetic.body import FloatArray, pose_body
from tools.lab.synthetic.canvas import ZOOM, Canvas
from tools.lab.synthetic.outfit import hsv, sample_outfit
from tools.lab.synthetic.painter import keypoint_visibilities, paint_person
from tools.lab.synthetic.person import NUM_PARTS, Person
from tools.lab.synthetic.poses import sample_build, sample_pose, sample_view

Generator = np.random.Generator

_FIRST_LABEL = 1
_CROWD_LABEL = 1 + 8 * NUM_PARTS  # shared by all people of a crowd


def generate_image(rng: Generator, with_crowd: bool, with_far_people: bool) -> SyntheticImage:
    """Generates an image of people with annotations.

    Args:
        rng: source of all random choices.
        with_crowd: whether to add a group of tiny people, annotated as one crowd.
        with_far_people: whether to add one or two people too small for keypoints.
    """
    width, height = int(rng.integers(288, 353)), int(rng.integers(216, 265))
    if rng.random() < 0.4:
        width, height = height, width
    canvas = Canvas(draw_background(rng, width, height))
    for _ in range(rng.integers(0, 3)):
        draw_distractor(rng, canvas)
    if with_crowd:
        _paint_crowd(rng, canvas)
    label = _FIRST_LABEL
    far_people = []
    for _ in range(rng.integers(1, 3) if with_far_people else 0):
        origin = np.array([rng.uniform(0.05, 0.95) * width, rng.uniform(0.3, 0.75) * height])
        far_people.append(_sample_person(rng, rng.uniform(16, 28), origin, label))
        label += NUM_PARTS
    people = _sample_group(rng, canvas.size, label)
    for person in far_people:
        paint_person(canvas, person)
    # people lower in the image are nearer
    for person in sorted(people, key=lambda person: _box(person)[3]):
        _paint_with_seat(rng, canvas, person)
    for _ in range(rng.integers(1, 3) if rng.random() < 0.35 else 0):
        draw_occluder(rng, canvas, _box(people[rng.integers(len(people))]))

    image = SyntheticImage(degrade(rng, canvas.image()))
    for person in people:
        _annotate(image, canvas, person, with_keypoints=True)
    for person in far_people:
        _annotate(image, canvas, person, with_keypoints=False)
    if with_crowd:
        _annotate_crowd(image, canvas)
    return image


def _sample_person(rng: Generator, scale: float, origin: FloatArray, label: int) -> Person:
    pose = sample_pose(rng)
    body = pose_body(pose, sample_build(rng), sample_view(rng, pose.family))
    return Person(body, sample_outfit(rng), scale, origin, label)


def _box(person: Person) -> FloatArray:
    """Returns the xyxy box of the whole body in image pixels, occluded or not."""
    (x1, y1), (x2, y2) = person.body.extent()
    return person.origin[[0, 1, 0, 1]] + person.scale * np.array([x1, -y2, x2, -y1])


def _sample_group(rng: Generator, size: tuple[int, int], label: int) -> list[Person]:
    """Samples one to four people, mostly close to each other."""
    width, height = size
    close_up = rng.random() < 0.05
    count = int(rng.choice([1, 2, 3, 4], p=[0.5, 0.5, 0, 0] if close_up else [0.32, 0.42, 0.18, 0.08]))
    stature = rng.uniform(280, 420) if close_up else np.exp(rng.uniform(np.log(65), np.log(225)))
    people: list[Person] = []
    for index in range(count):
        scale = float(np.clip(stature * rng.uniform(0.8, 1.2), 45, 420))
        person = _sample_person(rng, scale, np.zeros(2), label + index * NUM_PARTS)
        x1, y1, x2, y2 = _box(person)
        center, half = (x1 + x2) / 2, (x2 - x1) / 2
        if people and rng.random() < 0.6:
            left, _, right, low = _box(people[rng.integers(len(people))])
            x = (left + right) / 2 + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0) * (half + (right - left) / 2)
            bottom = low + rng.normal(0, 0.06) * scale
        else:
            x = rng.uniform(0.15, 0.85) * width
            bottom = height * rng.uniform(0.75, 1.0)
            if y2 - y1 > 0.95 * height:
                # feet or legs are outside the image, and the head slightly below the upper border
                bottom = height * rng.uniform(0.03, 0.25) + (y2 - y1)
            elif rng.random() < 0.08:
                bottom = height + rng.uniform(0.1, 0.45) * (y2 - y1)
        x = float(np.clip(x, 0.0 if rng.random() < 0.1 else min(half, width / 2), width))
        x = float(np.clip(x, 0, width if rng.random() < 0.1 else max(width - half, width / 2)))
        origin = np.array([x - center, bottom - y2])
        people.append(Person(person.body, person.outfit, scale, origin, person.label))
    return people


def _paint_with_seat(rng: Generator, canvas: Canvas, person: Person) -> None:
    """Paints a person; a sitting one with a seat, which is in front of the person in back views."""
    if person.body.family != "sitting":
        paint_person(canvas, person)
        return
    color = hsv(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.35, 0.8))
    half, drop = 0.14 * person.scale, 0.06 * person.scale
    x, y = person.origin
    seat = np.array([x - half, y + drop, x + half, max(_box(person)[3], y + 3 * drop)])
    if person.body.from_behind:
        paint_person(canvas, person)
        draw_seat(canvas, seat, color)
    else:
        draw_seat(canvas, seat, color)
        paint_person(canvas, person)


def _paint_crowd(rng: Generator, canvas: Canvas) -> None:
    width, height = canvas.size
    center, ground = rng.uniform(0.2, 0.8) * width, rng.uniform(0.35, 0.6) * height
    for x in np.sort(rng.uniform(-1, 1, rng.integers(8, 15))):
        origin = np.array([center + x * 42, ground + rng.normal(0, 3)])
        paint_person(canvas, _sample_person(rng, rng.uniform(18, 26), origin, _CROWD_LABEL))


def _annotate(image: SyntheticImage, canvas: Canvas, person: Person, with_keypoints: bool) -> None:
    visibility = keypoint_visibilities(canvas, person)
    if not with_keypoints:
        visibility[:] = 0
    labels = range(person.label, person.label + NUM_PARTS)
    record = annotation_record(canvas, labels, person.project(person.body.keypoints), visibility)
    if record is not None:
        image.annotations.append(record)
        image.from_behind.append(person.body.from_behind)


def _annotate_crowd(image: SyntheticImage, canvas: Canvas) -> None:
    """Adds one record for the whole crowd, with its mask as COCO's uncompressed RLE."""
    mask, area, box = visible_region(canvas, range(_CROWD_LABEL, _CROWD_LABEL + NUM_PARTS))
    if area < MIN_AREA:
        return
    small = mask[::ZOOM, ::ZOOM]
    column_major = np.concatenate([[0], small.T.ravel().astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(column_major))
    counts = np.diff(np.concatenate([[0], changes, [small.size]]))
    image.annotations.append(
        {
            "category_id": 1,
            "iscrowd": 1,
            "area": area,
            "bbox": box,
            "num_keypoints": 0,
            "keypoints": [0] * 51,
            "segmentation": {"counts": counts.tolist(), "size": list(small.shape)},
        }
    )
    image.from_behind.append(False)

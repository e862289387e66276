"""Composing one photo: who stands where, what covers them, and what its annotations say."""

import numpy as np

from tools.lab.synthetic.annotation import MIN_AREA, Photo, annotation_record, visible
from tools.lab.synthetic.background import degrade, draw_background, draw_cover, draw_distractor, draw_seat
from tools.lab.synthetic.body import FloatArray, pose_body
from tools.lab.synthetic.canvas import ZOOM, Canvas
from tools.lab.synthetic.outfit import hsv, sample_outfit
from tools.lab.synthetic.painter import keypoint_visibilities, paint_person
from tools.lab.synthetic.person import NUM_PARTS, Person
from tools.lab.synthetic.poses import sample_build, sample_pose, sample_view

Generator = np.random.Generator

_FIRST_LABEL = 1
_CROWD_LABEL = 1 + 8 * NUM_PARTS  # the tiny figures of a crowd share their labels


def draw_photo(rng: Generator, with_crowd: bool, with_far_people: bool) -> Photo:
    """Draws a photo; every random choice comes from `rng`.

    Args:
        rng: the photo's own generator.
        with_crowd: draws a group of tiny figures, annotated as one crowd.
        with_far_people: draws one or two figures too small for keypoints.
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
        far_people.append(_person(rng, rng.uniform(16, 28), origin, label))
        label += NUM_PARTS
    people = _group(rng, canvas.size, label)
    for person in far_people:
        paint_person(canvas, person)
    # Who stands lower in the picture stands nearer.
    for person in sorted(people, key=lambda person: _box(person)[3]):
        _paint_with_seat(rng, canvas, person)
    for _ in range(rng.integers(1, 3) if rng.random() < 0.35 else 0):
        draw_cover(rng, canvas, _box(people[rng.integers(len(people))]))

    photo = Photo(degrade(rng, canvas.picture()))
    for person in people:
        _annotate(photo, canvas, person, with_keypoints=True)
    for person in far_people:
        _annotate(photo, canvas, person, with_keypoints=False)
    if with_crowd:
        _annotate_crowd(photo, canvas)
    return photo


def _person(rng: Generator, scale: float, origin: FloatArray, label: int) -> Person:
    pose = sample_pose(rng)
    body = pose_body(pose, sample_build(rng), sample_view(rng, pose.family))
    return Person(body, sample_outfit(rng), scale, origin, label)


def _box(person: Person) -> FloatArray:
    """The xyxy box of the whole body in image pixels, covered or not."""
    (x1, y1), (x2, y2) = person.body.extent()
    return person.origin[[0, 1, 0, 1]] + person.scale * np.array([x1, -y2, x2, -y1])


def _group(rng: Generator, size: tuple[int, int], label: int) -> list[Person]:
    """One to four people, mostly close to each other."""
    width, height = size
    close_up = rng.random() < 0.05
    count = int(rng.choice([1, 2, 3, 4], p=[0.5, 0.5, 0, 0] if close_up else [0.32, 0.42, 0.18, 0.08]))
    stature = rng.uniform(280, 420) if close_up else np.exp(rng.uniform(np.log(65), np.log(225)))
    people: list[Person] = []
    for index in range(count):
        scale = float(np.clip(stature * rng.uniform(0.8, 1.2), 45, 420))
        person = _person(rng, scale, np.zeros(2), label + index * NUM_PARTS)
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
                # Feet or legs are outside: the head is a little below the upper border.
                bottom = height * rng.uniform(0.03, 0.25) + (y2 - y1)
            elif rng.random() < 0.08:
                bottom = height + rng.uniform(0.1, 0.45) * (y2 - y1)
        x = float(np.clip(x, 0.0 if rng.random() < 0.1 else min(half, width / 2), width))
        x = float(np.clip(x, 0, width if rng.random() < 0.1 else max(width - half, width / 2)))
        origin = np.array([x - center, bottom - y2])
        people.append(Person(person.body, person.outfit, scale, origin, person.label))
    return people


def _paint_with_seat(rng: Generator, canvas: Canvas, person: Person) -> None:
    """Paints a person; who sits has a block under the hips, before them when seen from behind."""
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
        paint_person(canvas, _person(rng, rng.uniform(18, 26), origin, _CROWD_LABEL))


def _annotate(photo: Photo, canvas: Canvas, person: Person, with_keypoints: bool) -> None:
    flags = keypoint_visibilities(canvas, person)
    if not with_keypoints:
        flags[:] = 0
    labels = range(person.label, person.label + NUM_PARTS)
    record = annotation_record(canvas, labels, person.project(person.body.keypoints), flags)
    if record is not None:
        photo.annotations.append(record)
        photo.from_behind.append(person.body.from_behind)


def _annotate_crowd(photo: Photo, canvas: Canvas) -> None:
    """One record for all figures of the crowd, with COCO's uncompressed run lengths as its segmentation."""
    mask, area, box = visible(canvas, range(_CROWD_LABEL, _CROWD_LABEL + NUM_PARTS))
    if area < MIN_AREA:
        return
    small = mask[::ZOOM, ::ZOOM]
    column_major = np.concatenate([[0], small.T.ravel().astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(column_major))
    counts = np.diff(np.concatenate([[0], changes, [small.size]]))
    photo.annotations.append(
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
    photo.from_behind.append(False)

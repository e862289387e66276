"""Painting of a person, part by part from back to front, and the visibility of the keypoints."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tools.lab.synthetic.annotation import inside_image
from tools.lab.synthetic.body import SIDES, FloatArray
from tools.lab.synthetic.canvas import Canvas, Color, shade
from tools.lab.synthetic.head import VISIBLE_ABOVE, facing_viewer, paint_head, paint_long_hair
from tools.lab.synthetic.person import Part, Person

# the limbs and trunk parts at keypoints 5 to 16: pairs of shoulders, elbows, wrists, hips, knees and ankles
_LIMBS = (
    (Part.UPPER_ARM,),
    (Part.UPPER_ARM, Part.FOREARM),
    (Part.FOREARM, Part.HAND),
    (Part.THIGH,),
    (Part.THIGH, Part.SHIN),
    (Part.SHIN, Part.FOOT),
)
_SHOULDERS, _HIPS = 0, 3
_TRUNK = {_SHOULDERS: (Part.TRUNK,), _HIPS: (Part.TRUNK, Part.PELVIS)}
_RING = np.stack([f(np.linspace(0, 2 * np.pi, 14, endpoint=False)) for f in (np.cos, np.sin)], axis=-1)

Stroke = tuple[float, Callable[[], None]]  # depth toward the viewer, and the paint function


def paint_person(canvas: Canvas, person: Person) -> None:
    """Paints all parts of a person from back to front."""
    for _, paint in sorted(_strokes(canvas, person), key=lambda stroke: stroke[0]):
        paint()


def keypoint_visibilities(canvas: Canvas, person: Person) -> NDArray[np.int64]:
    """Returns the visibility of each keypoint on the final canvas, as by an annotator.

    Returns:
        (17,) flags: 2 if the part of the keypoint is visible; 1 if it is occluded by another person, an object or the
        person's own body; 0 outside the image. As in COCO, keypoints of a face that is turned away are not labeled (0).
    """
    points = person.project(person.body.keypoints)
    visibility = np.ones(17, dtype=np.int64)
    parts = [canvas.label_at(point) - person.label for point in points]
    facing = facing_viewer(person)
    for index in range(5):
        if facing[index] <= VISIBLE_ABOVE[index] - 0.25:
            visibility[index] = 0
        elif facing[index] > VISIBLE_ABOVE[index] and parts[index] == Part.HEAD:
            visibility[index] = 2
    for pair, limbs in enumerate(_LIMBS):
        frame = person.body.chest_frame if pair == _SHOULDERS else person.body.pelvis_frame
        for index, side in enumerate(SIDES):
            expected_parts = [limb + index for limb in limbs]
            # in profile, the far shoulder and hip are behind the trunk
            if side * frame[2, 0] > -0.6:
                expected_parts += _TRUNK.get(pair, ())
            keypoint = 5 + 2 * pair + index
            if parts[keypoint] in expected_parts:
                visibility[keypoint] = 2
    return np.where(inside_image(canvas, points), visibility, 0)


def _strokes(canvas: Canvas, person: Person) -> list[Stroke]:
    """Returns the strokes of all parts with their depths."""
    body, outfit = person.body, person.outfit
    trunk = float((body.waist + body.neck)[2] / 2)
    head = float(body.head[2])
    if body.head[1] > body.neck[1]:
        # the chin is in front of the chest, except if the head hangs away from the viewer
        head = max(head, trunk + 0.001)
    strokes: list[Stroke] = [
        (trunk, lambda: _paint_trunk(canvas, person)),
        (float(body.waist[2] / 2) - 0.004, lambda: _paint_pelvis(canvas, person)),
        (min(trunk, head) - 0.002, lambda: _paint_neck(canvas, person)),
        (head, lambda: paint_head(canvas, person)),
    ]
    if outfit.long_hair:
        # behind the shoulders in front views, over them in back views
        depth = min(trunk, head) - 0.05 if body.head_frame[2, 2] > 0.1 else max(trunk, head) + 0.03
        strokes.append((depth, lambda: paint_long_hair(canvas, person)))
    for index in range(2):
        shoulder, elbow, wrist, hip, knee, ankle = body.keypoints[5 + index :: 2]
        heel, toe, hand = body.heels[index], body.toes[index], body.hands[index]
        sleeve, trousers, shoe = outfit.sleeves[index], outfit.trousers[index], outfit.shoes[index]
        forearm = sleeve if outfit.long_sleeves else outfit.skin
        shin = trousers if outfit.long_trousers else outfit.skin
        # the last argument moves a part in front of others of similar depth: sleeves on the trunk, hands on the hips
        strokes += [
            _limb(canvas, person, Part.UPPER_ARM + index, shoulder, elbow, (0.034, 0.026), sleeve, 0.012),
            _limb(canvas, person, Part.FOREARM + index, elbow, wrist, (0.026, 0.019), forearm, 0.013),
            _limb(canvas, person, Part.HAND + index, wrist, hand, (0.019, 0.016), outfit.skin, 0.012),
            _limb(canvas, person, Part.THIGH + index, hip, knee, (0.052, 0.038), trousers, 0.0),
            _limb(canvas, person, Part.SHIN + index, knee, ankle, (0.036, 0.023), shin, 0.0),
            _limb(canvas, person, Part.FOOT + index, heel, toe, (0.022, 0.019), shoe, 0.002),
        ]
    return strokes


def _limb(
    canvas: Canvas,
    person: Person,
    part: int,
    start: FloatArray,
    end: FloatArray,
    radii: tuple[float, float],
    color: Color,
    lift: float,
) -> Stroke:
    girth = person.scale * person.body.build.girth
    (x1y1, x2y2), widths = person.project(np.stack([start, end])), (radii[0] * girth, radii[1] * girth)
    depth = float((start + end)[2] / 2) + lift
    return depth, lambda: canvas.limb(x1y1, x2y2, widths, color, person.label + part, person.outline)


def _ring(person: Person, center: FloatArray, frame: FloatArray, width: float, depth: float) -> FloatArray:
    """Returns image points (14, 2) of a horizontal ellipse around the trunk; half width and depth in statures."""
    around = _RING * [width, depth] * person.body.build.girth
    return person.project(center + around @ frame[:, [0, 2]].T)


def _paint_pelvis(canvas: Canvas, person: Person) -> None:
    frame = person.body.pelvis_frame
    rings = [
        _ring(person, frame @ [0, height, 0], frame, width, depth)
        for height, width, depth in ((-0.04, 0.075, 0.05), (0.01, 0.088, 0.06), (0.075, 0.078, 0.054))
    ]
    canvas.hull(np.concatenate(rings), person.outfit.seat, person.label + Part.PELVIS, person.outline)


def _paint_trunk(canvas: Canvas, person: Person) -> None:
    body, label = person.body, person.label + Part.TRUNK
    shoulders = body.build.shoulders / body.build.girth
    rings = [_ring(person, body.pelvis_frame @ [0, 0.055, 0], body.pelvis_frame, 0.08, 0.056)]
    rings += [
        _ring(person, body.waist + body.chest_frame @ [0, height, 0], body.chest_frame, width, depth)
        for height, width, depth in (
            (0.09, 0.094, 0.062),
            (0.165, 0.112 * shoulders, 0.05),
            (0.2, 0.07 * shoulders, 0.035),
        )
    ]
    # all outlines first, so that none of them crosses the shirt
    for outline in (person.outline, 0.0):
        for lower, upper in pairwise(rings):
            canvas.hull(np.concatenate([lower, upper]), person.outfit.shirt, label, outline)
    if body.chest_frame[2, 2] > 0.15:
        _paint_shirt_front(canvas, person, label)


def _paint_shirt_front(canvas: Canvas, person: Person, label: int) -> None:
    """Paints an open collar, and buttons, a logo or a zip."""
    body, outfit = person.body, person.outfit

    def on_chest(*points: tuple[float, float]) -> FloatArray:
        local = np.array([[x, y, 0.056 * body.build.girth] for x, y in points])
        return person.project(body.waist + local @ body.chest_frame.T)

    canvas.polygon(on_chest((-0.036, 0.197), (0.036, 0.197), (0, 0.135)), outfit.skin, label, person.outline / 2)
    if outfit.front == "buttons":
        for button in on_chest((0, 0.105), (0, 0.06), (0, 0.015)):
            canvas.disc(button, 0.01 * person.scale, outfit.trim, label)
    elif outfit.front == "logo":
        canvas.disc(on_chest((0, 0.07))[0], 0.036 * person.scale, outfit.trim, label)
    else:
        zip_corners = on_chest((-0.008, 0.13), (0.008, 0.13), (0.008, -0.04), (-0.008, -0.04))
        canvas.polygon(zip_corners, outfit.trim, label)


def _paint_neck(canvas: Canvas, person: Person) -> None:
    start, end = person.project(np.stack([person.body.neck, person.body.head]))
    radius = 0.03 * person.scale * person.body.build.girth
    color = shade(person.outfit.skin, 0.9)
    canvas.limb(start, end, (radius, radius), color, person.label + Part.NECK, person.outline)

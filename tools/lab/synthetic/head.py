"""Painting of the head: an ellipsoid of skin and hair with a face, so that front and back differ."""

import numpy as np

from tools.lab.synthetic.body import HEAD_AXES, FloatArray
from tools.lab.synthetic.canvas import ZOOM, Canvas, shade
from tools.lab.synthetic.person import Part, Person

# outward normals of the head at the nose, the eyes and the ears, which determine their visibility
_NORMALS = np.array([[0, 0, 1], [0.35, 0, 0.94], [-0.35, 0, 0.94], [1, 0, -0.1], [-1, 0, -0.1]])
# nose and ears protrude, so they are visible slightly beyond the profile
VISIBLE_ABOVE = np.array([-0.15, 0.15, 0.15, -0.2, -0.2])
_HAIR_AXIS = np.array([0, 0.62, -0.785])
_LIP_CORNERS = np.array([[-0.02, -0.043, 0.05], [0.02, -0.043, 0.05], [0.012, -0.053, 0.047], [-0.012, -0.053, 0.047]])


def facing_viewer(person: Person) -> FloatArray:
    """Returns how much nose, eyes and ears (5,) face the viewer: the cosine of the angle, 1 toward, -1 away."""
    return _NORMALS @ person.body.head_frame[2]


def paint_head(canvas: Canvas, person: Person) -> None:
    """Paints skull, ears and face, all labeled as head."""
    body, outfit, label = person.body, person.outfit, person.label + Part.HEAD
    size = person.scale * body.build.head
    nose, *eyes, left_ear, right_ear = person.project(body.keypoints[:5])
    facing = facing_viewer(person)
    nose_color = shade(outfit.skin, 0.75)
    for ear, cosine in ((left_ear, facing[3]), (right_ear, facing[4])):
        if cosine <= 0.3:
            canvas.disc(ear, 0.018 * size, outfit.skin, label, person.outline)
    if facing[0] <= 0:
        canvas.disc(nose, 0.013 * size, nose_color, label)
    _paint_skull(canvas, person)
    for ear, cosine in ((left_ear, facing[3]), (right_ear, facing[4])):
        if cosine > 0.3:
            canvas.disc(ear, 0.018 * size, outfit.skin, label, person.outline / 2)
    for index, eye in enumerate(eyes, start=1):
        if facing[index] > VISIBLE_ABOVE[index]:
            canvas.disc(eye, 0.0125 * size, (250.0, 250.0, 250.0), label)
            canvas.disc(eye, 0.008 * size, (30.0, 20.0, 15.0), label)
    if facing[0] > 0.2:
        lips = body.head + body.build.head * _LIP_CORNERS @ body.head_frame.T
        canvas.polygon(person.project(lips), (60.0, 50.0, 170.0), label)
    if facing[0] > 0:
        canvas.disc(nose, 0.013 * size, nose_color, label)


def paint_long_hair(canvas: Canvas, person: Person) -> None:
    """Paints hair from the back of the head to the shoulders."""
    body = person.body
    strand = np.array([[0, 0, -0.01], [0, -0.1, -0.05]]) * body.build.head
    top, bottom = person.project(body.head + strand @ body.head_frame.T)
    radius = 0.056 * person.scale * body.build.head
    canvas.limb(top, bottom, (radius, radius * 0.9), person.outfit.hair, person.label + Part.LONG_HAIR, person.outline)


def _paint_skull(canvas: Canvas, person: Person) -> None:
    """Paints skin and hair pixel by pixel.

    The head is {A n : |n| = 1}. With the projection P to the image, a pixel p shows the nearest n with P A n = p: the
    least-norm solution plus a step along the null direction of P A toward the viewer.
    """
    outfit = person.outfit
    semi_axes = HEAD_AXES * person.body.build.head * person.scale
    axes = person.body.head_frame * semi_axes  # A, in image pixels, y up
    center = canvas.to_canvas(person.project(person.body.head))
    rim = 1 + person.outline / semi_axes.mean()
    reach = rim * np.linalg.norm(axes[:2], axis=1) * ZOOM + 1
    height, width = canvas.labels.shape
    x1, y1 = np.clip(np.floor(center - reach).astype(int), 0, [width, height])
    x2, y2 = np.clip(np.ceil(center + reach).astype(int) + 1, 0, [width, height])
    if x1 >= x2 or y1 >= y2:
        return
    ys, xs = np.mgrid[y1:y2, x1:x2]
    offsets = np.stack([xs - center[0], center[1] - ys], axis=-1) / ZOOM
    least = offsets @ np.linalg.pinv(axes[:2]).T
    toward = np.cross(axes[0], axes[1])
    toward /= np.linalg.norm(toward)
    depth_squared = 1 - (least**2).sum(axis=-1)
    depth = np.sqrt(np.maximum(depth_squared, 0))[..., None]
    is_hair = (least + depth * toward) @ _HAIR_AXIS > outfit.hairline
    colors = np.where(is_hair[..., None], outfit.hair, outfit.skin) * (0.84 + 0.22 * depth)
    around = depth_squared > 1 - rim**2
    skull = depth_squared >= 0
    pixels, labels = canvas.pixels[y1:y2, x1:x2], canvas.labels[y1:y2, x1:x2]
    pixels[around] = shade(outfit.skin, 0.35)
    labels[around] = person.label + Part.HEAD
    pixels[skull] = np.minimum(colors[skull], 255).astype(np.uint8)

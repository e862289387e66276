"""A person in an image: body, outfit, position, and the labels of its parts on the canvas."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tools.lab.synthetic.body import Body, FloatArray
from tools.lab.synthetic.outfit import Outfit


class Part(IntEnum):
    """Parts of a person; the value of a right limb is that of the left limb plus 1."""

    TRUNK = 0
    PELVIS = 1
    NECK = 2
    HEAD = 3
    UPPER_ARM = 4
    FOREARM = 6
    HAND = 8
    THIGH = 10
    SHIN = 12
    FOOT = 14
    LONG_HAIR = 16


NUM_PARTS = 17


@dataclass(frozen=True)
class Person:
    """A body with an outfit at a position in the image.

    Attributes:
        body: body in view coordinates.
        outfit: its clothes, skin and hair.
        scale: image pixels per stature.
        origin: (2,) image pixels of the pelvis.
        label: offset of the labels on the canvas; the label of a part is this plus its `Part` value.
    """

    body: Body
    outfit: Outfit
    scale: float
    origin: FloatArray
    label: int

    def project(self, points: FloatArray) -> FloatArray:
        """Projects points of the body (..., 3) to image pixels (..., 2)."""
        return self.origin + self.scale * np.asarray(points)[..., :2] * [1, -1]

    @property
    def outline(self) -> float:
        """Width of the dark outline of each part, in image pixels."""
        return 0.4 + self.scale / 400

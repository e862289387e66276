"""One person in a picture: a body with clothes at a place, and the numbers of its parts on the canvas."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tools.lab.synthetic.body import Body, FloatArray
from tools.lab.synthetic.outfit import Outfit


class Part(IntEnum):
    """What a labeled pixel of a person shows; the right limb's number follows the left's."""

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
    """A body with clothes at its place in the picture.

    Attributes:
        body: as it is seen.
        outfit: what it wears.
        scale: image pixels per stature.
        origin: (2,) image pixels of the pelvis.
        label: of its first part on the canvas; the other parts follow as `Part` numbers them.
    """

    body: Body
    outfit: Outfit
    scale: float
    origin: FloatArray
    label: int

    def project(self, points: FloatArray) -> FloatArray:
        """Points of the seen body (..., 3) in image pixels (..., 2)."""
        return self.origin + self.scale * np.asarray(points)[..., :2] * [1, -1]

    @property
    def outline(self) -> float:
        """Width of the dark edge around each part, in image pixels."""
        return 0.4 + self.scale / 400

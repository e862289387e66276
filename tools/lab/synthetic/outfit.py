"""Clothes, skin and hair of a person."""

import colorsys
from dataclasses import dataclass

import numpy as np

from tools.lab.synthetic.canvas import Color, shade


@dataclass(frozen=True)
class Outfit:
    """Colors and styles; left and right sleeves, trouser legs and shoes have independent colors.

    Attributes:
        skin: color of face, hands and bare limbs.
        hair: color of the hair.
        hairline: position of the hairline: -0.1 is full hair, 0.5 nearly bald.
        long_hair: whether hair reaches the shoulders.
        shirt: color of the trunk.
        trim: color of the buttons, the logo or the zip.
        front: 'buttons', 'logo' or 'zip'.
        seat: color of the trousers at the pelvis.
        sleeves: colors of the left and right sleeve.
        long_sleeves: whether they cover the forearms.
        trousers: colors of the left and right trouser leg.
        long_trousers: whether they cover the shins.
        shoes: colors of the left and right shoe.
    """

    skin: Color
    hair: Color
    hairline: float
    long_hair: bool
    shirt: Color
    trim: Color
    front: str
    seat: Color
    sleeves: tuple[Color, Color]
    long_sleeves: bool
    trousers: tuple[Color, Color]
    long_trousers: bool
    shoes: tuple[Color, Color]


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Converts hue, saturation and value, each from 0 to 1, to a BGR color."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return 255 * blue, 255 * green, 255 * red


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Samples the outfit of a random person."""

    def cloth() -> Color:
        return hsv(rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.35, 0.95))

    lightness = rng.random()
    skin = hsv(rng.uniform(0.04, 0.085), rng.uniform(0.35, 0.5) + 0.2 * (1 - lightness), 0.4 + 0.58 * lightness)
    hair = hsv(rng.uniform(0.02, 0.12), rng.uniform(0.2, 0.8), rng.uniform(0.06, 0.5))
    shirt = cloth()
    return Outfit(
        skin=skin,
        hair=hair,
        hairline=rng.uniform(-0.15, 0.12),
        long_hair=bool(rng.random() < 0.4),
        shirt=shirt,
        trim=shade(shirt, 0.4) if rng.random() < 0.5 else (235.0, 240.0, 240.0),
        front=str(rng.choice(["buttons", "logo", "zip"])),
        seat=cloth(),
        sleeves=(cloth(), cloth()),
        long_sleeves=bool(rng.random() < 0.5),
        trousers=(cloth(), cloth()),
        long_trousers=bool(rng.random() < 0.65),
        shoes=(cloth(), cloth()),
    )

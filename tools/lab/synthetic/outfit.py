"""What a person wears: colors and cuts."""

import colorsys
from dataclasses import dataclass

import numpy as np

from tools.lab.synthetic.canvas import Color, shade


@dataclass(frozen=True)
class Outfit:
    """Colors and cuts; the two sleeves, trouser legs and shoes are colored independently of each other.

    Attributes:
        skin: of face, hands and bare limbs.
        hair: color.
        hairline: how much of the head is hair: -0.1 full, 0.5 nearly bald.
        long_hair: whether hair falls on the shoulders.
        shirt: of the trunk.
        trim: of what the front of the shirt shows.
        front: 'buttons', 'logo' or 'zip'.
        seat: of the trousers at the pelvis.
        sleeves: left and right.
        long_sleeves: whether they cover the forearms.
        trousers: left and right.
        long_trousers: whether they cover the shins.
        shoes: left and right.
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
    """A color from hue, saturation and value, each 0 to 1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return 255 * blue, 255 * green, 255 * red


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Clothes, skin and hair of a random person."""

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

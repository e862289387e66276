"""What an animal's fur looks like: colours and markings."""

from dataclasses import dataclass

import numpy as np

from posedy.data.synthetic.body import FloatArray
from posedy.data.synthetic.canvas import Colour, shade
from posedy.data.synthetic.outfit import hsv


@dataclass(frozen=True)
class Coat:
    """Colours and markings.

    Attributes:
        fur: of most of the body.
        marking: of patches, socks and whatever else is marked.
        muzzle: of the muzzle.
        ears: of the ears.
        tail: of the tail's end and the mane.
        socks: whether the lower legs are marked.
        patches: markings on the trunk, each (N, 2): places along the trunk and angles around it of points that
            span it.
    """

    fur: Colour
    marking: Colour
    muzzle: Colour
    ears: Colour
    tail: Colour
    socks: bool
    patches: tuple[FloatArray, ...]


def sample_coat(rng: np.random.Generator) -> Coat:
    """The fur of a random animal: brown, grey, black, red or cream, plain or marked."""
    fur = hsv(rng.uniform(0.03, 0.12), rng.uniform(0.05, 0.75), rng.uniform(0.22, 0.95))
    is_light = sum(fur) > 380
    marking = shade(fur, rng.uniform(0.25, 0.5)) if is_light else hsv(0.1, rng.uniform(0, 0.2), rng.uniform(0.8, 1))
    dark = shade(fur, 0.55)
    pattern = rng.choice(["plain", "saddle", "bib", "patches", "spots"])
    return Coat(
        fur=fur,
        marking=marking,
        muzzle=(fur, dark, marking)[rng.integers(3)],
        ears=(fur, dark, marking)[rng.integers(3)],
        tail=(fur, dark, marking)[rng.integers(3)],
        socks=bool(rng.random() < 0.4),
        patches=_patches(rng, str(pattern)),
    )


def _patches(rng: np.random.Generator, pattern: str) -> tuple[FloatArray, ...]:
    if pattern == "plain":
        return ()
    if pattern in ("saddle", "bib"):
        # A blanket over the back, or the underside.
        middle, half = (0, rng.uniform(70, 105)) if pattern == "saddle" else (180, rng.uniform(60, 90))
        start, end = rng.uniform(-0.6, -0.3), rng.uniform(0.15, 0.6)
        angle = np.repeat([middle - half, middle, middle + half], 5)
        return (np.stack([np.tile(np.linspace(start, end, 5), 3), angle], axis=-1),)
    count, size = (rng.integers(3, 6), 0.16) if pattern == "patches" else (rng.integers(14, 26), 0.045)
    around = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    patches = []
    for _ in range(count):
        rim = size * rng.uniform(0.6, 1.2) * rng.uniform(0.75, 1.2, 9)
        center = rng.uniform(-0.5, 0.5), rng.uniform(-150, 150)
        # A length of 0.2, about the trunk's radius, spans 57 degrees.
        patches.append(np.stack([center[0] + rim * np.cos(around), center[1] + 290 * rim * np.sin(around)], axis=-1))
    return tuple(patches)

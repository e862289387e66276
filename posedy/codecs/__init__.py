"""Heatmap codecs: encode keypoints as target heatmaps, decode heatmaps to keypoints.

`MSRACodec` is the paper's codec ("paper" in configurations and files), `UnbiasedCodec` does not round ("unbiased").
`make_codec` creates one by its name.

To add a codec, write a subclass of `HeatmapCodec` in a module of its own, add its name to `Coding` and the class to the
tuple below.
"""

from posedy.codecs.base import STRIDE, Coding, HeatmapCodec, default_sigma
from posedy.codecs.msra import MSRACodec
from posedy.codecs.unbiased import UnbiasedCodec

__all__ = [
    "STRIDE",
    "Coding",
    "HeatmapCodec",
    "MSRACodec",
    "UnbiasedCodec",
    "default_sigma",
    "list_codecs",
    "make_codec",
]

_CODECS: dict[str, type[HeatmapCodec]] = {codec.coding: codec for codec in (MSRACodec, UnbiasedCodec)}


def list_codecs() -> list[str]:
    """The names of the codecs, sorted."""
    return sorted(_CODECS)


def make_codec(coding: Coding, input_size: tuple[int, int], sigma: float | None = None) -> HeatmapCodec:
    """Creates a codec by its name.

    Args:
        coding: one of `list_codecs`.
        input_size: (W, H) of the crop in pixels, divisible by 32.
        sigma: standard deviation of a target in heatmap pixels; None is the default.

    Raises:
        ValueError: if no codec has the name, or the size or the sigma is invalid.
    """
    if coding not in _CODECS:
        raise ValueError(f"coding is one of {list_codecs()}, got {coding!r}")
    return _CODECS[coding](input_size, sigma)

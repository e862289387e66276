"""Codecs: encoding of keypoints as training targets, and decoding of network outputs.

`MSRACodec` ("msra") is the paper's: rounded targets, a quarter offset. `UnbiasedCodec` ("unbiased") does not round.
`SimCCCodec` ("simcc") has no heatmaps: it classifies each coordinate.
`create_codec` creates one by its name; `posedy.codecs.base.Codec` shows how to add one.
"""

from posedy.codecs.base import Codec, Outputs, create_codec, list_codecs, register_codec
from posedy.codecs.heatmap import STRIDE, HeatmapCodec, default_sigma
from posedy.codecs.msra import MSRACodec
from posedy.codecs.simcc import SPLIT_RATIO, SimCCCodec
from posedy.codecs.unbiased import UnbiasedCodec

__all__ = [
    "SPLIT_RATIO",
    "STRIDE",
    "Codec",
    "HeatmapCodec",
    "MSRACodec",
    "Outputs",
    "SimCCCodec",
    "UnbiasedCodec",
    "create_codec",
    "default_sigma",
    "list_codecs",
    "register_codec",
]

"""The paper's codec: rounded targets and a quarter offset (Sun et al., CVPR 2019)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posedy.codecs.base import register_codec
from posedy.codecs.heatmap import STRIDE, HeatmapCodec


@register_codec("msra")
@dataclass(frozen=True)
class MSRACodec(HeatmapCodec):
    """The paper's codec, `codec="msra"`: crop = 4 * heatmap in both axes.

    Targets are Gaussians around the rounded heatmap pixel,

        mu = floor(keypoint / 4 + 0.5)

    and decoding takes the highest pixel and shifts it by a quarter of a pixel toward the higher neighbor in x and in y
    (no shift at the border and between equal neighbors):

        keypoint = 4 * (peak + 0.25 * sign(heatmap(peak + 1) - heatmap(peak - 1)))

    The heatmap of a flipped crop (x' = W - 1 - x) is 0.75 heatmap pixels off after it is flipped back
    (c' = w - 1 - c): (W - 1 - x) / 4 against w - 1 - x / 4. `merge_flipped` shifts it by one pixel, and 0.25 pixels
    remain.
    """

    flip_shift: ClassVar[int] = 1

    def _to_heatmap(self, keypoints: Tensor) -> Tensor:
        return torch.floor(keypoints / STRIDE + 0.5)

    def _to_crop(self, points: Tensor) -> Tensor:
        return points * STRIDE

    def _offset_from_peak(self, flat: Tensor, index: Tensor) -> Tensor:
        width, height = self.heatmap_size
        offset_x = _quarter_offset(flat, index, index % width, width, stride=1)
        offset_y = _quarter_offset(flat, index, index // width, height, stride=width)
        return torch.stack([offset_x, offset_y], dim=-1)


def _quarter_offset(flat: Tensor, index: Tensor, position: Tensor, size: int, stride: int) -> Tensor:
    """Computes 0.25 * sign(next - previous) along one axis of flattened heatmaps, 0 at the border."""
    interior = (position > 0) & (position < size - 1)
    after = flat.gather(-1, torch.where(interior, index + stride, index)[..., None])[..., 0]
    before = flat.gather(-1, torch.where(interior, index - stride, index)[..., None])[..., 0]
    return 0.25 * torch.sign(after - before)

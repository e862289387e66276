"""The unbiased codec: targets that are not rounded, and sub-pixel decoding."""

from dataclasses import dataclass

import torch
from torch import Tensor

from posedy.codecs.base import register_codec
from posedy.codecs.heatmap import HeatmapCodec

_MIN_HEAT = 1e-10  # the logarithm needs positive values


@register_codec("unbiased")
@dataclass(frozen=True)
class UnbiasedCodec(HeatmapCodec):
    """The unbiased codec, `codec="unbiased"`: targets are not rounded, and flipping needs no shift.

    Crop and heatmap extend from the center of their first pixel to that of their last (Huang et al., CVPR 2020):

        mu = keypoint * (w - 1) / (W - 1)

    so that the keypoint W - 1 - x of the flipped crop is at w - 1 - mu of the heatmap. Decoding correlates the heatmap
    with a target and takes the vertex of the logarithm of the result (Zhang et al., CVPR 2020).
    """

    @property
    def _radius(self) -> int:
        return max(1, super()._radius)  # centers lie between pixels: a target contains at least one of them

    @property
    def _crop_pixels_per_heatmap_pixel(self) -> tuple[float, float]:
        (width, height), (columns, rows) = self.input_size, self.heatmap_size
        return (width - 1) / (columns - 1), (height - 1) / (rows - 1)

    def _to_heatmap(self, keypoints: Tensor) -> Tensor:
        return keypoints / keypoints.new_tensor(self._crop_pixels_per_heatmap_pixel)

    def _to_crop(self, points: Tensor) -> Tensor:
        return points * points.new_tensor(self._crop_pixels_per_heatmap_pixel)

    def _filter(self, heatmaps: Tensor) -> Tensor:
        """Correlates heatmaps H with a target T around each heatmap pixel.

            match(c) = <H, T_c> / (|T_c| |T|)

        where |T_c| is the norm of the part of T_c inside the heatmap, so that the match of a target is highest at its
        center, also near the border. The match sums over the extent of a target, so it is more robust than the single
        highest pixel if an uncertain network predicts several low maxima. For a heatmap that is a probability
        distribution, as from a softmax, it is the expected similarity of c to the keypoint.
        """
        columns, rows = (self._normalized_targets(size, heatmaps.device) for size in self.heatmap_size)
        return rows.T @ heatmaps @ columns

    def _normalized_targets(self, size: int, device: torch.device) -> Tensor:
        """Returns a matrix (size, size) whose columns are the normalized targets at the pixels of an axis."""
        targets = self._profile(size, torch.arange(float(size), device=device)).T
        whole = self._profile(2 * self._radius + 1, torch.tensor(float(self._radius), device=device))
        return targets / (targets.norm(dim=0) * whole.norm())

    def _offset_from_peak(self, flat: Tensor, index: Tensor) -> Tensor:
        """Computes Newton's step to the vertex of the log-heatmap, which for a Gaussian is a paraboloid.

            offset = -H^-1 g,    with gradient g and Hessian H by central differences around the peak

        It is 0 at the border and where the log-heatmap is not concave, and at most one pixel.
        """
        width, height = self.heatmap_size
        column, row = index % width, index // width
        interior = (column > 0) & (column < width - 1) & (row > 0) & (row < height - 1)
        log = flat.clamp_min(_MIN_HEAT).log()

        def at(dx: int, dy: int) -> Tensor:
            neighbor = torch.where(interior, index + dx + dy * width, index)
            return log.gather(-1, neighbor[..., None])[..., 0]

        center = at(0, 0)
        g_x, g_y = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
        h_xx, h_yy = at(1, 0) - 2 * center + at(-1, 0), at(0, 1) - 2 * center + at(0, -1)
        h_xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
        determinant = h_xx * h_yy - h_xy**2
        concave = interior & (h_xx < 0) & (determinant > 0)
        divisor = torch.where(concave, determinant, 1.0)
        offset = torch.stack([(h_xy * g_y - h_yy * g_x) / divisor, (h_xy * g_x - h_xx * g_y) / divisor], dim=-1)
        return torch.where(concave[..., None], offset.clamp(-1, 1), 0.0)

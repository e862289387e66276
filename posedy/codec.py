"""Heatmaps: encode keypoints to targets, decode heatmaps to keypoints.

One object owns sizes and sigma, so that training and inference cannot disagree. The coding is that of Sun et al.
(CVPR 2019), which the paper follows: crop = 4 * cell in both axes, targets are Gaussians around the rounded cell, and
decoding takes the highest cell and a quarter of a cell toward its higher neighbours.

In this coding a mirrored crop (x' = W - 1 - x) has its heatmap 0.75 cell away from where mirroring the heatmap
(c' = w - 1 - c) puts it: (W - 1 - x) / 4 against w - 1 - x / 4. `average_with_mirror` moves it by a whole cell, which
leaves 0.25 cell. The shift belongs to this coding; a coding whose crop and heatmap share their borders needs none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STRIDE = 4
"""Crop pixels per heatmap cell."""

FLIP_SHIFT = 1
"""Cells by which the mirrored heatmap is moved to the right."""


@dataclass(frozen=True)
class HeatmapCodec:
    """The paper's coding of keypoints as heatmaps.

    Attributes:
        input_size: (W, H) of the crop in pixels, divisible by 32.
        sigma: standard deviation of a target in cells; None is 2 for a crop of 256 pixels in height, and in proportion.

    Raises:
        ValueError: if the size is not divisible by 32 or sigma is not positive.
    """

    input_size: tuple[int, int] = (192, 256)
    sigma: float | None = None

    def __post_init__(self) -> None:
        if (
            not isinstance(self.input_size, Sequence)
            or len(self.input_size) != 2
            or any(side <= 0 or side % 32 for side in self.input_size)
        ):
            raise ValueError(f"input_size is (width, height), each divisible by 32, got {self.input_size}")
        if self.sigma is not None and not self.sigma > 0:
            raise ValueError(f"sigma is a positive number of cells, got {self.sigma}")

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(w, h) of a heatmap in cells."""
        return self.input_size[0] // STRIDE, self.input_size[1] // STRIDE

    @property
    def target_sigma(self) -> float:
        """Standard deviation of a target in cells."""
        return self.sigma if self.sigma is not None else self.input_size[1] / 128

    def encode(self, keypoints: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
        """Draws the targets of keypoints.

            target(c, r) = exp(-((c - mu_x)^2 + (r - mu_y)^2) / (2 sigma^2)),    mu = floor(keypoint / 4 + 0.5)

        and 0 beyond 3 sigma of mu.

        Args:
            keypoints: (N, K, 2) in crop pixels.
            labelled: (N, K), true or nonzero where a keypoint is labelled.

        Returns:
            Targets (N, K, h, w) float32, and weights (N, K) float32: 1 for labelled keypoints with at least one cell of
            their 3-sigma patch inside the heatmap, else 0 (and an empty target).
        """
        width, height = self.heatmap_size
        sigma = self.target_sigma
        radius = int(3 * sigma)
        labelled = labelled.bool()
        cell = torch.floor(torch.where(labelled[..., None], keypoints.float(), 0.0) / STRIDE + 0.5)
        last = cell.new_tensor([width - 1, height - 1])
        inside = ((cell + radius >= 0) & (cell - radius <= last)).all(dim=-1)
        weights = (labelled & inside).float()

        def profile(size: int, center: Tensor) -> Tensor:
            distance = torch.arange(size, device=keypoints.device, dtype=torch.float32) - center[..., None]
            return torch.exp(-(distance**2) / (2 * sigma**2)) * (distance.abs() <= radius)

        columns, rows = profile(width, cell[..., 0]), profile(height, cell[..., 1])
        return (rows * weights[..., None])[..., :, None] * columns[..., None, :], weights

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Finds the keypoints of heatmaps.

        The highest cell, and from it a quarter of a cell toward the higher neighbour in x and in y (none at the border
        and between equal neighbours).

        Args:
            heatmaps: (N, K, h, w).

        Returns:
            Keypoints (N, K, 2) float32 in crop pixels and scores (N, K) float32, the heights of the peaks.

        Raises:
            ValueError: if the heatmaps are of another size or hold NaN.
        """
        width, height = self.heatmap_size
        if heatmaps.ndim != 4 or tuple(heatmaps.shape[-2:]) != (height, width):
            raise ValueError(
                f"heatmaps of (N, K, {height}, {width}) belong to a crop of {self.input_size[0]}x{self.input_size[1]} "
                f"pixels, got {tuple(heatmaps.shape)}"
            )
        flat = heatmaps.float().flatten(2)
        if flat.numel() == 0:
            return flat.new_zeros((*flat.shape[:2], 2)), flat.new_zeros(flat.shape[:2])
        scores, index = flat.max(dim=-1)
        if scores.isnan().any():
            raise ValueError("heatmaps hold NaN: the network's weights or its input are broken")
        column, row = index % width, index // width
        step_x = self._quarter_step(flat, index, column, width, stride=1)
        step_y = self._quarter_step(flat, index, row, height, stride=width)
        cell = torch.stack([column + step_x, row + step_y], dim=-1)
        return cell * STRIDE, scores

    @staticmethod
    def _quarter_step(flat: Tensor, index: Tensor, position: Tensor, size: int, stride: int) -> Tensor:
        """0.25 * sign(next - previous) along one axis of flattened heatmaps, 0 at the border."""
        interior = (position > 0) & (position < size - 1)
        after = flat.gather(-1, torch.where(interior, index + stride, index)[..., None])[..., 0]
        before = flat.gather(-1, torch.where(interior, index - stride, index)[..., None])[..., 0]
        return 0.25 * torch.sign(after - before)

    def average_with_mirror(self, heatmaps: Tensor, mirrored: Tensor, flip_permutation: Sequence[int]) -> Tensor:
        """The mean of a crop's heatmaps and its mirrored crop's, mapped back.

        Args:
            heatmaps: (N, K, h, w) of the crop.
            mirrored: (N, K, h, w) of the crop mirrored in x.
            flip_permutation: K indices, `Skeleton.flip_permutation`.
        """
        back = mirrored.flip(-1)[:, list(flip_permutation)]
        # The column that has nothing to its left keeps its own value.
        back = torch.cat([back[..., :FLIP_SHIFT], back[..., :-FLIP_SHIFT]], dim=-1)
        return (heatmaps + back) / 2

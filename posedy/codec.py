"""Heatmaps: encode keypoints to targets, decode heatmaps to keypoints.

One object owns sizes, sigma and the shift of mirrored heatmaps, so that training and inference cannot disagree. There
are two codings.

`HeatmapCodec`, the paper's, is that of Sun et al. (CVPR 2019): crop = 4 * cell in both axes, targets are Gaussians
around the rounded cell, and decoding takes the highest cell and a quarter of a cell toward its higher neighbours. A
mirrored crop (x' = W - 1 - x) has its heatmap 0.75 cell away from where mirroring the heatmap (c' = w - 1 - c) puts it:
(W - 1 - x) / 4 against w - 1 - x / 4. `average_with_mirror` moves it by a whole cell, which leaves 0.25 cell.

`UnbiasedCodec` measures crop and heatmap from their first to their last centre (Huang et al., CVPR 2020), so that
mirroring needs no shift, does not round targets, and decodes by the vertex of the log-heatmap, after the heatmap is
smoothed by the shape of a target (Zhang et al., CVPR 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

STRIDE = 4
"""Crop pixels per heatmap cell."""

Coding = Literal["paper", "unbiased"]

_SMALLEST_HEAT = 1e-10  # what is not positive has no logarithm


def default_sigma(heatmap_height: int) -> float:
    """The standard deviation of a target in heatmap pixels if none is given: 2 at height 64, and in proportion."""
    return heatmap_height / 32


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

    coding: ClassVar[Coding] = "paper"
    flip_shift: ClassVar[int] = 1
    """Cells by which the mirrored heatmap is moved to the right."""

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
        return self.sigma if self.sigma is not None else default_sigma(self.heatmap_size[1])

    def encode(self, keypoints: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
        """Draws the targets of keypoints.

            target(c, r) = exp(-((c - mu_x)^2 + (r - mu_y)^2) / (2 sigma^2)),    mu = floor(keypoint / 4 + 0.5)

        and 0 beyond 3 sigma of mu. In the unbiased coding mu is not rounded.

        Args:
            keypoints: (N, K, 2) in crop pixels.
            labelled: (N, K), true or nonzero where a keypoint is labelled.

        Returns:
            Targets (N, K, h, w) float32, and weights (N, K) float32: 1 for labelled keypoints with at least one cell of
            their 3-sigma patch inside the heatmap, else 0 (and an empty target).
        """
        width, height = self.heatmap_size
        radius = self._radius
        labelled = labelled.bool()
        cell = self._to_cells(torch.where(labelled[..., None], keypoints.float(), 0.0))
        last = cell.new_tensor([width - 1, height - 1])
        inside = ((cell + radius >= 0) & (cell - radius <= last)).all(dim=-1)
        weights = (labelled & inside).float()

        columns, rows = self._profile(width, cell[..., 0]), self._profile(height, cell[..., 1])
        return (rows * weights[..., None])[..., :, None] * columns[..., None, :], weights

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Finds the keypoints of heatmaps.

        The highest cell, and from it a quarter of a cell toward the higher neighbour in x and in y (none at the border
        and between equal neighbours); in the unbiased coding, the heatmap's best match with a target, and from its cell
        the step to the vertex.

        Args:
            heatmaps: (N, K, h, w).

        Returns:
            Keypoints (N, K, 2) float32 in crop pixels and scores (N, K) float32, the heights of the peaks: about
            1 for a target.

        Raises:
            ValueError: if the heatmaps are of another size or hold NaN.
        """
        width, height = self.heatmap_size
        if heatmaps.ndim != 4 or tuple(heatmaps.shape[-2:]) != (height, width):
            raise ValueError(
                f"heatmaps of (N, K, {height}, {width}) belong to a crop of {self.input_size[0]}x{self.input_size[1]} "
                f"pixels, got {tuple(heatmaps.shape)}"
            )
        if heatmaps.numel() == 0:
            flat = heatmaps.float().flatten(2)
            return flat.new_zeros((*flat.shape[:2], 2)), flat.new_zeros(flat.shape[:2])
        keypoints, scores = self.decode_unchecked(heatmaps)
        if scores.isnan().any():
            raise ValueError("heatmaps hold NaN: the network's weights or its input are broken")
        return keypoints, scores

    def decode_unchecked(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """What `decode` finds, without its checks: they look at values, which a graph for export cannot."""
        width = self.heatmap_size[0]
        flat = self._before_peaks(heatmaps.float()).flatten(2)
        scores, index = flat.max(dim=-1)
        peak = torch.stack([index % width, index // width], dim=-1)
        return self._to_crop(peak + self._step_from_peak(flat, index)), scores

    @property
    def _radius(self) -> int:
        """Cells from its centre at which a target ends."""
        return int(3 * self.target_sigma)

    def _profile(self, size: int, center: Tensor) -> Tensor:
        """A target along one axis of `size` cells: (..., size) of its centres (...) in cells."""
        distance = torch.arange(size, device=center.device, dtype=torch.float32) - center[..., None]
        return torch.exp(-(distance**2) / (2 * self.target_sigma**2)) * (distance.abs() <= self._radius)

    def _to_cells(self, keypoints: Tensor) -> Tensor:
        """Where targets are centred: crop pixels -> cells."""
        return torch.floor(keypoints / STRIDE + 0.5)

    def _to_crop(self, cells: Tensor) -> Tensor:
        """Cells -> crop pixels."""
        return cells * STRIDE

    def _before_peaks(self, heatmaps: Tensor) -> Tensor:
        """The maps (N, K, h, w) whose peaks are keypoints: the heatmaps themselves."""
        return heatmaps

    def _step_from_peak(self, flat: Tensor, index: Tensor) -> Tensor:
        """From the highest cell to the keypoint, in cells: (N, K, 2) of heatmaps (N, K, h * w) with their peaks."""
        width, height = self.heatmap_size
        step_x = self._quarter_step(flat, index, index % width, width, stride=1)
        step_y = self._quarter_step(flat, index, index // width, height, stride=width)
        return torch.stack([step_x, step_y], dim=-1)

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
        if self.flip_shift:
            # The column that has nothing to its left keeps its own value.
            back = torch.cat([back[..., : self.flip_shift], back[..., : -self.flip_shift]], dim=-1)
        return (heatmaps + back) / 2


@dataclass(frozen=True)
class UnbiasedCodec(HeatmapCodec):
    """The coding without rounding: cell = x * (w - 1) / (W - 1), so that (W - 1 - x) lies at w - 1 - cell."""

    coding: ClassVar[Coding] = "unbiased"
    flip_shift: ClassVar[int] = 0

    @property
    def _radius(self) -> int:
        return max(1, super()._radius)  # the centre lies between cells: one of them at least is in the target

    @property
    def _pixels_per_cell(self) -> tuple[float, float]:
        (width, height), (columns, rows) = self.input_size, self.heatmap_size
        return (width - 1) / (columns - 1), (height - 1) / (rows - 1)

    def _to_cells(self, keypoints: Tensor) -> Tensor:
        return keypoints / keypoints.new_tensor(self._pixels_per_cell)

    def _to_crop(self, cells: Tensor) -> Tensor:
        return cells * cells.new_tensor(self._pixels_per_cell)

    def _before_peaks(self, heatmaps: Tensor) -> Tensor:
        """How well the heatmaps H match a target T around each cell.

            match(c) = <H, T_c> / (|T_c| |T|)

        with |T_c| of what is inside, so that a target matches best where it is, near the border too. A network that is
        unsure heats several places a little: the match sums what lies within a target, where the single highest cell is
        a matter of chance. Of a heatmap that is a probability, as of a softmax, it is how near the keypoint is to c, as
        far as that is known.
        """
        columns, rows = (self._matches(size, heatmaps.device) for size in self.heatmap_size)
        return rows.T @ heatmaps @ columns

    def _matches(self, size: int, device: torch.device) -> Tensor:
        """(size, size): the targets of all cells of an axis, in columns, with their norms divided out."""
        targets = self._profile(size, torch.arange(float(size), device=device)).T
        whole = self._profile(2 * self._radius + 1, torch.tensor(float(self._radius), device=device))
        return targets / (targets.norm(dim=0) * whole.norm())

    def _step_from_peak(self, flat: Tensor, index: Tensor) -> Tensor:
        """Newton's step to the vertex of the log-heatmap, which for a Gaussian is a paraboloid.

            step = -H^-1 g,    with gradient g and Hessian H by central differences around the peak

        There is none at the border or where the log-heatmap is not concave, and at most a cell.
        """
        width, height = self.heatmap_size
        column, row = index % width, index // width
        interior = (column > 0) & (column < width - 1) & (row > 0) & (row < height - 1)
        log = flat.clamp_min(_SMALLEST_HEAT).log()

        def at(dx: int, dy: int) -> Tensor:
            neighbour = torch.where(interior, index + dx + dy * width, index)
            return log.gather(-1, neighbour[..., None])[..., 0]

        center = at(0, 0)
        g_x, g_y = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
        h_xx, h_yy = at(1, 0) - 2 * center + at(-1, 0), at(0, 1) - 2 * center + at(0, -1)
        h_xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
        determinant = h_xx * h_yy - h_xy**2
        concave = interior & (h_xx < 0) & (determinant > 0)
        divisor = torch.where(concave, determinant, 1.0)
        step = torch.stack([(h_xy * g_y - h_yy * g_x) / divisor, (h_xy * g_x - h_xx * g_y) / divisor], dim=-1)
        return torch.where(concave[..., None], step.clamp(-1, 1), 0.0)


def make_codec(coding: Coding, input_size: tuple[int, int], sigma: float | None = None) -> HeatmapCodec:
    """The codec of a coding's name.

    Raises:
        ValueError: if there is no such coding, or size or sigma do not fit.
    """
    if coding not in _CODECS:
        raise ValueError(f"coding is one of {list(_CODECS)}, got {coding!r}")
    return _CODECS[coding](input_size, sigma)


_CODECS = {codec.coding: codec for codec in (HeatmapCodec, UnbiasedCodec)}

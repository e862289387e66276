"""The base class of heatmap codecs: sizes, sigma, encoding, decoding, and merging the heatmaps of flipped crops."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posedy.codecs.base import Codec, Outputs

STRIDE = 4
"""Crop pixels per heatmap pixel."""


def default_sigma(heatmap_height: int) -> float:
    """Returns the default standard deviation of a target in heatmap pixels: 2 at height 64, and in proportion."""
    return heatmap_height / 32


@dataclass(frozen=True)
class HeatmapCodec(Codec):
    """Encodes keypoints as target heatmaps and decodes heatmaps to keypoints.

    One object has the sizes, the sigma and the shift of flipped heatmaps, so that training and inference agree. A
    subclass defines how keypoints in crop pixels become heatmap pixels (`_to_heatmap`), the inverse (`_to_crop`), and
    the offset from the highest heatmap pixel to the keypoint (`_offset_from_peak`).

    Attributes:
        input_size: (W, H) of the crop in pixels, divisible by 32.
        sigma: standard deviation of a target in heatmap pixels; None is 2 for a crop of 256 pixels in height, and in
            proportion.
    """

    @classmethod
    def check_outputs(cls) -> None:
        """Checks `output_names`; names other than ("heatmaps",) require methods that support them.

        Raises:
            TypeError: if `decode` does not find heatmaps, or `merge_flipped` does not return all outputs.
        """
        super().check_outputs()
        names = tuple(cls.output_names)
        inherited = []
        if "heatmaps" not in names and cls.decode is HeatmapCodec.decode:
            inherited.append("decode")
        if names != ("heatmaps",) and cls.merge_flipped is HeatmapCodec.merge_flipped:
            inherited.append("merge_flipped")
        if inherited:
            raise TypeError(
                f"expected output_names of {cls.__name__} to be ('heatmaps',), as in HeatmapCodec, got {names}: leave "
                f"output_names out, or override {' and '.join(inherited)}"
            )

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """The size (w, h) of a heatmap in pixels."""
        return self.input_size[0] // STRIDE, self.input_size[1] // STRIDE

    @property
    def target_sigma(self) -> float:
        """Standard deviation of a target in heatmap pixels."""
        return self.sigma if self.sigma is not None else default_sigma(self.heatmap_size[1])

    def encode(self, keypoints: Tensor, labeled: Tensor) -> tuple[Tensor, Tensor]:
        """Creates the target heatmaps of keypoints.

            target(c, r) = exp(-((c - mu_x)^2 + (r - mu_y)^2) / (2 sigma^2))

        and 0 beyond 3 sigma of mu, the keypoint in heatmap pixels.

        Args:
            keypoints: (N, K, 2) in crop pixels.
            labeled: (N, K), true or nonzero where a keypoint is labeled.

        Returns:
            Targets (N, K, h, w) float32, and weights (N, K) float32: 1 for labeled keypoints with at least one pixel of
            their 3-sigma patch inside the heatmap, else 0 (and an empty target).
        """
        width, height = self.heatmap_size
        radius = self._radius
        labeled = labeled.bool()
        center = self._to_heatmap(torch.where(labeled[..., None], keypoints.float(), 0.0))
        last = center.new_tensor([width - 1, height - 1])
        inside = ((center + radius >= 0) & (center - radius <= last)).all(dim=-1)
        weights = (labeled & inside).float()

        columns, rows = self._profile(width, center[..., 0]), self._profile(height, center[..., 1])
        return (rows * weights[..., None])[..., :, None] * columns[..., None, :], weights

    def decode(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Decodes heatmaps: a keypoint is at the highest pixel plus the offset that the codec computes.

        Args:
            outputs: `heatmaps` (N, K, h, w).

        Returns:
            Keypoints (N, K, 2) float32 in crop pixels and scores (N, K) float32, the heights of the peaks of the
            heatmaps, for "unbiased" after they were correlated with a target: about 1 for a target, NaN where the
            heatmap contains NaN.

        Raises:
            ValueError: if the heatmaps have the wrong size.
        """
        heatmaps = outputs["heatmaps"]
        width, height = self.heatmap_size
        if heatmaps.ndim != 4 or tuple(heatmaps.shape[-2:]) != (height, width):
            raise ValueError(
                f"heatmaps of (N, K, {height}, {width}) belong to crops of {self.input_size[1]}x{self.input_size[0]} "
                f"pixels (height x width), got {tuple(heatmaps.shape)}"
            )
        flat = self._filter(heatmaps.float()).flatten(2)
        scores, index = flat.max(dim=-1)
        peak = torch.stack([index % width, index // width], dim=-1)
        return self._to_crop(peak + self._offset_from_peak(flat, index)), scores

    def merge_flipped(self, outputs: Outputs, flipped: Outputs, flip_permutation: Sequence[int]) -> dict[str, Tensor]:
        """Averages the heatmaps of crops with those of the flipped crops, which are flipped back and shifted.

        Args:
            outputs: `heatmaps` (N, K, h, w) of the crops.
            flipped: `heatmaps` (N, K, h, w) of the crops flipped in x.
            flip_permutation: K indices, `Skeleton.flip_permutation`.
        """
        back = flipped["heatmaps"].flip(-1)[:, list(flip_permutation)]
        if self.flip_shift:
            # The first columns have no left neighbor and keep their values.
            back = torch.cat([back[..., : self.flip_shift], back[..., : -self.flip_shift]], dim=-1)
        return {"heatmaps": (outputs["heatmaps"] + back) / 2}

    def soft_targets(self, outputs: Outputs) -> Tensor | None:
        """Returns a teacher's heatmaps (N, K, h, w) as targets; None for codecs that have other outputs, too."""
        return outputs["heatmaps"] if tuple(self.output_names) == ("heatmaps",) else None

    def heatmap_to_crop_matrix(self) -> Tensor:
        """Returns the affine map (2, 3) in float64 from heatmap pixels to the crop pixels that they decode to."""
        corners = self._to_crop(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
        return torch.stack([corners[1] - corners[0], corners[2] - corners[0], corners[0]], dim=1)

    @property
    def _radius(self) -> int:
        """The radius of a target in heatmap pixels; the target is 0 beyond it."""
        return int(3 * self.target_sigma)

    def _profile(self, size: int, center: Tensor) -> Tensor:
        """Computes targets along one axis of `size` heatmap pixels: (..., size) for centers (...)."""
        distance = torch.arange(size, device=center.device, dtype=torch.float32) - center[..., None]
        return torch.exp(-(distance**2) / (2 * self.target_sigma**2)) * (distance.abs() <= self._radius)

    @abstractmethod
    def _to_heatmap(self, keypoints: Tensor) -> Tensor:
        """Converts keypoints in crop pixels (..., 2) to target centers in heatmap pixels (..., 2)."""

    @abstractmethod
    def _to_crop(self, points: Tensor) -> Tensor:
        """Converts heatmap pixels (..., 2) to crop pixels (..., 2)."""

    @abstractmethod
    def _offset_from_peak(self, flat: Tensor, index: Tensor) -> Tensor:
        """Returns the offset from the highest pixel to the keypoint in heatmap pixels.

        Args:
            flat: (N, K, h * w), the filtered heatmaps.
            index: (N, K) of the highest pixel.

        Returns:
            (N, K, 2).
        """

    def _filter(self, heatmaps: Tensor) -> Tensor:
        """Filters heatmaps (N, K, h, w) before their highest pixels are located; by default they are unchanged."""
        return heatmaps

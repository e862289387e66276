"""Consistency loss between an easy and a hard crop of unlabeled persons (PoseCons of Xie et al., ICCV 2021)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.codecs import HeatmapCodec
from posedy.config import Config, TrainConfig
from posedy.data.loaders import Batch
from posedy.models.pose_net import IMAGENET_MEAN, PoseNet, normalize_crops
from posedy.skeleton import Skeleton
from posedy.training.distributed import DistributedContext
from posedy.training.losses import loss_normalizer

_COLLAPSE_RATIO = 0.3
LABELED, STUDENT, TEACHER = "peak_labeled", "peak_student", "peak_teacher"


class Consistency:
    """Targets of unlabeled persons: the heatmaps of an easy crop, mapped to a hard crop of the same person.

        loss = loss of labeled persons + w L(student(cutout(hard)), T teacher(easy)),    w = weight min(1, e / ramp_up)

    in epoch e = 1, 2, ..., where L is `train.loss` and T maps heatmaps from the easy to the hard crop (`map_heatmaps`).
    The teacher is the moving average of the weights, or without one the network itself in evaluation mode; it has no
    gradient. Nearly all heatmap pixels are background, so flat heatmaps would minimize a loss between two equally hard
    crops (collapse); predictions of easy crops are more accurate and their peaks higher, which pulls the student's up.
    A keypoint counts if its score in the easy crop is at least `min_score` and its target would count with a label:
    part of it lies inside the hard crop.

    Args:
        teacher: the moving average of the network, or the network.
        codec: decodes the teacher's heatmaps.
        config: `consistency`, and the loss.
        flip_permutation: K indices, `Skeleton.flip_permutation`.
        context: the processes that share each batch.
    """

    def __init__(
        self,
        teacher: PoseNet,
        codec: HeatmapCodec,
        config: TrainConfig,
        flip_permutation: Sequence[int],
        context: DistributedContext,
    ) -> None:
        self.teacher = teacher
        self.codec = codec
        self.config = config.consistency
        self.loss = config.loss
        self.num_samples = config.consistency.batch_size or config.batch_size
        self.flip_permutation = list(flip_permutation)
        self.context = context
        self.weight = self.config.weight
        self._peaks: dict[str, Tensor] = {}

    def start_epoch(self, epoch: int) -> None:
        """Sets the weight of the loss in an epoch, counted from 0, and clears the recorded peaks."""
        ramp_up = self.config.ramp_up_epochs
        self.weight = self.config.weight * (min(1.0, (epoch + 1) / ramp_up) if ramp_up else 1.0)
        self._peaks = {}

    @torch.no_grad()
    def prepare_batch(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the hard crops with cutout, their targets, the keypoint weights and the normalizer / w."""
        device = self.context.device
        easy, hard, to_hard, to_easy, is_swapped, is_covered = (
            batch[key].to(device, non_blocking=True)
            for key in ("easy_crop", "hard_crop", "easy_to_hard", "hard_to_easy", "is_swapped", "is_covered")
        )
        self.context.broadcast_buffers(self.teacher)
        with evaluation_mode(self.teacher), self.context.accelerator.autocast():
            heatmaps = self.teacher(normalize_crops(easy)).float()
        heatmaps = torch.where(is_swapped[:, None, None, None], heatmaps[:, self.flip_permutation], heatmaps)
        self._record(TEACHER, heatmaps)
        keypoints, scores = self.codec.decode({"heatmaps": heatmaps})
        keypoints = keypoints @ to_hard[:, :, :2].mT + to_hard[:, None, :, 2]
        hard = cut_out(hard, keypoints, is_covered, self.config.cutout_size * hard.shape[2])
        targets = map_heatmaps(heatmaps, to_easy, self.codec)
        _, weights = self.codec.encode(keypoints, scores >= self.config.min_score)
        normalizer = loss_normalizer(self.codec, weights, targets, self.num_samples, self.loss, reduce=self.context.sum)
        return hard, targets, weights, normalizer.clamp_min(1) / self.weight

    def record_peaks(self, heatmaps: Tensor, weights: Tensor | None) -> None:
        """Records the peaks of the student's heatmaps (N, K, h, w).

        Args:
            heatmaps: of labeled crops, or of hard crops.
            weights: (N, K) of labeled crops; None for hard crops.
        """
        self._record(STUDENT if weights is None else LABELED, heatmaps, weights)

    @torch.no_grad()
    def _record(self, name: str, heatmaps: Tensor, weights: Tensor | None = None) -> None:
        peaks = heatmaps.float().amax(dim=(-2, -1))
        weights = torch.ones_like(peaks) if weights is None else weights
        added = torch.stack([(peaks * weights).sum(), weights.sum()])
        self._peaks[name] = self._peaks[name] + added if name in self._peaks else added

    def end_epoch(self) -> dict[str, float]:
        """Logs and returns the mean peaks of the epoch, or since the run was resumed in it, and warns of a collapse.

        `peak_labeled` is the mean height of the network's heatmaps on labeled keypoints, `peak_student` on all
        keypoints of the hard crops, and `peak_teacher` the teacher's on all keypoints of the easy crops.
        """
        sums = {name: self.context.sum(self._peaks[name]).tolist() for name in (LABELED, STUDENT, TEACHER)}
        peaks = {name: total / max(count, 1.0) for name, (total, count) in sums.items()}
        self.context.log("  " + ", ".join(f"{name} {peak:.3f}" for name, peak in peaks.items()))
        warning = describe_collapse(peaks)
        if warning is not None:
            self.context.log(f"  {warning}")
        return peaks


def make_consistency(
    config: Config, teacher: PoseNet, skeleton: Skeleton, context: DistributedContext
) -> Consistency | None:
    """Creates the consistency loss of a configuration; None without `data.unlabeled`."""
    codec = teacher.codec
    if not config.data.unlabeled:
        return None
    assert isinstance(codec, HeatmapCodec)  # other configurations are invalid
    return Consistency(teacher, codec, config.train, skeleton.flip_permutation, context)


def describe_collapse(peaks: dict[str, float]) -> str | None:
    """Returns a warning if the heatmaps of unlabeled persons are far flatter than those of labeled ones, else None."""
    lowest = min((STUDENT, TEACHER), key=peaks.__getitem__)
    if not peaks[lowest] < _COLLAPSE_RATIO * peaks[LABELED]:
        return None
    return (
        f"warning: the heatmaps of unlabeled persons are nearly flat ({lowest} {peaks[lowest]:.3f}, {LABELED} "
        f"{peaks[LABELED]:.3f}), which can be a collapse: lower train.consistency.weight, increase "
        "train.consistency.min_score or ramp_up_epochs, or start from trained weights (model.weights)"
    )


def map_heatmaps(heatmaps: Tensor, hard_to_easy: Tensor, codec: HeatmapCodec) -> Tensor:
    """Maps heatmaps from the easy to the hard crop with bilinear interpolation.

        mapped(p) = heatmap(C^-1 A C p)

    at heatmap pixel p of the hard crop, where C maps heatmap to crop pixels and A the hard to the easy crop; the
    heatmap is 0 outside the easy crop. A crop that is enlarged by s has Gaussians of s sigma.

    Args:
        heatmaps: (N, K, h, w) of the easy crops.
        hard_to_easy: (N, 2, 3) A, between pixel centers of the crops.
        codec: gives C.
    """
    height, width = heatmaps.shape[-2:]
    last_row = hard_to_easy.new_tensor([[0.0, 0.0, 1.0]])
    to_crop = torch.cat([codec.heatmap_to_crop_matrix(), torch.tensor([[0.0, 0.0, 1.0]])]).double()
    from_crop = torch.linalg.inv(to_crop)[:2].to(hard_to_easy)
    crop_to_crop = torch.cat([hard_to_easy, last_row.expand(len(hard_to_easy), 1, 3)], dim=1)
    matrix = from_crop @ crop_to_crop @ to_crop.to(hard_to_easy)
    x = torch.arange(width, dtype=matrix.dtype, device=matrix.device)
    y = torch.arange(height, dtype=matrix.dtype, device=matrix.device)
    pixels = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).reshape(1, -1, 2)
    source = pixels @ matrix[:, :, :2].mT + matrix[:, None, :, 2]
    grid = 2 * source / source.new_tensor([width - 1, height - 1]) - 1
    return F.grid_sample(heatmaps, grid.reshape(-1, height, width, 2), align_corners=True)


def cut_out(crops: Tensor, keypoints: Tensor, is_covered: Tensor, side: float) -> Tensor:
    """Covers keypoints with squares of ImageNet's mean color: cutout.

    Args:
        crops: (N, H, W, 3) uint8 RGB.
        keypoints: (N, K, 2) in crop pixels, the centers of the squares.
        is_covered: (N, K), true for the keypoints to cover.
        side: side of a square in pixels.

    Returns:
        New crops.
    """
    height, width = crops.shape[1:3]
    columns, rows = (
        ((torch.arange(size, device=crops.device) - keypoints[..., axis, None]).abs() <= side / 2).float()
        for axis, size in ((0, width), (1, height))
    )
    is_gray = torch.einsum("nkh,nkw->nhw", rows * is_covered[..., None], columns) > 0
    gray = torch.tensor([round(255 * mean) for mean in IMAGENET_MEAN], dtype=crops.dtype, device=crops.device)
    return torch.where(is_gray[..., None], gray, crops)


@contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Context manager that sets a network to evaluation mode, then each of its modules back to its own mode."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True

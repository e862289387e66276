"""Training losses of NanoDet: generalized focal loss on locations assigned by ATSS.

ATSS (adaptive training sample selection; Zhang et al., CVPR 2020) with square anchors of 8 strides around each
location, as in the original training (nanodet-g.yml): the candidates of a labeled box are the 9 locations of each level
nearest to its center; those inside the box whose anchors overlap it by an IoU of at least mean + standard deviation
over its candidates are positive. A location of several boxes belongs to the one of the highest IoU.

Generalized focal loss (Li et al., NeurIPS 2020) of a score s = sigmoid(logit) and bins p = softmax(bins), with
NanoDet's weights; P is the number of positive locations, y the IoU of a positive location's predicted box with its
labeled box and 0 elsewhere, d the distance to a side in strides, i = floor(d):

    loss = sum |s - y|^2 BCE(s, y) / P + sum_positive s (2 (1 - GIoU) + 0.25 DFL) / sum_positive s
    DFL = mean over sides of -((i + 1 - d) log p_i + (d - i) log p_(i+1))

The factors s of the second sum have no gradient. Other locations whose centers are in a box to be ignored do not count.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss

from posedy.models.nanodet import NUM_BINS, STRIDES, Locations, boxes_from_bins

BACKGROUND = -1
"""Index of locations without a labeled box."""

_GIOU_WEIGHT = 2.0
_DISTRIBUTION_WEIGHT = 0.25
_CANDIDATES = 9  # of each level
_ANCHOR_STRIDES = 8
_MIN_DISTANCE = 0.01  # pixels from a positive location to each side of its box
_MAX_DISTANCE = NUM_BINS - 1 - 0.1  # strides; keeps i + 1 within the bins


class BoxTargets(NamedTuple):
    """The boxes of an image in pixels of the network's input.

    Attributes:
        labeled: (G, 4) xyxy boxes of labeled persons.
        ignored: (I, 4) boxes of crowds and of persons that may be unlabeled.
    """

    labeled: Tensor
    ignored: Tensor


class DetectionLosses(NamedTuple):
    """The terms of the loss, without their weights."""

    quality: Tensor
    giou: Tensor
    distribution: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum."""
        return self.quality + _GIOU_WEIGHT * self.giou + _DISTRIBUTION_WEIGHT * self.distribution


def assign_boxes(locations: Locations, boxes: Tensor) -> Tensor:
    """Assigns locations to labeled boxes by ATSS.

    Args:
        locations: A locations.
        boxes: (G, 4) xyxy.

    Returns:
        (A,) index of the box of each location, or `BACKGROUND`.
    """
    centers, strides = locations
    if not len(boxes):
        return torch.full((len(centers),), BACKGROUND)
    half = _ANCHOR_STRIDES / 2 * strides[:, None]
    ious = box_iou(torch.cat([centers - half, centers + half], dim=1), boxes)
    distances = torch.cdist(centers, (boxes[:, :2] + boxes[:, 2:]) / 2)
    candidates = []
    for stride in STRIDES:
        level = torch.nonzero(strides == stride)[:, 0]
        nearest = distances[level].topk(min(_CANDIDATES, len(level)), dim=0, largest=False).indices
        candidates.append(level[nearest])
    rows = torch.cat(candidates)
    columns = torch.arange(len(boxes)).expand_as(rows)
    candidate_ious = ious[rows, columns]
    threshold = candidate_ious.mean(dim=0) + candidate_ious.std(dim=0)
    sides = torch.cat([centers[rows] - boxes[:, :2], boxes[:, 2:] - centers[rows]], dim=2)
    is_positive = (candidate_ious >= threshold) & (sides.amin(dim=2) > _MIN_DISTANCE)
    overlap = torch.full_like(ious, -1.0)
    overlap[rows[is_positive], columns[is_positive]] = candidate_ious[is_positive]
    best, index = overlap.max(dim=1)
    return torch.where(best >= 0, index, BACKGROUND)


def detection_losses(
    logits: Tensor, bins: Tensor, locations: Locations, targets: Sequence[BoxTargets]
) -> DetectionLosses:
    """Computes the losses of a batch.

    Args:
        logits: (N, A, 1) outputs of `NanoDet`.
        bins: (N, A, 4, 11).
        locations: the A locations.
        targets: boxes of the N images.
    """
    centers, strides = locations
    assigned = torch.stack([assign_boxes(locations, target.labeled) for target in targets])
    is_positive = assigned != BACKGROUND
    is_ignored = torch.stack([_are_inside(centers, target.ignored) for target in targets]) & ~is_positive
    image, location = torch.nonzero(is_positive, as_tuple=True)
    offsets = torch.tensor([0, *(len(target.labeled) for target in targets[:-1])]).cumsum(0)
    labeled = torch.cat([target.labeled for target in targets])[assigned[is_positive] + offsets[image]]
    positives = Locations(centers[location], strides[location])
    positive_bins = bins[is_positive]
    boxes = boxes_from_bins(positive_bins, positives)

    quality = torch.zeros_like(logits[..., 0])
    quality[is_positive] = paired_iou(boxes.detach(), labeled)
    quality_losses = quality_focal_loss(logits[..., 0], quality) * ~is_ignored
    weights = logits[is_positive][:, 0].sigmoid().detach()
    normalizer = weights.sum().clamp(min=1e-6)
    true_distances = torch.cat([positives.centers - labeled[:, :2], labeled[:, 2:] - positives.centers], dim=1)
    true_bins = true_distances / positives.strides[:, None]
    distribution_losses = distribution_focal_loss(positive_bins, true_bins).mean(dim=1)
    return DetectionLosses(
        quality_losses.sum() / max(len(labeled), 1),
        (generalized_box_iou_loss(boxes, labeled) * weights).sum() / normalizer,
        (distribution_losses * weights).sum() / normalizer,
    )


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """Computes |s - y|^2 BCE(s, y) of s = sigmoid(logits) and the quality y for each element."""
    return (logits.sigmoid() - quality).square() * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def distribution_focal_loss(bins: Tensor, distances: Tensor) -> Tensor:
    """Computes the cross entropy with the two bins next to each distance.

    Args:
        bins: (..., 11) logits.
        distances: (...) in strides; those beyond the bins are clipped.
    """
    clipped = distances.clamp(0, _MAX_DISTANCE)
    lower = clipped.floor()
    log_probabilities = bins.log_softmax(dim=-1)
    pair = torch.stack([lower, lower + 1], dim=-1).long()
    weights = torch.stack([lower + 1 - clipped, clipped - lower], dim=-1)
    return -(log_probabilities.gather(-1, pair) * weights).sum(dim=-1)


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """Computes the IoU of the boxes (B, 4) xyxy of the same index: (B,)."""
    sides = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    intersection = sides.clamp(min=0).prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (first, second)]
    return intersection / (areas[0] + areas[1] - intersection)


def _are_inside(centers: Tensor, boxes: Tensor) -> Tensor:
    """Returns whether centers (A, 2) are inside any of the boxes (I, 4): (A,)."""
    inside = (centers[:, None] >= boxes[:, :2]) & (centers[:, None] <= boxes[:, 2:])
    return inside.all(dim=2).any(dim=1)

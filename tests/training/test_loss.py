"""Heatmap losses, compared with plain loops."""

import math

import pytest
import torch

from posedy.codecs import MSRACodec
from posedy.config import Loss
from posedy.training.losses import heatmap_loss, loss_normalizer

CODEC = MSRACodec()

KINDS: tuple[Loss, ...] = ("mse", "cross_entropy", "binary_cross_entropy")


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    heatmaps = torch.rand(2, 3, 8, 6, generator=generator)
    targets = torch.rand(2, 3, 8, 6, generator=generator)
    weights = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    return heatmaps, targets, weights


def whole_loss(heatmaps: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, kind: Loss) -> torch.Tensor:
    """The loss of a batch in one process without micro-batches."""
    normalizer = loss_normalizer(CODEC, weights, targets, len(heatmaps), kind).clamp_min(1)
    return heatmap_loss(heatmaps, targets, weights, kind, normalizer)


def test_mse_is_half_the_mean_over_all_heatmap_pixels() -> None:
    heatmaps, targets, weights = batch()
    total = 0.0
    for n in range(2):
        for k in range(3):
            for r in range(8):
                for c in range(6):
                    total += float(weights[n, k] * (heatmaps[n, k, r, c] - targets[n, k, r, c]) ** 2)
    assert math.isclose(
        float(whole_loss(heatmaps, targets, weights, "mse")), 0.5 * total / (2 * 3 * 8 * 6), rel_tol=1e-5
    )


def test_cross_entropy_compares_distributions_over_heatmap_pixels() -> None:
    heatmaps, targets, weights = batch()
    total = 0.0
    for n in range(2):
        for k in range(3):
            q, p = targets[n, k] / targets[n, k].sum(), heatmaps[n, k] / heatmaps[n, k].sum()
            total += float(weights[n, k] * -(q * p.log()).sum())
    loss = whole_loss(heatmaps, targets, weights, "cross_entropy")
    assert math.isclose(float(loss), total / float(weights.sum()), rel_tol=1e-5)


def test_binary_cross_entropy_sums_over_heatmap_pixels() -> None:
    heatmaps, targets, weights = batch()
    total = 0.0
    for n in range(2):
        for k in range(3):
            t, p = targets[n, k], heatmaps[n, k]
            total += float(weights[n, k] * -(t * p.log() + (1 - t) * (1 - p).log()).sum())
    loss = whole_loss(heatmaps, targets, weights, "binary_cross_entropy")
    assert math.isclose(float(loss), total / float(weights.sum()), rel_tol=1e-5)


def test_keypoints_of_weight_0_have_no_effect_and_no_gradient() -> None:
    for kind in KINDS:
        heatmaps, targets, weights = batch()
        heatmaps.requires_grad_()
        loss = whole_loss(heatmaps, targets, weights, kind)
        loss.backward()
        assert heatmaps.grad is not None
        assert heatmaps.grad[0, 1].abs().max() == 0
        assert heatmaps.grad[0, 0].abs().max() > 0
        changed = heatmaps.detach().clone()
        changed[0, 1] = 0.5
        assert whole_loss(changed, targets, weights, kind) == loss


def test_batch_without_labeled_keypoints_has_loss_0() -> None:
    heatmaps, targets, _ = batch()
    for kind in KINDS:
        assert whole_loss(heatmaps, torch.zeros_like(targets), torch.zeros(2, 3), kind) == 0


def test_losses_are_float32_under_autocast() -> None:
    heatmaps, targets, weights = batch()
    with torch.autocast("cpu", torch.bfloat16):
        for kind in KINDS:
            assert whole_loss(heatmaps.bfloat16(), targets, weights, kind).dtype == torch.float32


def test_cross_entropy_has_a_gradient_at_a_confident_error() -> None:
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 0, 0] = 60.0
    logits.requires_grad_()
    targets = torch.zeros(1, 1, 4, 4)
    targets[0, 0, 3, 3] = 1.0
    heatmaps = logits.flatten(2).softmax(-1).reshape(1, 1, 4, 4)
    whole_loss(heatmaps, targets, torch.ones(1, 1), "cross_entropy").backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0, 0, 3, 3], torch.tensor(-1.0), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batch_losses_add_up_to_the_batch_loss(kind: Loss) -> None:
    heatmaps, targets, weights = batch()
    normalizer = loss_normalizer(CODEC, weights, targets, 2, kind)
    halves = zip(heatmaps.split(1), targets.split(1), weights.split(1), strict=True)
    parts = [heatmap_loss(*half, kind, normalizer) for half in halves]
    assert torch.isclose(sum(parts, torch.zeros(())), whole_loss(heatmaps, targets, weights, kind))

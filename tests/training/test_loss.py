"""The losses against plain loops."""

import math

import torch

from posedy.training.loss import cross_entropy, heatmap_loss, mean_squared_error


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    heatmaps = torch.rand(2, 3, 8, 6, generator=generator)
    targets = torch.rand(2, 3, 8, 6, generator=generator)
    weights = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    return heatmaps, targets, weights


def test_mean_squared_error_is_half_the_mean_over_all_cells() -> None:
    heatmaps, targets, weights = batch()
    total = 0.0
    for n in range(2):
        for k in range(3):
            for r in range(8):
                for c in range(6):
                    total += float(weights[n, k] * (heatmaps[n, k, r, c] - targets[n, k, r, c]) ** 2)
    assert math.isclose(
        float(mean_squared_error(heatmaps, targets, weights)), 0.5 * total / (2 * 3 * 8 * 6), rel_tol=1e-5
    )


def test_cross_entropy_is_that_of_distributions_over_the_cells() -> None:
    heatmaps, targets, weights = batch()
    total = 0.0
    for n in range(2):
        for k in range(3):
            q, p = targets[n, k] / targets[n, k].sum(), heatmaps[n, k] / heatmaps[n, k].sum()
            total += float(weights[n, k] * -(q * p.log()).sum())
    assert math.isclose(float(cross_entropy(heatmaps, targets, weights)), total / float(weights.sum()), rel_tol=1e-5)


def test_keypoints_of_weight_0_have_no_influence_and_no_gradient() -> None:
    for kind in ("mse", "cross_entropy"):
        heatmaps, targets, weights = batch()
        heatmaps.requires_grad_()
        loss = heatmap_loss(heatmaps, targets, weights, kind)
        loss.backward()
        assert heatmaps.grad is not None
        assert heatmaps.grad[0, 1].abs().max() == 0
        assert heatmaps.grad[0, 0].abs().max() > 0
        changed = heatmaps.detach().clone()
        changed[0, 1] = 0.5
        assert heatmap_loss(changed, targets, weights, kind) == loss


def test_a_batch_without_labelled_keypoints_gives_0() -> None:
    heatmaps, targets, _ = batch()
    for kind in ("mse", "cross_entropy"):
        assert heatmap_loss(heatmaps, torch.zeros_like(targets), torch.zeros(2, 3), kind) == 0


def test_losses_are_float32_under_autocast() -> None:
    heatmaps, targets, weights = batch()
    with torch.autocast("cpu", torch.bfloat16):
        for kind in ("mse", "cross_entropy"):
            assert heatmap_loss(heatmaps.bfloat16(), targets, weights, kind).dtype == torch.float32


def test_the_gradient_of_cross_entropy_survives_a_confident_mistake() -> None:
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 0, 0] = 60.0
    logits.requires_grad_()
    targets = torch.zeros(1, 1, 4, 4)
    targets[0, 0, 3, 3] = 1.0
    heatmaps = logits.flatten(2).softmax(-1).reshape(1, 1, 4, 4)
    heatmap_loss(heatmaps, targets, torch.ones(1, 1), "cross_entropy").backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0, 0, 3, 3], torch.tensor(-1.0), atol=1e-3)

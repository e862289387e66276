"""SimCC: bins, targets, decoding, the flip test, the loss."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posedy.codecs import SimCCCodec, create_codec, list_codecs
from posedy.skeleton import COCO17

SIZES = [(192, 256), (64, 96), (32, 32), (96, 64)]
CODECS = st.sampled_from([*(SimCCCodec(size) for size in SIZES), SimCCCodec((64, 96), sigma=1.0)])
PERMUTATION = COCO17.flip_permutation


def to_logits(codec: SimCCCodec, targets: Tensor) -> dict[str, Tensor]:
    """The logits of a network that predicts the targets."""
    return dict(zip(codec.output_names, targets.clamp_min(1e-37).log().split(codec.num_bins, dim=-1), strict=True))


def random_logits(codec: SimCCCodec, count: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 3 * torch.randn(count, 17, size, generator=generator)
        for name, size in zip(codec.output_names, codec.num_bins, strict=True)
    }


def random_keypoints(codec: SimCCCodec, count: int, margin: float = 0.0) -> Tensor:
    """Keypoints (count, 17, 2) inside the crop, whose first and last pixel are centered at 0 and at size - 1."""
    low, high = margin - 0.5, torch.tensor(codec.input_size) - 0.5 - margin
    return low + torch.rand(count, 17, 2, generator=torch.Generator().manual_seed(0)) * (high - low)


def target_by_loops(codec: SimCCCodec, x: float, axis: int) -> np.ndarray:
    """A normalized Gaussian, bin by bin: bin b of crop pixels of width 1/2 is centered at (b + 1/2) / 2 - 1/2."""
    size = codec.input_size[axis]
    sigma = codec.target_sigma / 2  # in crop pixels
    heights = [math.exp(-(((b + 0.5) / 2 - 0.5 - x) ** 2) / (2 * sigma**2)) for b in range(2 * size)]
    return np.array(heights) / sum(heights)


def test_the_codec_is_registered_and_has_the_papers_sigma_in_proportion() -> None:
    assert "simcc" in list_codecs()
    codec = create_codec("simcc", (192, 256))
    assert (type(codec), codec.name, codec.has_loss, codec.flip_shift) == (SimCCCodec, "simcc", True, 0)
    assert codec.num_bins == (384, 512)
    assert codec.target_sigma == 6
    assert SimCCCodec((288, 384)).target_sigma == 9
    assert SimCCCodec((288, 384), 2.5).target_sigma == 2.5


@settings(deadline=None)
@given(CODECS, st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=3))
def test_targets_equal_a_loop_over_bins(codec: SimCCCodec, fractions: list[tuple[float, float]]) -> None:
    points = [[f * size - 0.5 for f, size in zip(pair, codec.input_size, strict=True)] for pair in fractions]
    targets, weights = codec.encode(torch.tensor([points]), torch.ones(1, len(points)))
    assert targets.dtype == weights.dtype == torch.float32
    assert (weights == 1).all()
    for index, point in enumerate(points):
        for axis, target in enumerate(targets[0, index].split(codec.num_bins)):
            np.testing.assert_allclose(target.numpy(), target_by_loops(codec, point[axis], axis), atol=1e-5)


@pytest.mark.parametrize(
    ("x", "weight"),
    # 3 sigma are 9 crop pixels beyond the first and the last bin, which are centered at -0.25 and 191.25
    [(-9.2, 1), (-9.3, 0), (0, 1), (191, 1), (200.2, 1), (200.3, 0)],
)
def test_the_weight_is_0_if_no_bin_is_within_3_sigma(x: float, weight: int) -> None:
    for keypoint in ((x, 100.0), (100.0, x + 64 if x > 191 else x)):
        targets, weights = SimCCCodec().encode(torch.tensor([[keypoint]]), torch.ones(1, 1))
        assert weights.item() == weight
        np.testing.assert_allclose([part.sum().item() for part in targets[0, 0].split((384, 512))], weight, atol=1e-5)


def test_unlabeled_keypoints_have_no_target_whatever_their_coordinates() -> None:
    keypoints = torch.full((1, 2, 2), 50.0)
    keypoints[0, 1] = float("nan")
    targets, weights = SimCCCodec().encode(keypoints, torch.tensor([[1, 0]]))
    assert weights.tolist() == [[1, 0]]
    assert not targets[0, 1].any()
    assert targets.isfinite().all()


@settings(deadline=None, max_examples=50)
@given(CODECS, st.floats(0, 1), st.floats(0, 1))
def test_targets_decode_to_their_keypoints(codec: SimCCCodec, fx: float, fy: float) -> None:
    """The error is at most half a bin, a quarter of a crop pixel, and far less where the peak has two neighbors."""
    point = [f * size - 0.5 for f, size in zip((fx, fy), codec.input_size, strict=True)]
    targets, _ = codec.encode(torch.tensor([[point]]), torch.ones(1, 1))
    keypoints, scores = codec.decode(to_logits(codec, targets))
    assert keypoints.dtype == scores.dtype == torch.float32
    for x, decoded, size in zip(point, keypoints[0, 0].tolist(), codec.input_size, strict=True):
        assert decoded == pytest.approx(x, abs=0.2501)
        if 0.5 <= x <= size - 1.5:
            assert decoded == pytest.approx(x, abs=0.002)
    # the highest bin is up to half a bin from the position on each axis
    assert 0.999 * math.exp(-2 * 0.5**2 / (2 * codec.target_sigma**2)) <= scores.item() <= 1


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0, 12.0])
def test_any_sigma_decodes_to_within_half_a_bin_with_a_score_from_0_to_1(sigma: float) -> None:
    codec = SimCCCodec((96, 128), sigma)
    expected = random_keypoints(codec, 30)
    keypoints, scores = codec.decode(to_logits(codec, codec.encode(expected, torch.ones(30, 17))[0]))
    assert (keypoints - expected).abs().max() <= 0.2501
    assert scores.min() > 0.2
    assert scores.max() <= 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_decoding_is_the_highest_bin_within_half_a_bin(seed: int) -> None:
    codec = SimCCCodec((32, 64))
    logits = random_logits(codec, seed=seed)
    keypoints, scores = codec.decode(logits)
    centers = [(logits[name].argmax(dim=-1) + 0.5) / 2 - 0.5 for name in codec.output_names]
    assert (keypoints - torch.stack(centers, dim=-1)).abs().max() <= 0.25 + 1e-5
    heights = [logits[name].double().softmax(dim=-1).amax(dim=-1) for name in codec.output_names]
    # 1.5 bins at a height of 64
    expected = [(math.sqrt(2 * math.pi) * 1.5 * height).clamp_max(1) for height in heights]
    torch.testing.assert_close(scores.double(), expected[0] * expected[1], rtol=1e-4, atol=0)


def test_the_score_of_an_uncertain_prediction_is_that_of_the_mean_heatmap() -> None:
    """For a Gaussian position of standard deviation s the mean target has the peak sigma^2 / (sigma^2 + s^2)."""
    codec = SimCCCodec()
    for s in (3.0, 6.0, 18.0):
        wider = SimCCCodec(sigma=math.hypot(6, s))
        targets, _ = wider.encode(torch.tensor([[[96.0, 128.0]]]), torch.ones(1, 1))
        _, scores = codec.decode(to_logits(codec, targets))
        assert scores.item() == pytest.approx(36 / (36 + s**2), rel=0.01)


def test_uniform_logits_have_a_score_near_0() -> None:
    codec = SimCCCodec()
    keypoints, scores = codec.decode({"x_logits": torch.zeros(1, 17, 384), "y_logits": torch.zeros(1, 17, 512)})
    assert keypoints.isfinite().all()
    assert scores.max() < 0.01


def flip(keypoints: Tensor, width: int) -> Tensor:
    """Keypoints of the flipped crop, x' = W - 1 - x with left and right exchanged."""
    flipped = keypoints[:, list(PERMUTATION)].clone()
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped


@pytest.mark.parametrize("size", SIZES)
def test_targets_of_the_flipped_crop_are_the_flipped_targets(size: tuple[int, int]) -> None:
    codec = SimCCCodec(size)
    keypoints = random_keypoints(codec, 4)
    labeled = torch.ones(4, 17)
    x, y = codec.encode(keypoints, labeled)[0].split(codec.num_bins, dim=-1)
    flipped_x, flipped_y = codec.encode(flip(keypoints, size[0]), labeled)[0].split(codec.num_bins, dim=-1)
    torch.testing.assert_close(flipped_x[:, list(PERMUTATION)].flip(-1), x, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(flipped_y[:, list(PERMUTATION)], y)


@pytest.mark.parametrize("size", SIZES)
def test_merged_logits_are_symmetric(size: tuple[int, int]) -> None:
    """If the network predicts for the flipped crop what it predicts for the crop, its keypoints are symmetric."""
    codec = SimCCCodec(size)
    logits, flipped = random_logits(codec), random_logits(codec, seed=1)
    keypoints, scores = codec.decode(codec.merge_flipped(logits, flipped, PERMUTATION))
    of_flipped, scores_of_flipped = codec.decode(codec.merge_flipped(flipped, logits, PERMUTATION))
    torch.testing.assert_close(flip(of_flipped, size[0]), keypoints, rtol=0, atol=1e-3)
    torch.testing.assert_close(scores_of_flipped[:, list(PERMUTATION)], scores)


@pytest.mark.parametrize("size", SIZES)
def test_merged_targets_decode_to_the_keypoints_also_between_two_bins(size: tuple[int, int]) -> None:
    codec = SimCCCodec(size)
    labeled = torch.ones(8, 17)
    anywhere = random_keypoints(codec, 8, margin=1.0)
    for keypoints in (anywhere, anywhere.round()):  # a whole crop pixel is between two bins
        logits = to_logits(codec, codec.encode(keypoints, labeled)[0])
        flipped = to_logits(codec, codec.encode(flip(keypoints, size[0]), labeled)[0])
        decoded, _ = codec.decode(codec.merge_flipped(logits, flipped, PERMUTATION))
        assert (decoded - keypoints).abs().max() < 0.002


def test_merged_logits_are_the_mean_of_the_distributions() -> None:
    codec = SimCCCodec((32, 64))
    logits, flipped = random_logits(codec), random_logits(codec, seed=1)
    merged = codec.merge_flipped(logits, flipped, PERMUTATION)
    assert list(merged) == list(codec.output_names)
    back = {name: value.softmax(dim=-1)[:, list(PERMUTATION)] for name, value in flipped.items()}
    back["x_logits"] = back["x_logits"].flip(-1)
    for name in codec.output_names:
        expected = (logits[name].softmax(dim=-1) + back[name]) / 2
        torch.testing.assert_close(merged[name].exp(), expected)
        torch.testing.assert_close(merged[name].softmax(dim=-1), expected)


def test_the_flip_test_of_sure_and_opposite_predictions_is_finite() -> None:
    codec = SimCCCodec((32, 32))
    logits = {name: torch.zeros(1, 17, 64) for name in codec.output_names}
    logits["x_logits"][..., 3] = 1e4
    merged = codec.merge_flipped(logits, logits, PERMUTATION)
    keypoints, scores = codec.decode(merged)
    assert keypoints.isfinite().all()
    assert scores.isfinite().all()


def test_loss_and_gradient_equal_a_loop_in_float64() -> None:
    codec = SimCCCodec((32, 64))
    keypoints = random_keypoints(codec, 3)
    labeled = torch.rand(3, 17, generator=torch.Generator().manual_seed(1)) > 0.3
    targets, weights = codec.encode(keypoints, labeled)
    logits = {name: value.requires_grad_() for name, value in random_logits(codec, 3).items()}
    loss = codec.loss(logits, targets, weights)
    loss.backward()
    total = 0.0
    expected = {name: np.zeros(value.shape) for name, value in logits.items()}
    for n, k in zip(*np.nonzero(labeled.numpy()), strict=True):
        for axis, name in enumerate(codec.output_names):
            q = target_by_loops(codec, keypoints[n, k, axis].item(), axis)
            z = logits[name][n, k].detach().double().numpy()
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            total += sum(q[b] * math.log(q[b] / p[b]) for b in range(len(q)) if q[b] > 0)
            expected[name][n, k] = p - q
    assert loss.item() == pytest.approx(total, rel=1e-5)
    for name, value in logits.items():
        np.testing.assert_allclose(value.grad.numpy(), expected[name], atol=1e-5)


def test_the_loss_of_the_targets_is_0() -> None:
    codec = SimCCCodec((64, 96))
    targets, weights = codec.encode(random_keypoints(codec, 4), torch.ones(4, 17))
    logits = {name: value.requires_grad_() for name, value in to_logits(codec, targets).items()}
    loss = codec.loss(logits, targets, weights)
    loss.backward()
    assert abs(loss.item()) < 1e-3
    assert all(value.grad.abs().max() < 1e-5 for value in logits.values())
    torch.testing.assert_close(codec.soft_targets(logits).detach(), targets, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 17, 383), (2, 17, 384, 1), (17, 384)])
def test_logits_of_another_size_are_rejected(shape: tuple[int, ...]) -> None:
    outputs = {"x_logits": torch.zeros(shape), "y_logits": torch.zeros(2, 17, 512)}
    with pytest.raises(ValueError, match=r"x_logits.*\(N, K, 384\).*256x192"):
        SimCCCodec().decode(outputs)
    with pytest.raises(ValueError, match="x_logits"):
        SimCCCodec().loss(outputs, torch.zeros(2, 17, 896), torch.zeros(2, 17))


def test_logits_with_nan_have_a_nan_score() -> None:
    codec = SimCCCodec((32, 32))
    logits = random_logits(codec)
    logits["y_logits"][1, 2, 5] = float("nan")
    _, scores = codec.decode(logits)
    assert scores.isnan().nonzero().tolist() == [[1, 2]]


def test_zero_crops_and_zero_keypoints_are_accepted() -> None:
    codec = SimCCCodec((32, 32))
    for shape in ((0, 17), (3, 0)):
        keypoints, scores = codec.decode({name: torch.zeros(*shape, 64) for name in codec.output_names})
        assert (keypoints.shape, scores.shape) == ((*shape, 2), shape)
        targets, weights = codec.encode(torch.zeros(*shape, 2), torch.zeros(shape))
        assert (targets.shape, weights.shape) == ((*shape, 128), shape)

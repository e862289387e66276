import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posedy.codecs import Coding, HeatmapCodec, MSRACodec, UnbiasedCodec, list_codecs, make_codec
from posedy.skeleton import COCO17

CODECS = st.sampled_from([MSRACodec(), MSRACodec((64, 96)), MSRACodec((32, 32)), MSRACodec((96, 64), sigma=1.7)])


def target_by_loops(codec: HeatmapCodec, x: float, y: float, sigma: float) -> np.ndarray:
    """A Gaussian around the rounded cell, cell by cell; the patch reaches as far as whole cells within 3 sigma."""
    width, height = codec.input_size[0] // 4, codec.input_size[1] // 4
    mu_x, mu_y = math.floor(x / 4 + 0.5), math.floor(y / 4 + 0.5)
    target = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            if abs(column - mu_x) <= 3 * sigma and abs(row - mu_y) <= 3 * sigma:
                target[row, column] = math.exp(-((column - mu_x) ** 2 + (row - mu_y) ** 2) / (2 * sigma**2))
    return target


def gaussian(codec: HeatmapCodec, points: Tensor, sigma: float = 2.0) -> Tensor:
    """Heatmaps (1, K, h, w) with continuous, un-rounded Gaussians around points (K, 2) of the crop."""
    width, height = codec.heatmap_size
    columns, rows = torch.arange(width, dtype=torch.float64), torch.arange(height, dtype=torch.float64)
    cells = points.double() / 4
    x = torch.exp(-((columns - cells[:, :1]) ** 2) / (2 * sigma**2))
    y = torch.exp(-((rows - cells[:, 1:]) ** 2) / (2 * sigma**2))
    return (y[:, :, None] * x[:, None, :])[None]


def centroids(heatmaps: Tensor) -> Tensor:
    """The middle (K, 2) of the mass of heatmaps (1, K, h, w), in cells."""
    maps = heatmaps[0] / heatmaps[0].sum(dim=(1, 2), keepdim=True)
    columns = (maps.sum(dim=1) * torch.arange(maps.shape[2])).sum(dim=1)
    rows = (maps.sum(dim=2) * torch.arange(maps.shape[1])).sum(dim=1)
    return torch.stack([columns, rows], dim=1)


@settings(deadline=None)
@given(
    CODECS, st.lists(st.tuples(st.floats(-80, 280, width=32), st.floats(-80, 330, width=32)), min_size=1, max_size=3)
)
def test_targets_equal_a_loop_over_cells(codec, points):
    sigma = codec.sigma or codec.input_size[1] / 128
    targets, weights = codec.encode(torch.tensor([points]), torch.ones(1, len(points)))
    assert targets.dtype == weights.dtype == torch.float32
    for index, (x, y) in enumerate(points):
        expected = target_by_loops(codec, x, y, sigma)
        np.testing.assert_allclose(targets[0, index].numpy(), expected, atol=1e-6)
        assert weights[0, index] == float(expected.any())


def test_sigma_is_2_at_256x192_and_in_proportion():
    assert MSRACodec().target_sigma == 2
    assert MSRACodec((288, 384)).target_sigma == 3
    assert MSRACodec((288, 384), sigma=2.5).target_sigma == 2.5
    assert MSRACodec((192, 256)).heatmap_size == (48, 64)


@pytest.mark.parametrize(
    ("x", "weight"),
    # The patch of column -6 reaches column 0, that of -7 does not; 53 - 6 = 47 is the last column.
    [(-26.0, 1), (-26.1, 0), (0, 1), (213.9, 1), (214.0, 0)],
)
def test_weight_is_0_only_when_no_cell_of_the_patch_is_inside(x, weight):
    targets, weights = MSRACodec().encode(torch.tensor([[[x, 100.0], [100.0, 60.0]]]), torch.ones(1, 2))
    assert weights.tolist() == [[weight, 1]]
    assert (targets[0, 0].max() > 0) == bool(weight)


def test_unlabeled_keypoints_have_no_target_wherever_they_are():
    points = torch.tensor([[[50.0, 60.0], [float("nan"), float("inf")], [0.0, 0.0]]])
    for labeled in (torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool)):
        targets, weights = MSRACodec().encode(points, labeled)
        assert not targets.any()
        assert not weights.any()


def test_visibility_2_weighs_as_much_as_1():
    points = torch.full((1, 2, 2), 50.0)
    targets, weights = MSRACodec().encode(points, torch.tensor([[1, 2]]))
    assert weights.tolist() == [[1, 1]]
    torch.testing.assert_close(targets[0, 0], targets[0, 1], rtol=0, atol=0)


@settings(deadline=None)
@given(CODECS, st.data())
def test_decoding_a_target_is_within_half_a_cell(codec, data):
    """The exact bound: rounding to a cell moves by at most 2 crop pixels, and a symmetric target has no quarter step.

    Inside the heatmap means that the rounded cell is: from -2 to 4 w - 2 (not included).
    """
    width, height = codec.input_size
    xs = st.floats(-2, width - 2, width=32, exclude_max=True)
    ys = st.floats(-2, height - 2, width=32, exclude_max=True)
    points = torch.tensor([[data.draw(st.tuples(xs, ys)) for _ in range(4)]])
    targets, weights = codec.encode(points, torch.ones(1, 4))
    keypoints, scores = codec.decode(targets)
    assert weights.all()
    torch.testing.assert_close(scores, torch.ones(1, 4), rtol=0, atol=0)
    assert (keypoints - points).abs().max() <= 2
    assert (keypoints % 4 == 0).all()


def decode_by_loops(heatmap: np.ndarray, row: int, column: int) -> tuple[float, float]:
    height, width = heatmap.shape
    x, y = float(column), float(row)
    if 0 < column < width - 1:
        left, right = heatmap[row, column - 1], heatmap[row, column + 1]
        x += 0.25 if right > left else -0.25 if right < left else 0.0
    if 0 < row < height - 1:
        above, below = heatmap[row - 1, column], heatmap[row + 1, column]
        y += 0.25 if below > above else -0.25 if below < above else 0.0
    return x * 4, y * 4


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 1000]), st.sampled_from([(32, 32), (64, 32), (32, 96)]))
def test_quarter_step_equals_a_loop(seed, levels, input_size):
    codec = MSRACodec(input_size)
    width, height = codec.heatmap_size
    random = np.random.default_rng(seed)
    heatmaps = random.integers(-levels, levels, size=(2, 3, height, width)).astype(np.float32)
    # One peak each, often at a border, among neighbors that are often equal.
    peaks = [
        (n, k, random.choice([0, 1, height - 1, random.integers(height)]), random.choice([0, width - 1, width // 2]))
        for n in range(2)
        for k in range(3)
    ]
    for peak in peaks:
        heatmaps[peak] = levels + 0.5
    keypoints, scores = codec.decode(torch.from_numpy(heatmaps))
    assert (scores == levels + 0.5).all()
    for n, k, row, column in peaks:
        assert tuple(keypoints[n, k].tolist()) == decode_by_loops(heatmaps[n, k], row, column)


def test_a_plateau_is_decoded_to_one_of_its_cells():
    heatmaps = torch.zeros(1, 1, 8, 8)
    heatmaps[..., 3, 2:5] = 1
    keypoints, scores = MSRACodec((32, 32)).decode(heatmaps)
    assert scores.item() == 1
    assert 8 <= keypoints[0, 0, 0] <= 16
    assert keypoints[0, 0, 1] == 12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_decodes_to_float32(dtype):
    keypoints, scores = MSRACodec((32, 32)).decode(torch.rand(2, 3, 8, 8).to(dtype))
    assert keypoints.dtype == scores.dtype == torch.float32


def test_no_crops_and_no_keypoints():
    codec = MSRACodec()
    for shape in ((0, 17), (3, 0)):
        keypoints, scores = codec.decode(torch.zeros(*shape, 64, 48))
        assert keypoints.shape == (*shape, 2)
        assert scores.shape == shape
        targets, weights = codec.encode(torch.zeros(*shape, 2), torch.zeros(shape))
        assert targets.shape == (*shape, 64, 48)
        assert weights.shape == shape
    flipped = codec.merge_flipped(torch.zeros(0, 17, 64, 48), torch.zeros(0, 17, 64, 48), COCO17.flip_permutation)
    assert flipped.shape == (0, 17, 64, 48)


@pytest.mark.parametrize("shape", [(1, 17, 48, 64), (1, 17, 64, 47), (17, 64, 48), (1, 1, 17, 64, 48), (0, 17, 32, 24)])
def test_refuses_heatmaps_of_another_size(shape):
    with pytest.raises(ValueError, match=r"\(N, K, 64, 48\)"):
        MSRACodec().decode(torch.zeros(shape))


def test_refuses_nan():
    heatmaps = torch.zeros(2, 3, 64, 48)
    heatmaps[1, 2, 40, 7] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        MSRACodec().decode(heatmaps)


@pytest.mark.parametrize("input_size", [(190, 256), (192, 0), (-32, 32), (192,), (192, 256, 3)])
def test_refuses_sizes(input_size):
    with pytest.raises(ValueError, match="divisible by 32"):
        MSRACodec(input_size)


@pytest.mark.parametrize("sigma", [0, -1, float("nan")])
def test_refuses_sigmas(sigma):
    with pytest.raises(ValueError, match="sigma"):
        MSRACodec(sigma=sigma)


def flipped_pair(codec: HeatmapCodec, draw: Callable[[HeatmapCodec, Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the crop, their heatmaps, and the heatmaps of the flipped crop, where left and right have changed."""
    random = np.random.default_rng(0)
    width, height = codec.input_size
    points = torch.tensor(random.uniform([50, 50], [width - 50, height - 50], size=(17, 2)))
    flipped_points = torch.stack([width - 1 - points[:, 0], points[:, 1]], dim=1)[list(COCO17.flip_permutation)]
    return points, draw(codec, points), draw(codec, flipped_points)


def test_flipped_part_lies_a_quarter_cell_off():
    codec = MSRACodec()
    points, heatmaps, flipped = flipped_pair(codec, gaussian)
    np.testing.assert_allclose(centroids(heatmaps), points / 4, atol=1e-3)
    # Unmoved, (W - 1 - x) / 4 falls 0.75 cell to the left of x / 4.
    unmoved = centroids(flipped.flip(-1)[:, list(COCO17.flip_permutation)]) - points / 4
    np.testing.assert_allclose(unmoved, np.tile([-0.75, 0], (17, 1)), atol=1e-3)
    mean = codec.merge_flipped(torch.zeros_like(heatmaps), flipped, COCO17.flip_permutation)
    np.testing.assert_allclose(centroids(mean) - points / 4, np.tile([0.25, 0], (17, 1)), atol=1e-3)
    both = codec.merge_flipped(heatmaps, flipped, COCO17.flip_permutation)
    np.testing.assert_allclose(both, heatmaps / 2 + mean, atol=1e-12)


def test_mean_with_the_flipped_crop_decodes_to_the_keypoints():
    codec = MSRACodec()
    points, heatmaps, flipped = flipped_pair(codec, gaussian)
    keypoints, _ = codec.decode(codec.merge_flipped(heatmaps, flipped, COCO17.flip_permutation))
    # The peak is 0.125 cell off in x; the cell with the quarter step is within a quarter of a cell of the peak.
    assert ((keypoints[0] - points)[:, 0].abs() <= 4 * (0.25 + 0.125) + 1e-5).all()
    assert ((keypoints[0] - points)[:, 1].abs() <= 4 * 0.25 + 1e-5).all()


def test_column_without_a_left_neighbor_keeps_its_own_value():
    flipped = torch.arange(8.0).flip(0).expand(1, 1, 8, 8)
    mean = MSRACodec((32, 32)).merge_flipped(torch.zeros(1, 1, 8, 8), flipped, [0])
    assert (mean[0, 0] * 2).tolist() == [[0, 0, 1, 2, 3, 4, 5, 6]] * 8


UNBIASED = st.sampled_from(
    [UnbiasedCodec(), UnbiasedCodec((64, 96)), UnbiasedCodec((96, 128)), UnbiasedCodec((96, 64), sigma=1.7)]
)


@given(UNBIASED, st.data())
@settings(max_examples=100, deadline=None)
def test_the_unbiased_coding_gives_keypoints_back(codec, data):
    """Within 0.04 pixels where the targets that are matched are whole, and within 0.2 nearer to the border."""
    margin = 9.0
    point = [data.draw(st.floats(margin, side - 1 - margin)) for side in codec.input_size]
    reach = 4 * 2 * (3 * codec.target_sigma + 1)
    whole = all(reach <= x <= side - 1 - reach for x, side in zip(point, codec.input_size, strict=True))
    target, weight = codec.encode(torch.tensor([[point]]), torch.ones(1, 1))
    keypoints, _ = codec.decode(target)
    assert weight.item() == 1
    assert keypoints[0, 0].tolist() == pytest.approx(point, abs=0.04 if whole else 0.2)


def match_by_loops(codec: HeatmapCodec, heatmap: np.ndarray) -> np.ndarray:
    """<H, T_c> / (|T_c| |T|) cell by cell."""
    height, width = heatmap.shape
    radius = max(1, int(3 * codec.target_sigma))

    def target(around_row: int, around_column: int, height: int, width: int) -> np.ndarray:
        rows, columns = np.mgrid[:height, :width]
        dy, dx = rows - around_row, columns - around_column
        gaussian = np.exp(-(dx**2 + dy**2) / (2 * codec.target_sigma**2))
        return gaussian * (abs(dx) <= radius) * (abs(dy) <= radius)

    whole = np.linalg.norm(target(radius, radius, 2 * radius + 1, 2 * radius + 1))
    matches = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            here = target(row, column, height, width)
            matches[row, column] = (heatmap * here).sum() / (np.linalg.norm(here) * whole)
    return matches


@pytest.mark.parametrize("codec", [UnbiasedCodec((64, 96)), UnbiasedCodec((64, 64), sigma=1.7)])
def test_unbiased_keypoints_are_where_a_target_matches_best(codec: UnbiasedCodec) -> None:
    width, height = codec.heatmap_size
    heatmaps = torch.rand(1, 8, height, width, generator=torch.Generator().manual_seed(0))
    keypoints, scores = codec.decode(heatmaps)
    for index in range(8):
        matches = match_by_loops(codec, heatmaps[0, index].double().numpy())
        row, column = np.unravel_index(matches.argmax(), matches.shape)
        assert scores[0, index].item() == pytest.approx(matches.max(), rel=1e-5)
        cell = keypoints[0, index] / keypoints.new_tensor(
            [(4 * width - 1) / (width - 1), (4 * height - 1) / (height - 1)]
        )
        assert abs(cell[0] - column) <= 1
        assert abs(cell[1] - row) <= 1


def test_a_broad_unbiased_heap_outweighs_a_single_high_cell() -> None:
    codec = UnbiasedCodec()
    heatmaps, _ = codec.encode(torch.tensor([[[120.0, 180.0]]]), torch.ones(1, 1))
    heatmaps = 0.4 * heatmaps
    heatmaps[0, 0, 10, 12] = 0.5
    keypoints, scores = codec.decode(heatmaps)
    assert keypoints[0, 0].tolist() == pytest.approx([120, 180], abs=0.1)
    assert scores.item() == pytest.approx(0.4, abs=0.02)


def test_an_unbiased_target_is_a_gaussian_around_the_unrounded_cell():
    codec = UnbiasedCodec((64, 96))
    point = (31.3, 50.9)
    target, _ = codec.encode(torch.tensor([[point]]), torch.ones(1, 1))
    mu_x, mu_y = point[0] * 15 / 63, point[1] * 23 / 95
    for row in range(24):
        for column in range(16):
            squared = (column - mu_x) ** 2 + (row - mu_y) ** 2
            near = max(abs(column - mu_x), abs(row - mu_y)) <= int(3 * codec.target_sigma)
            expected = math.exp(-squared / (2 * codec.target_sigma**2)) if near else 0.0
            assert target[0, 0, row, column].item() == pytest.approx(expected, abs=1e-5)


def test_the_unbiased_coding_steps_only_where_the_logarithm_has_a_vertex():
    codec = UnbiasedCodec((32, 32))
    heatmaps = torch.zeros(1, 3, 8, 8)
    heatmaps[0, 0, 0, 3] = 1.0  # at the border
    heatmaps[0, 1, 4, 4] = 1.0  # alone: the vertex is the cell
    heatmaps[0, 2, 4] = -1.0  # nothing positive
    keypoints, scores = codec.decode(heatmaps)
    pixels = 31 / 7
    assert keypoints[0, 0].tolist() == pytest.approx([3 * pixels, 0])
    assert keypoints[0, 1].tolist() == pytest.approx([4 * pixels, 4 * pixels])
    assert torch.isfinite(keypoints).all()
    assert scores[0].tolist() == pytest.approx([1, 1, 0])


def flip_error(training: HeatmapCodec, testing: HeatmapCodec) -> float:
    """The mean error in crop pixels of decoding perfect heatmaps of a crop, merged with those of the flipped crop."""
    width, height = training.input_size
    generator = torch.Generator().manual_seed(0)
    keypoints = 30 + torch.rand(64, 17, 2, generator=generator) * torch.tensor([width - 60.0, height - 60.0])
    permutation = list(COCO17.flip_permutation)
    flipped = keypoints[:, permutation].clone()
    flipped[..., 0] = width - 1 - flipped[..., 0]
    labeled = torch.ones(64, 17)
    heatmaps, _ = training.encode(keypoints, labeled)
    of_flipped, _ = training.encode(flipped, labeled)
    found, _ = testing.decode(testing.merge_flipped(heatmaps, of_flipped, permutation))
    return float((found - keypoints).abs().mean())


def test_codings_cannot_be_mixed():
    """A network trained in one coding is further off when it is tested in the other, whichever that is."""
    paper, unbiased = MSRACodec(), UnbiasedCodec()
    assert flip_error(unbiased, unbiased) < 0.002
    assert flip_error(paper, paper) < 0.9
    assert flip_error(unbiased, paper) > 1.1
    assert flip_error(paper, unbiased) > 1.1


def test_each_coding_owns_its_shift_and_its_name():
    assert [(codec.coding, codec.flip_shift) for codec in (MSRACodec(), UnbiasedCodec())] == [
        ("paper", 1),
        ("unbiased", 0),
    ]
    assert list_codecs() == ["paper", "unbiased"]
    assert type(make_codec("paper", (64, 96))) is MSRACodec
    assert make_codec("unbiased", (64, 96), 1.5) == UnbiasedCodec((64, 96), 1.5)
    with pytest.raises(ValueError, match=r"coding is one of \['paper', 'unbiased'\], got 'udp'"):
        make_codec("udp", (64, 96))


@pytest.mark.parametrize("coding", ["paper", "unbiased"])
@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.34, 2.0])
def test_every_keypoint_that_counts_has_a_target_however_small_sigma_is(coding: Coding, sigma: float) -> None:
    codec = make_codec(coding, (96, 128), sigma)
    keypoints = torch.rand(50, 17, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([95.0, 127.0])
    targets, weights = codec.encode(keypoints, torch.ones(50, 17))
    peaks = targets.flatten(2).max(dim=-1).values
    assert (weights == 1).float().mean() > 0.9
    assert (peaks[weights == 1] > 0).all()

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posedy.codecs import (
    Codec,
    HeatmapCodec,
    MSRACodec,
    Outputs,
    UnbiasedCodec,
    create_codec,
    list_codecs,
    register_codec,
)
from posedy.skeleton import COCO17

MSRA = st.sampled_from([MSRACodec(), MSRACodec((64, 96)), MSRACodec((32, 32)), MSRACodec((96, 64), sigma=1.7)])


def target_by_loops(codec: HeatmapCodec, x: float, y: float, sigma: float) -> np.ndarray:
    """A Gaussian around the rounded heatmap pixel, pixel by pixel; it is 0 beyond 3 sigma in x or in y."""
    width, height = codec.input_size[0] // 4, codec.input_size[1] // 4
    mu_x, mu_y = math.floor(x / 4 + 0.5), math.floor(y / 4 + 0.5)
    target = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            if abs(column - mu_x) <= 3 * sigma and abs(row - mu_y) <= 3 * sigma:
                target[row, column] = math.exp(-((column - mu_x) ** 2 + (row - mu_y) ** 2) / (2 * sigma**2))
    return target


def gaussian(codec: HeatmapCodec, keypoints: Tensor, sigma: float = 2.0) -> Tensor:
    """Heatmaps (1, K, h, w) with Gaussians around keypoints (K, 2) in crop pixels, which are not rounded."""
    width, height = codec.heatmap_size
    columns, rows = torch.arange(width, dtype=torch.float64), torch.arange(height, dtype=torch.float64)
    centers = keypoints.double() / 4
    x = torch.exp(-((columns - centers[:, :1]) ** 2) / (2 * sigma**2))
    y = torch.exp(-((rows - centers[:, 1:]) ** 2) / (2 * sigma**2))
    return (y[:, :, None] * x[:, None, :])[None]


def centroids(heatmaps: Tensor) -> Tensor:
    """The centers of mass (K, 2) of heatmaps (1, K, h, w), in heatmap pixels."""
    mass = heatmaps[0] / heatmaps[0].sum(dim=(1, 2), keepdim=True)
    columns = (mass.sum(dim=1) * torch.arange(mass.shape[2])).sum(dim=1)
    rows = (mass.sum(dim=2) * torch.arange(mass.shape[1])).sum(dim=1)
    return torch.stack([columns, rows], dim=1)


@settings(deadline=None)
@given(MSRA, st.lists(st.tuples(st.floats(-80, 280, width=32), st.floats(-80, 330, width=32)), min_size=1, max_size=3))
def test_targets_equal_a_loop_over_pixels(codec, points):
    sigma = codec.sigma or codec.input_size[1] / 128
    targets, weights = codec.encode(torch.tensor([points]), torch.ones(1, len(points)))
    assert targets.dtype == weights.dtype == torch.float32
    for index, (x, y) in enumerate(points):
        expected = target_by_loops(codec, x, y, sigma)
        np.testing.assert_allclose(targets[0, index].numpy(), expected, atol=1e-6)
        assert weights[0, index] == float(expected.any())


def test_default_sigma_is_2_at_256x192_and_in_proportion():
    assert MSRACodec().target_sigma == 2
    assert MSRACodec((288, 384)).target_sigma == 3
    assert MSRACodec((288, 384), sigma=2.5).target_sigma == 2.5
    assert MSRACodec((192, 256)).heatmap_size == (48, 64)


@pytest.mark.parametrize(
    ("x", "weight"),
    # The patch of column -6 reaches column 0, that of -7 does not; 53 - 6 = 47 is the last column.
    [(-26.0, 1), (-26.1, 0), (0, 1), (213.9, 1), (214.0, 0)],
)
def test_weight_is_0_only_if_no_pixel_of_the_patch_is_inside(x, weight):
    targets, weights = MSRACodec().encode(torch.tensor([[[x, 100.0], [100.0, 60.0]]]), torch.ones(1, 2))
    assert weights.tolist() == [[weight, 1]]
    assert (targets[0, 0].max() > 0) == bool(weight)


def test_unlabeled_keypoints_have_an_empty_target_at_any_position():
    points = torch.tensor([[[50.0, 60.0], [float("nan"), float("inf")], [0.0, 0.0]]])
    for labeled in (torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool)):
        targets, weights = MSRACodec().encode(points, labeled)
        assert not targets.any()
        assert not weights.any()


def test_visibility_2_has_the_same_weight_as_1():
    points = torch.full((1, 2, 2), 50.0)
    targets, weights = MSRACodec().encode(points, torch.tensor([[1, 2]]))
    assert weights.tolist() == [[1, 1]]
    torch.testing.assert_close(targets[0, 0], targets[0, 1], rtol=0, atol=0)


@settings(deadline=None)
@given(MSRA, st.data())
def test_a_decoded_target_is_within_half_a_heatmap_pixel(codec, data):
    """The exact bound: rounding moves by at most 2 crop pixels, and a symmetric target has no quarter offset.

    Keypoints are sampled from -2 to 4 w - 2 (not included), so that the rounded heatmap pixel is inside the heatmap.
    """
    width, height = codec.input_size
    xs = st.floats(-2, width - 2, width=32, exclude_max=True)
    ys = st.floats(-2, height - 2, width=32, exclude_max=True)
    points = torch.tensor([[data.draw(st.tuples(xs, ys)) for _ in range(4)]])
    targets, weights = codec.encode(points, torch.ones(1, 4))
    keypoints, scores = codec.decode({"heatmaps": targets})
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
def test_quarter_offset_equals_a_loop(seed, levels, input_size):
    codec = MSRACodec(input_size)
    width, height = codec.heatmap_size
    rng = np.random.default_rng(seed)
    heatmaps = rng.integers(-levels, levels, size=(2, 3, height, width)).astype(np.float32)
    # one peak in each heatmap, often at a border, among neighbors that are often equal
    peaks = [
        (n, k, rng.choice([0, 1, height - 1, rng.integers(height)]), rng.choice([0, width - 1, width // 2]))
        for n in range(2)
        for k in range(3)
    ]
    for peak in peaks:
        heatmaps[peak] = levels + 0.5
    keypoints, scores = codec.decode({"heatmaps": torch.from_numpy(heatmaps)})
    assert (scores == levels + 0.5).all()
    for n, k, row, column in peaks:
        assert tuple(keypoints[n, k].tolist()) == decode_by_loops(heatmaps[n, k], row, column)


def test_a_plateau_is_decoded_to_one_of_its_pixels():
    heatmaps = torch.zeros(1, 1, 8, 8)
    heatmaps[..., 3, 2:5] = 1
    keypoints, scores = MSRACodec((32, 32)).decode({"heatmaps": heatmaps})
    assert scores.item() == 1
    assert 8 <= keypoints[0, 0, 0] <= 16
    assert keypoints[0, 0, 1] == 12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_decoded_keypoints_are_float32(dtype):
    keypoints, scores = MSRACodec((32, 32)).decode({"heatmaps": torch.rand(2, 3, 8, 8).to(dtype)})
    assert keypoints.dtype == scores.dtype == torch.float32


def test_zero_crops_and_zero_keypoints_are_accepted():
    codec = MSRACodec()
    for shape in ((0, 17), (3, 0)):
        keypoints, scores = codec.decode({"heatmaps": torch.zeros(*shape, 64, 48)})
        assert keypoints.shape == (*shape, 2)
        assert scores.shape == shape
        targets, weights = codec.encode(torch.zeros(*shape, 2), torch.zeros(shape))
        assert targets.shape == (*shape, 64, 48)
        assert weights.shape == shape
    empty = {"heatmaps": torch.zeros(0, 17, 64, 48)}
    merged = codec.merge_flipped(empty, empty, COCO17.flip_permutation)
    assert merged["heatmaps"].shape == (0, 17, 64, 48)


@pytest.mark.parametrize("shape", [(1, 17, 48, 64), (1, 17, 64, 47), (17, 64, 48), (1, 1, 17, 64, 48), (0, 17, 32, 24)])
def test_heatmaps_of_another_size_are_rejected(shape):
    with pytest.raises(ValueError, match=r"\(N, K, 64, 48\)"):
        MSRACodec().decode({"heatmaps": torch.zeros(shape)})


@pytest.mark.parametrize("codec", [MSRACodec((32, 32)), UnbiasedCodec((32, 32))])
def test_a_heatmap_with_nan_has_a_nan_score(codec):
    heatmaps = torch.rand(2, 3, 8, 8)
    heatmaps[1, 2, 4, 7] = float("nan")
    _, scores = codec.decode({"heatmaps": heatmaps})
    assert scores.isnan().nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("input_size", [(190, 256), (192, 0), (-32, 32), (192,), (192, 256, 3)])
def test_invalid_sizes_are_rejected(input_size):
    with pytest.raises(ValueError, match="divisible by 32"):
        MSRACodec(input_size)


@pytest.mark.parametrize("sigma", [0, -1, float("nan")])
def test_invalid_sigmas_are_rejected(sigma):
    with pytest.raises(ValueError, match="sigma"):
        MSRACodec(sigma=sigma)


def merge_flipped(codec: HeatmapCodec, heatmaps: Tensor, flipped: Tensor) -> Tensor:
    """Merges the heatmaps of crops with those of the flipped crops."""
    merged = codec.merge_flipped({"heatmaps": heatmaps}, {"heatmaps": flipped}, COCO17.flip_permutation)
    assert list(merged) == ["heatmaps"]
    return merged["heatmaps"]


def flipped_pair(
    codec: HeatmapCodec, render: Callable[[HeatmapCodec, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints in crop pixels, their heatmaps, and the heatmaps of the flipped crop with left and right exchanged."""
    rng = np.random.default_rng(0)
    width, height = codec.input_size
    points = torch.tensor(rng.uniform([50, 50], [width - 50, height - 50], size=(17, 2)))
    flipped_points = torch.stack([width - 1 - points[:, 0], points[:, 1]], dim=1)[list(COCO17.flip_permutation)]
    return points, render(codec, points), render(codec, flipped_points)


def test_merged_heatmaps_of_the_flipped_crop_are_a_quarter_pixel_off():
    codec = MSRACodec()
    points, heatmaps, flipped = flipped_pair(codec, gaussian)
    np.testing.assert_allclose(centroids(heatmaps), points / 4, atol=1e-3)
    # without the shift, (W - 1 - x) / 4 is 0.75 heatmap pixels to the left of x / 4
    unshifted = centroids(flipped.flip(-1)[:, list(COCO17.flip_permutation)]) - points / 4
    np.testing.assert_allclose(unshifted, np.tile([-0.75, 0], (17, 1)), atol=1e-3)
    mean = merge_flipped(codec, torch.zeros_like(heatmaps), flipped)
    np.testing.assert_allclose(centroids(mean) - points / 4, np.tile([0.25, 0], (17, 1)), atol=1e-3)
    both = merge_flipped(codec, heatmaps, flipped)
    np.testing.assert_allclose(both, heatmaps / 2 + mean, atol=1e-12)


def test_merged_heatmaps_decode_to_the_keypoints():
    codec = MSRACodec()
    points, heatmaps, flipped = flipped_pair(codec, gaussian)
    keypoints, _ = codec.decode({"heatmaps": merge_flipped(codec, heatmaps, flipped)})
    # the peak is 0.125 heatmap pixels off in x; decoding with the quarter offset is within 0.25 pixels of the peak
    assert ((keypoints[0] - points)[:, 0].abs() <= 4 * (0.25 + 0.125) + 1e-5).all()
    assert ((keypoints[0] - points)[:, 1].abs() <= 4 * 0.25 + 1e-5).all()


def test_the_column_without_a_left_neighbor_keeps_its_own_value():
    flipped = torch.arange(8.0).flip(0).expand(1, 1, 8, 8)
    merged = MSRACodec((32, 32)).merge_flipped({"heatmaps": torch.zeros(1, 1, 8, 8)}, {"heatmaps": flipped}, [0])
    assert (merged["heatmaps"][0, 0] * 2).tolist() == [[0, 0, 1, 2, 3, 4, 5, 6]] * 8


UNBIASED = st.sampled_from(
    [UnbiasedCodec(), UnbiasedCodec((64, 96)), UnbiasedCodec((96, 128)), UnbiasedCodec((96, 64), sigma=1.7)]
)


@given(UNBIASED, st.data())
@settings(max_examples=100, deadline=None)
def test_unbiased_targets_decode_to_their_keypoints(codec, data):
    """The error is below 0.04 crop pixels where the correlated targets are complete, and below 0.2 near the border."""
    margin = 9.0
    point = [data.draw(st.floats(margin, side - 1 - margin)) for side in codec.input_size]
    reach = 4 * 2 * (3 * codec.target_sigma + 1)
    complete = all(reach <= x <= side - 1 - reach for x, side in zip(point, codec.input_size, strict=True))
    target, weight = codec.encode(torch.tensor([[point]]), torch.ones(1, 1))
    keypoints, _ = codec.decode({"heatmaps": target})
    assert weight.item() == 1
    assert keypoints[0, 0].tolist() == pytest.approx(point, abs=0.04 if complete else 0.2)


def match_by_loops(codec: HeatmapCodec, heatmap: np.ndarray) -> np.ndarray:
    """<H, T_c> / (|T_c| |T|), pixel by pixel."""
    height, width = heatmap.shape
    radius = max(1, int(3 * codec.target_sigma))

    def target(around_row: int, around_column: int, height: int, width: int) -> np.ndarray:
        rows, columns = np.mgrid[:height, :width]
        dy, dx = rows - around_row, columns - around_column
        gaussian = np.exp(-(dx**2 + dy**2) / (2 * codec.target_sigma**2))
        return gaussian * (abs(dx) <= radius) * (abs(dy) <= radius)

    full_norm = np.linalg.norm(target(radius, radius, 2 * radius + 1, 2 * radius + 1))
    matches = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            clipped = target(row, column, height, width)
            matches[row, column] = (heatmap * clipped).sum() / (np.linalg.norm(clipped) * full_norm)
    return matches


@pytest.mark.parametrize("codec", [UnbiasedCodec((64, 96)), UnbiasedCodec((64, 64), sigma=1.7)])
def test_unbiased_keypoints_are_at_the_best_match_of_a_target(codec: UnbiasedCodec) -> None:
    width, height = codec.heatmap_size
    heatmaps = torch.rand(1, 8, height, width, generator=torch.Generator().manual_seed(0))
    keypoints, scores = codec.decode({"heatmaps": heatmaps})
    for index in range(8):
        matches = match_by_loops(codec, heatmaps[0, index].double().numpy())
        row, column = np.unravel_index(matches.argmax(), matches.shape)
        assert scores[0, index].item() == pytest.approx(matches.max(), rel=1e-5)
        pixel = keypoints[0, index] / keypoints.new_tensor(
            [(4 * width - 1) / (width - 1), (4 * height - 1) / (height - 1)]
        )
        assert abs(pixel[0] - column) <= 1
        assert abs(pixel[1] - row) <= 1


def test_unbiased_decoding_prefers_a_broad_peak_to_a_single_higher_pixel() -> None:
    codec = UnbiasedCodec()
    heatmaps, _ = codec.encode(torch.tensor([[[120.0, 180.0]]]), torch.ones(1, 1))
    heatmaps = 0.4 * heatmaps
    heatmaps[0, 0, 10, 12] = 0.5
    keypoints, scores = codec.decode({"heatmaps": heatmaps})
    assert keypoints[0, 0].tolist() == pytest.approx([120, 180], abs=0.1)
    assert scores.item() == pytest.approx(0.4, abs=0.02)


def test_an_unbiased_target_is_a_gaussian_around_the_unrounded_keypoint():
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


def test_unbiased_decoding_has_an_offset_only_where_the_logarithm_has_a_vertex():
    codec = UnbiasedCodec((32, 32))
    heatmaps = torch.zeros(1, 3, 8, 8)
    heatmaps[0, 0, 0, 3] = 1.0  # at the border
    heatmaps[0, 1, 4, 4] = 1.0  # a single pixel: the vertex is its center
    heatmaps[0, 2, 4] = -1.0  # nothing positive
    keypoints, scores = codec.decode({"heatmaps": heatmaps})
    pixels = 31 / 7
    assert keypoints[0, 0].tolist() == pytest.approx([3 * pixels, 0])
    assert keypoints[0, 1].tolist() == pytest.approx([4 * pixels, 4 * pixels])
    assert torch.isfinite(keypoints).all()
    assert scores[0].tolist() == pytest.approx([1, 1, 0])


def elongated_gaussian(codec: HeatmapCodec, center: np.ndarray, long: float, degrees: float) -> Tensor:
    """A heatmap (1, 1, h, w) with a Gaussian of standard deviations `long` and 1.5 pixels, the first at an angle."""
    width, height = codec.heatmap_size
    rows, columns = np.mgrid[:height, :width]
    dx, dy = columns - center[0], rows - center[1]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    return torch.from_numpy(np.exp(-(along**2) / (2 * long**2) - across**2 / (2 * 1.5**2)))[None, None]


@pytest.mark.parametrize("degrees", [45, -45, 20])
def test_the_center_of_an_oblique_gaussian_is_decoded_exactly(degrees: float) -> None:
    """A Gaussian correlated with a target is a Gaussian, and the logarithm of this one has a mixed derivative."""
    codec = UnbiasedCodec()
    for center in np.random.default_rng(0).uniform(20, [28, 44], (10, 2)):
        keypoints, _ = codec.decode({"heatmaps": elongated_gaussian(codec, center, 4, degrees)})
        np.testing.assert_allclose(keypoints[0, 0], center * [191 / 47, 255 / 63], atol=0.005)


def test_an_unbiased_offset_is_at_most_one_heatmap_pixel() -> None:
    """The highest pixel of a long ridge may be several pixels from its center."""
    codec, center = UnbiasedCodec((96, 128), sigma=2), np.array([10.2, 15.3])
    heatmap = elongated_gaussian(codec, center, 40, 22)
    matches = match_by_loops(codec, heatmap[0, 0].numpy())
    peak = np.array(np.unravel_index(matches.argmax(), matches.shape))[::-1]
    assert abs(center - peak)[0] > 1.5
    keypoints, _ = codec.decode({"heatmaps": heatmap})
    offset = keypoints[0, 0].numpy() / [95 / 23, 127 / 31] - peak
    assert abs(offset[0]) == pytest.approx(1, abs=1e-4)
    assert abs(offset[1]) <= 1 + 1e-4


def flip_error(training: HeatmapCodec, testing: HeatmapCodec) -> float:
    """The mean error in crop pixels of decoding targets of crops merged with those of the flipped crops."""
    width, height = training.input_size
    generator = torch.Generator().manual_seed(0)
    keypoints = 30 + torch.rand(64, 17, 2, generator=generator) * torch.tensor([width - 60.0, height - 60.0])
    permutation = list(COCO17.flip_permutation)
    flipped = keypoints[:, permutation].clone()
    flipped[..., 0] = width - 1 - flipped[..., 0]
    labeled = torch.ones(64, 17)
    heatmaps, _ = training.encode(keypoints, labeled)
    of_flipped, _ = training.encode(flipped, labeled)
    decoded, _ = testing.decode({"heatmaps": merge_flipped(testing, heatmaps, of_flipped)})
    return float((decoded - keypoints).abs().mean())


def test_decoding_with_the_other_codec_increases_the_error():
    msra, unbiased = MSRACodec(), UnbiasedCodec()
    assert flip_error(unbiased, unbiased) < 0.002
    assert flip_error(msra, msra) < 0.9
    assert flip_error(unbiased, msra) > 1.1
    assert flip_error(msra, unbiased) > 1.1


def test_each_codec_has_its_name_and_its_flip_shift():
    assert [(codec.name, codec.flip_shift) for codec in (MSRACodec(), UnbiasedCodec())] == [
        ("msra", 1),
        ("unbiased", 0),
    ]
    assert {"msra", "unbiased"} <= set(list_codecs())
    assert list_codecs() == sorted(list_codecs())
    assert type(create_codec("msra", (64, 96))) is MSRACodec
    assert create_codec("unbiased", (64, 96), 1.5) == UnbiasedCodec((64, 96), 1.5)


@pytest.mark.parametrize(
    ("name", "nearest"), [("unbias", "'unbiased'"), ("MSRA", "msra"), ("udp", "unbiased"), (None, "None")]
)
def test_unknown_codecs_are_rejected_with_the_nearest_name(name, nearest):
    with pytest.raises(ValueError, match=nearest) as caught:
        create_codec(name, (64, 96))
    assert repr(name) in str(caught.value)
    assert "imports" in str(caught.value)


def test_only_subclasses_of_codec_are_registered():
    for value in (int, MSRACodec(), "msra"):
        with pytest.raises(TypeError, match=r"posedy\.Codec"):
            register_codec("invalid")(value)
    assert "invalid" not in list_codecs()


def own_decode(codec: MSRACodec, outputs: Outputs) -> tuple[Tensor, Tensor]:
    return MSRACodec.decode(codec, {"heatmaps": outputs["maps"]})


def own_merge_flipped(codec: MSRACodec, outputs: Outputs, *_: object) -> dict[str, Tensor]:
    return dict(outputs)


@pytest.mark.parametrize(
    ("names", "methods", "inherited"),
    [
        (("maps",), {}, ["decode", "merge_flipped"]),
        (("maps",), {"decode": own_decode}, ["merge_flipped"]),
        (("maps",), {"merge_flipped": own_merge_flipped}, ["decode"]),
        (("heatmaps", "offsets"), {}, ["merge_flipped"]),
        (("maps",), {"decode": own_decode, "merge_flipped": own_merge_flipped}, []),
        (("heatmaps", "offsets"), {"merge_flipped": own_merge_flipped}, []),
    ],
)
def test_heatmap_codecs_with_other_outputs_override_the_methods_that_read_them(names, methods, inherited, monkeypatch):
    monkeypatch.setattr("posedy.codecs.base._CODECS", {})
    codec = type("Other", (MSRACodec,), {"output_names": names, **methods})
    if not inherited:
        register_codec("other")(codec)
        assert list_codecs() == ["other"]
        return
    with pytest.raises(TypeError, match="output_names of Other") as caught:
        register_codec("other")(codec)
    advice = str(caught.value).rpartition("override ")[2]
    assert advice.split(" and ") == inherited
    assert not list_codecs()


def test_heatmap_codecs_have_no_loss_of_their_own():
    outputs = {"heatmaps": torch.zeros(1, 17, 64, 48)}
    assert Codec.output_names == ("heatmaps",)
    for codec in (MSRACodec(), UnbiasedCodec()):
        assert not codec.has_loss
        with pytest.raises(NotImplementedError, match=codec.name):
            codec.loss(outputs, outputs["heatmaps"], torch.ones(1, 17))


@pytest.mark.parametrize("codec_name", ["msra", "unbiased"])
@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.34, 2.0])
def test_keypoints_with_a_weight_have_a_target_for_any_sigma(codec_name: str, sigma: float) -> None:
    codec = create_codec(codec_name, (96, 128), sigma)
    keypoints = torch.rand(50, 17, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([95.0, 127.0])
    targets, weights = codec.encode(keypoints, torch.ones(50, 17))
    peaks = targets.flatten(2).max(dim=-1).values
    assert (weights == 1).float().mean() > 0.9
    assert (peaks[weights == 1] > 0).all()


@pytest.mark.parametrize("name", list_codecs())
def test_an_empty_batch_is_encoded_merged_and_decoded(name: str) -> None:
    codec = create_codec(name, (64, 96))
    targets, weights = codec.encode(torch.zeros(0, 17, 2), torch.zeros(0, 17))
    assert targets.shape[:2] == weights.shape == (0, 17)
    shapes = {"heatmaps": (24, 16), "x_logits": (128,), "y_logits": (192,)}
    outputs = {output: torch.zeros(0, 17, *shapes[output]) for output in codec.output_names}
    merged = codec.merge_flipped(outputs, outputs, COCO17.flip_permutation)
    assert {output: tensor.shape for output, tensor in merged.items()} == {k: v.shape for k, v in outputs.items()}
    keypoints, scores = codec.decode(merged)
    assert (keypoints.shape, scores.shape) == ((0, 17, 2), (0, 17))
    assert codec.soft_targets(outputs).shape == targets.shape
    if codec.has_loss:
        assert codec.loss(outputs, targets, weights) == 0

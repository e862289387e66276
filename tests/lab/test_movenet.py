"""MoveNet's decoding against loops, and the conversion of its weights."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.skeleton import COCO17
from tools.lab.movenet.conversion import calibrate_norms, convert_movenet
from tools.lab.movenet.network import MoveNet, _unflip, decode, load_movenet


def random_maps(N: int, h: int, w: int, K: int = 17) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    heat, center = (torch.rand(N, c, h, w, generator=generator, dtype=torch.float64) for c in (K, 1))
    regress, offset = (
        scale * torch.randn(N, K, 2, h, w, generator=generator, dtype=torch.float64) for scale in (3, 0.5)
    )
    return [heat, center, regress, offset]


def decode_one(heat: Tensor, center: Tensor, regress: Tensor, offset: Tensor) -> list[tuple[float, float, float]]:
    """Decode one image with loops over pixels."""
    K, h, w = heat.shape
    pixels = [(y, x) for y in range(h) for x in range(w)]
    cy, cx = max(pixels, key=lambda c: float(center[0, c[0], c[1]]) / (math.hypot(c[0] - h // 2, c[1] - w // 2) + 1.8))
    keypoints = []
    for k in range(K):
        ry, rx = cy + float(regress[k, 0, cy, cx]), cx + float(regress[k, 1, cy, cx])
        y, x = max(pixels, key=lambda c: float(heat[k, c[0], c[1]]) / (math.hypot(c[0] - ry, c[1] - rx) + 1.8))
        dy, dx = (float(offset[k, axis, y, x]) for axis in (0, 1))
        keypoints.append((4 * (x + dx) - 0.5, 4 * (y + dy) - 0.5, float(heat[k, y, x])))
    return keypoints


def test_decoding_equals_loops() -> None:
    maps = random_maps(3, 8, 6)
    keypoints, scores = decode(*maps)
    decoded = torch.cat([keypoints, scores[..., None]], dim=-1)
    expected = [decode_one(*(m[index] for m in maps)) for index in range(3)]
    torch.testing.assert_close(decoded, torch.tensor(expected, dtype=torch.float64))


def test_unflipped_maps_decode_to_flipped_keypoints() -> None:
    """Keypoints decoded from unflipped maps are flipped: x' = W - 1 - x, with left and right swapped."""
    h, w = 8, 6
    maps = random_maps(2, h, w)
    # one high peak per keypoint, because the distance weights use pixel corners, which a flip does not preserve
    highest = maps[0].flatten(2).argmax(dim=-1)
    maps[0] = maps[0] * 1e-3 + torch.nn.functional.one_hot(highest, h * w).unflatten(-1, (h, w))
    keypoints, scores = decode(*maps)
    permutation = COCO17.flip_permutation
    flipped = _unflip(maps, permutation)
    for one, other in zip(_unflip(flipped, permutation), maps, strict=True):
        torch.testing.assert_close(one, other)
    flipped_keypoints, flipped_scores = decode(*flipped)
    expected = keypoints[:, list(permutation)]
    expected[..., 0] = 4 * w - 1 - expected[..., 0]
    torch.testing.assert_close(flipped_keypoints, expected)
    torch.testing.assert_close(flipped_scores, scores[:, list(permutation)])


@pytest.fixture(scope="module")
def movenet() -> MoveNet:
    """MoveNet with random weights and norms that are identities with shifts, as in its file."""
    torch.manual_seed(0)
    net = MoveNet("lightning").eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1)
                module.bias.normal_(0.5, 0.5)
                module.running_var.fill_(1 - module.eps)
        net.pose_net.head.heatmap.weight.normal_(0, 0.2)
    return net


@pytest.fixture(scope="module")
def crops() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 256, 192, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def converted(movenet: MoveNet, crops: Tensor) -> PoseNet:
    return convert_movenet(movenet, "linear", normalize_crops(crops))


@pytest.mark.slow
@torch.no_grad()
def test_converted_network_has_movenets_heatmaps_except_at_the_border(
    movenet: MoveNet, converted: PoseNet, crops: Tensor
) -> None:
    """The stem differs in its last row and column, where zero padding means another gray value."""
    images = crops.permute(0, 3, 1, 2).float() * (2 / 255) - 1
    expected_stem = movenet.pose_net.backbone.stem(images)
    stem = converted.backbone.stem(normalize_crops(crops))
    torch.testing.assert_close(stem[..., :-1, :-1], expected_stem[..., :-1, :-1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(stem[..., -1], expected_stem[..., -1], rtol=1e-3, atol=1e-3)
    expected, heatmaps = movenet.pose_net(images), converted(normalize_crops(crops))
    assert float((heatmaps - expected).abs().mean() / expected.abs().mean()) < 0.05
    hook = converted.backbone.stem.register_forward_hook(lambda module, inputs, output: expected_stem)
    try:
        torch.testing.assert_close(converted(images), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    finally:
        hook.remove()
    assert (converted.options["padding"], converted.codec.name, converted.input_size) == (
        "tensorflow",
        "unbiased",
        (192, 256),
    )


@torch.no_grad()
def test_calibrated_norms_compute_the_same_in_training_mode(
    movenet: MoveNet, converted: PoseNet, crops: Tensor
) -> None:
    images = normalize_crops(crops)
    before = converted(images)
    training = converted.train()(images)
    converted.eval()
    # training mode uses the biased variance, which is smaller by 1 / 384 at stride 32
    torch.testing.assert_close(training, before, rtol=0, atol=3e-3 * float(before.abs().max()))
    with pytest.raises(ValueError, match="evaluation mode"):
        calibrate_norms(nn.Sequential(nn.BatchNorm2d(3)).train(), images)


@torch.no_grad()
def test_calibration_preserves_the_output_of_a_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = 5 * torch.randn(4, 3, 5, 6) + 2
    expected = norm(x)
    calibrate_norms(nn.Sequential(norm).eval(), x)
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, x.var(dim=(0, 2, 3)))


def test_other_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nanodet\.json"):
        load_movenet(tmp_path / "nanodet.json")
    path = tmp_path / "movenet-thunder.json"
    path.write_text(json.dumps({"weightsManifest": []}))
    with pytest.raises(ValueError, match=r"movenet-thunder\.json"):
        load_movenet(path)

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from posedy.models.backbones.mobilenetv2 import MobileNetV2
from posedy.models.blocks import DynamicConvFactory
from tools.lab.narrowing import narrow

pytestmark = pytest.mark.slow


def trained_network(width: float) -> MobileNetV2:
    """Return a network with low-rank kernels, as after training, and batch norm statistics of IMAGES."""
    generator = torch.Generator().manual_seed(0)
    net = MobileNetV2(width)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.5, generator=generator)
            layer.bias.data.normal_(0, 0.3, generator=generator)
        elif isinstance(layer, nn.Conv2d):
            outputs, inputs = layer.weight.shape[:2]
            rank = max(1, min(outputs, inputs) // 3)
            left = torch.randn(outputs, rank, generator=generator)
            right = torch.randn(rank, layer.weight[0].numel(), generator=generator)
            layer.weight.data = (left @ right).reshape(layer.weight.shape) / math.sqrt(rank * layer.weight[0].numel())
    with torch.no_grad():
        for _ in range(30):
            net.train()(IMAGES)
    return net.eval()


def smooth_images() -> Tensor:
    coarse = torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")


IMAGES = smooth_images()


@pytest.fixture(scope="module")
def wide() -> MobileNetV2:
    return trained_network(0.5)


def test_narrowing_to_full_width_keeps_the_network(wide: MobileNetV2) -> None:
    same = MobileNetV2(0.5)
    assert narrow(wide, same, IMAGES) < 1e-3
    with torch.no_grad():
        expected, found = wide(IMAGES), same(IMAGES)
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_wider_networks_lose_less_variance(wide: MobileNetV2) -> None:
    lost = [narrow(wide, MobileNetV2(width), IMAGES) for width in (0.35, 0.4, 0.5)]
    assert all(narrower > wider for narrower, wider in itertools.pairwise(lost))
    assert lost[0] < 0.5


def test_training_mode_computes_nearly_the_same_as_evaluation_mode(wide: MobileNetV2) -> None:
    slim = MobileNetV2(0.35)
    narrow(wide, slim, IMAGES)
    with torch.no_grad():
        evaluated, trained = slim.eval()(IMAGES), slim.train()(IMAGES)
    assert (trained - evaluated).abs().mean() < 0.1 * evaluated.abs().mean()


def test_maps_between_blocks_have_small_means(wide: MobileNetV2) -> None:
    slim = MobileNetV2(0.35)
    narrow(wide, slim, IMAGES)
    with torch.no_grad():
        x = slim.eval().stem(IMAGES)
        for block in slim.blocks:
            x = block(x)
            channels = x.transpose(0, 1).flatten(1)
            assert (channels.mean(dim=1).abs() < 0.1 * channels.std(dim=1).max()).all()


def test_wide_network_is_unchanged(wide: MobileNetV2) -> None:
    before = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    narrow(wide, MobileNetV2(0.35), IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in wide.state_dict().items())


def test_wider_deeper_and_dynamic_networks_are_rejected(wide: MobileNetV2) -> None:
    with pytest.raises(ValueError, match=r"stem\.0\.weight.*\(16, 3, 3, 3\).*\(24, 3, 3, 3\)"):
        narrow(wide, MobileNetV2(0.75), IMAGES)
    for other in (MobileNetV2(0.35, depth=2), MobileNetV2(0.35, DynamicConvFactory())):
        with pytest.raises(ValueError, match="same depth"):
            narrow(wide, other, IMAGES)

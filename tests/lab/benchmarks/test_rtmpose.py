"""The networks of the benchmark of peers have the sizes that their authors publish."""

import pytest
import torch

from posedy.models.complexity import measure
from tools.lab.benchmarks.peer_networks import create_network
from tools.lab.benchmarks.rtmpose import VARIANTS, RTMPose

TOLERANCE = 0.03  # published numbers have two or three digits
PUBLISHED = {
    # million parameters, billion multiply-adds (MMPose's GFLOPs)
    "RTMPose-t": (3.34, 0.36),
    "RTMPose-s": (5.47, 0.68),
    "MobileNetV2 + deconv": (9.57, 1.59),
    "SimpleBaseline-R50": (34.0, 5.46),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.endswith("R50") else ()) for name in PUBLISHED]
)
def test_sizes_are_the_published_ones(name: str) -> None:
    net, (width, height) = create_network(name)
    complexity = measure(net, (3, height, width))
    parameters, madds = PUBLISHED[name]
    assert complexity.parameters / 1e6 == pytest.approx(parameters, rel=TOLERANCE)
    assert complexity.madds / 1e9 == pytest.approx(madds, rel=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_rtmpose_has_logits_of_half_pixels(variant: str) -> None:
    x, y = RTMPose(variant, num_keypoints=5, input_size=(64, 96)).eval()(torch.zeros(2, 3, 96, 64))  # type: ignore[arg-type]
    assert x.shape == (2, 5, 128)
    assert y.shape == (2, 5, 192)


@torch.no_grad()
def test_features_of_random_weights_do_not_vanish() -> None:
    """The attention squares products of its queries and keys, which would be denormal, and slow, for tiny features."""
    net, (width, height) = create_network("RTMPose-t")
    stds: list[float] = []
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(lambda module, inputs, output: stds.append(output.std().item()))
    net(torch.randn(1, 3, height, width))
    assert min(stds) > 1e-3

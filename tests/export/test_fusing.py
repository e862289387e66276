"""A fused network computes what it was made of."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posedy.export.fuse import FusedDynamicConv2d, fuse
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.registry import create_backbone, create_model, list_models

# in float64: with sharp attention in many layers an input that is off by 1e-15 moves the output by 5e-6
X = torch.randn(8, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def assert_equal(net: nn.Module, fused: nn.Module, x: Tensor, tolerance: float = 1e-4) -> None:
    with torch.no_grad():
        expected, found = net(x), fused(x)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


def check(name: str, perturb, **options: Any) -> None:
    net = perturb(create_model(name, 3, **options).double(), X)
    fused = fuse(net)
    for N in (1, 2, 5):
        assert_equal(net, fused, X[:N])
    assert_equal(net, fused, X[:2].contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize(
    "name",
    [
        *("mobilenetv2_035-dy_bneck", "dy_mobilenetv3_small-deconv", "dy_resnet10-dy_fpn"),
    ],
)
def test_fused_equals_unfused(name: str, perturb) -> None:
    check(name, perturb)


@pytest.mark.parametrize("name", ["dy_mobilenetv2_035-fpn"])
def test_tensorflows_padding_is_kept(name: str, perturb) -> None:
    check(name, perturb, padding="tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_fused_equals_unfused_for_all_networks(name: str, perturb) -> None:
    check(name, perturb)


def test_a_classifier_and_partly_dynamic_blocks_are_fused_too(perturb) -> None:
    for options in ({"num_classes": 10}, {"dynamic_layers": ["depthwise"]}, {"dynamic_layers": ["project"]}):
        net = perturb(create_backbone("dy_mobilenetv2_035", **options).double(), X)
        assert_equal(net, fuse(net), X[:3])


def test_the_network_given_is_left_alone_and_the_copy_has_nothing_left_of_it(perturb) -> None:
    net = perturb(create_model("dy_mobilenetv2_035-fpn", 3).double(), X)
    before, expected = copy.deepcopy(net.state_dict()), net(X[:1]).detach()
    fused = fuse(net)
    dynamic = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    assert len([layer for layer in fused.modules() if isinstance(layer, FusedDynamicConv2d)]) == len(dynamic)
    assert not any(isinstance(layer, DynamicConv2d | nn.BatchNorm2d) for layer in fused.modules())
    for tensor in (*fused.parameters(), *fused.buffers()):
        assert not tensor.requires_grad
        tensor.zero_()
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())
    torch.testing.assert_close(net(X[:1]), expected)
    assert fused.name == net.name


def test_float32_is_as_close_as_its_rounding_allows() -> None:
    """With the attention that a network begins with, which makes nothing of rounding."""
    net = create_model("dy_mobilenetv2_050-dy_bneck", 3).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 1.5)
    for N in (1, 3):
        assert_equal(net, fuse(net), X[:N].float(), 1e-5)


def test_a_sigmoid_and_a_convolution_alone_are_no_hindrance() -> None:
    for net in (
        create_backbone("dy_mobilenetv2_035", attention="sigmoid").double().eval(),
        nn.Sequential(DynamicConv2d(3, 4, 3, bias=False), nn.ReLU()).double(),
    ):
        assert_equal(net, fuse(net), X[:2])


def test_only_a_softmax_of_temperature_1_is_taken() -> None:
    for options in ({"temperature": 30.0}, {"attention": "sigmoid"}):
        with pytest.raises(ValueError, match="a softmax of temperature 1 as attention"):
            FusedDynamicConv2d(DynamicConv2d(3, 4, 1, **options))

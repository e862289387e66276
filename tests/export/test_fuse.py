"""Fused networks equal the networks that they are made from."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posedy.export.fuse import FusedDynamicConv2d, fuse
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.factory import create_backbone, create_model
from posedy.models.pose_net import name_outputs
from posedy.models.registry import list_models

# float64, because sharp attention in many layers turns an input difference of 1e-15 into 5e-6 at the output
X = torch.randn(8, 3, 32, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SHALLOW = {"depth": 0.34}  # 7 blocks instead of 17


def assert_equal(net: nn.Module, fused: nn.Module, x: Tensor, tolerance: float = 1e-4) -> None:
    with torch.no_grad():
        expected, actual = net(x), fused(x)
    pairs = [(actual, expected)] if isinstance(expected, Tensor) else zip(actual, expected, strict=True)
    for output, wanted in pairs:
        assert output.shape == wanted.shape
        assert float((output - wanted).abs().max() / wanted.abs().max()) < tolerance


def check_fused_network(name: str, perturb, **options: Any) -> None:
    net = perturb(create_model(name, num_keypoints=3, input_size=(64, 32), **options).double(), X)
    fused = fuse(net)
    for N in (1, 2, 5):
        assert_equal(net, fused, X[:N])
    assert_equal(net, fused, X[:2].contiguous(memory_format=torch.channels_last))
    empty, one = (name_outputs(fused(X[:N]), net.codec).values() for N in (0, 1))
    assert [output.shape for output in empty] == [(0, *output.shape[1:]) for output in one]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenetv2_035-dy_bneck", {"attention": "normalized", **SHALLOW}),
        pytest.param("mobilenetv2_035-dy_bneck", SHALLOW, marks=pytest.mark.slow),
        pytest.param("dy_mobilenetv3_small-deconv", {}, marks=pytest.mark.slow),
        pytest.param("dy_resnet10-dy_fpn", {}, marks=pytest.mark.slow),
        pytest.param("dy_mobilenetv2_035-fpn", {"padding": "tensorflow", **SHALLOW}, marks=pytest.mark.slow),
        pytest.param("dy_mobilenetv2_035-simcc", SHALLOW, marks=pytest.mark.slow),
    ],
)
def test_fused_network_equals_original(name: str, options: dict[str, Any], perturb) -> None:
    check_fused_network(name, perturb, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_fused_network_equals_original_for_all_models(name: str, perturb) -> None:
    check_fused_network(name, perturb)


def test_classifier_and_partly_dynamic_blocks_are_fused(perturb) -> None:
    for options in ({"num_classes": 10}, {"dynamic_layers": ["depthwise"]}, {"dynamic_layers": ["project"]}):
        net = perturb(create_backbone("dy_mobilenetv2_035", depth=0.34, **options).double(), X)
        assert_equal(net, fuse(net), X[:3])


def test_fuse_returns_an_independent_copy(perturb) -> None:
    net = perturb(create_model("dy_mobilenetv2_035-fpn", num_keypoints=3, **SHALLOW).double(), X)
    before, expected = copy.deepcopy(net.state_dict()), net(X[:1]).detach()
    fused = fuse(net)
    dynamic = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    assert len([layer for layer in fused.modules() if isinstance(layer, FusedDynamicConv2d)]) == len(dynamic)
    assert not any(isinstance(layer, DynamicConv2d | nn.BatchNorm2d) for layer in fused.modules())
    for tensor in (*fused.parameters(), *fused.buffers()):
        assert not tensor.requires_grad
        tensor.zero_()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    torch.testing.assert_close(net(X[:1]), expected)
    assert fused.name == net.name


@pytest.mark.slow
def test_float32_error_is_small() -> None:
    """The attention of a new network does not amplify rounding errors."""
    net = create_model("dy_mobilenetv2_050-dy_bneck", num_keypoints=3).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 1.5)
    for N in (1, 3):
        assert_equal(net, fuse(net), X[:N].float(), 1e-5)


def test_sigmoid_attention_and_convolution_without_norm_are_supported() -> None:
    for net in (
        create_backbone("dy_mobilenetv2_035", attention="sigmoid").double().eval(),
        nn.Sequential(DynamicConv2d(3, 4, 3, bias=False), nn.ReLU()).double(),
    ):
        assert_equal(net, fuse(net), X[:2])


class PreActivation(nn.Module):
    """Uses the input of an activation again, and a layer of a sequence by its index."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers[1](self.layers[0](x))
        return y + self.layers[2](y)


class Scaled(nn.Sequential):
    """A sequence that computes more than its layers."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + super().forward(x).sigmoid()


class StandardizedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, (self.weight - self.weight.mean()) / self.weight.std(), self.bias)


class NormAct(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


@pytest.mark.parametrize(
    "net",
    [
        PreActivation(),
        Scaled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(StandardizedConv(3, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4)),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4)),
        nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
    ],
    ids=["taps", "forward", "conv", "norm", "padding", "hook"],
)
def test_layers_of_others_keep_what_they_compute(net: nn.Module, perturb) -> None:
    net = perturb(net.double(), X)
    assert_equal(net, fuse(net), X[:3], 1e-10)


def test_hooks_are_kept(perturb) -> None:
    net = perturb(create_backbone("dy_mobilenetv2_035", depth=0.34).double(), X)
    for layer in (net.blocks[1].expand, net.blocks[2].expand[0], net.blocks[3].expand[0].attention):
        layer.register_forward_hook(lambda module, inputs, output: output + 1)
    assert_equal(net, fuse(net), X[:3], 1e-10)


def test_a_norm_of_the_batch_is_kept() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).double().eval()
    assert_equal(net, fuse(net), X[:3], 1e-10)


def test_fused_conv_rejects_other_attention() -> None:
    for options in ({"temperature": 30.0}, {"attention": "sigmoid"}):
        with pytest.raises(ValueError, match="temperature 1"):
            FusedDynamicConv2d(DynamicConv2d(3, 4, 1, **options))


DILATED_CASES = {
    "3x3": {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 2, "dilation": 2},
    "groups": {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "dilation": (1, 3), "groups": 2},
    "depthwise": {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 2, "dilation": 2, "groups": 4},
}


@pytest.mark.parametrize("case", DILATED_CASES.values(), ids=DILATED_CASES.keys())
def test_dilated_convolution_is_fused(case: dict[str, Any], perturb) -> None:
    x = torch.randn(5, 4, 11, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x += torch.randn(5, 4, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    conv = DynamicConv2d(**case, bias=False)
    net = perturb(nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()).double(), x)
    fused = fuse(net)
    assert isinstance(fused[0], FusedDynamicConv2d)
    for N in (1, 2, 5):
        assert_equal(net, fused, x[:N], 1e-10)
    assert fused(x[:0]).shape == (0, *fused(x[:1]).shape[1:])

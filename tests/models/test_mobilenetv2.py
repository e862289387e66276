import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from posedy.models.backbones.mobilenetv2 import MobileNetV2, make_divisible
from posedy.models.blocks import DynamicConvFactory
from posedy.models.dynamic_conv import DynamicConv2d

PARAMETERS = {
    0.35: (396_128, 1_405_612),
    0.5: (687_680, 2_665_334),
    0.75: (1_355_424, 5_731_118),
    1.0: (2_223_872, 9_868_736),
}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("width", PARAMETERS)
def test_parameter_counts(width):
    assert count(MobileNetV2(width)) == PARAMETERS[width][0]
    assert count(MobileNetV2(width, DynamicConvFactory())) == PARAMETERS[width][1]


@pytest.mark.parametrize("width", PARAMETERS)
def test_output_equals_torchvision(width, perturb):
    reference = torchvision.models.mobilenet_v2(width_mult=width).features
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    perturb(reference, x)
    net = MobileNetV2(width)
    state, reference_state = net.state_dict(), reference.state_dict()
    assert [tensor.shape for tensor in state.values()] == [tensor.shape for tensor in reference_state.values()]
    net.load_state_dict(dict(zip(state, reference_state.values(), strict=True)))
    y, expected = net.eval()(x), reference(x)
    assert y.shape == (2, 1280, 2, 3)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))


def test_dynamic_form_has_static_stem_and_last_layer():
    net = MobileNetV2(0.5, DynamicConvFactory())
    static = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in static] == [
        (3, 16, (3, 3)),
        (160, 1280, (1, 1)),
    ]
    # 17 blocks of expansion, depthwise and projection; the first has no expansion
    assert sum(isinstance(layer, DynamicConv2d) for layer in net.modules()) == 3 * 17 - 1


def test_dynamic_and_static_form_have_equal_layers():
    def conv_params(net: nn.Module) -> list[tuple]:
        return [
            (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.groups)
            for layer in net.modules()
            if isinstance(layer, nn.Conv2d | DynamicConv2d)
        ]

    assert conv_params(MobileNetV2(0.75, DynamicConvFactory())) == conv_params(MobileNetV2(0.75))


@given(st.floats(1, 5000), st.integers(1, 32))
def test_make_divisible_rounds_down_by_at_most_10_percent(channels, divisor):
    rounded = make_divisible(channels, divisor)
    assert rounded % divisor == 0
    assert rounded >= 0.9 * channels
    assert rounded <= max(channels + divisor, divisor)


@pytest.mark.parametrize(("channels", "rounded"), [(32 * 0.35, 16), (24 * 0.35, 8), (96 * 0.35, 32), (160 * 0.35, 56)])
def test_make_divisible_at_width_035(channels, rounded):
    assert make_divisible(channels) == rounded


@pytest.mark.parametrize(
    ("depth", "counts"),
    [(1.0, [1, 2, 3, 4, 3, 3, 1]), (0.7, [1, 1, 2, 3, 2, 2, 1]), (0.5, [1, 1, 2, 2, 2, 2, 1]), (0.1, [1] * 7)],
)
def test_depth_scales_the_blocks_of_each_stage(depth, counts):
    net = MobileNetV2(0.35, depth=depth).eval()
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1280, 2, 2)
    assert len(net.blocks) == sum(counts)

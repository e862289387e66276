import pytest
import torch
from torch import nn

from posedy.models.blocks import (
    ConvNormAct,
    DynamicConvFactory,
    InvertedResidual,
    conv_norm_act,
    init_weights,
    static_conv,
)
from posedy.models.dynamic_conv import DynamicConv2d

FACTORIES = pytest.mark.parametrize("conv", [static_conv, DynamicConvFactory(3, 7.0)], ids=["static", "dynamic"])


@FACTORIES
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize(("stride", "size"), [(1, (12, 10)), (2, (6, 5))])
def test_convolution_output_is_size_over_stride_without_bias(conv, kernel_size, stride, size):
    layer = conv(8, 4, kernel_size, stride, groups=2)
    assert layer(torch.randn(2, 8, 12, 10)).shape == (2, 4, *size)
    assert layer.bias is None


def test_dynamic_factory_passes_num_kernels_and_temperature():
    layer = DynamicConvFactory(num_kernels=3, temperature=7.0)(8, 4, 1)
    assert isinstance(layer, DynamicConv2d)
    assert layer.num_kernels == 3
    assert layer.attention.temperature == 7
    assert layer.attention.fc1.out_features == 2


def test_conv_norm_act_orders_its_layers():
    block = conv_norm_act(static_conv(3, 4, 1), 4, nn.ReLU6())
    assert [type(layer) for layer in block] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU6]
    assert [type(layer) for layer in conv_norm_act(static_conv(3, 4, 1), 4)] == [nn.Conv2d, nn.BatchNorm2d]


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6(), nn.Hardswish()])
@pytest.mark.parametrize("training", [True, False])
def test_conv_norm_act_equals_sequential(activation, training):
    block = conv_norm_act(static_conv(3, 4, 3, 2), 4, activation).train(training)
    assert isinstance(block, ConvNormAct)
    layers = [nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), *([] if activation is None else [activation])]
    sequential = nn.Sequential(*layers).train(training)
    assert list(block.state_dict()) == list(sequential.state_dict())
    sequential.load_state_dict(block.state_dict())
    x = torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(block(x), sequential(x), rtol=0, atol=0)
    for buffer, expected in zip(block.buffers(), sequential.buffers(), strict=True):
        assert torch.equal(buffer, expected)


@FACTORIES
@pytest.mark.parametrize(
    ("channels", "hidden", "out_channels", "stride", "residual"),
    [(8, 48, 8, 1, True), (8, 48, 8, 2, False), (8, 48, 12, 1, False), (8, 8, 8, 1, True), (8, 8, 12, 1, False)],
)
def test_inverted_residual_equals_its_equation(conv, channels, hidden, out_channels, stride, residual, perturb):
    block = InvertedResidual(channels, hidden, out_channels, 3, stride, conv)
    x = torch.randn(3, channels, 8, 6, generator=torch.Generator().manual_seed(0))
    perturb(block, x)
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d | DynamicConv2d)]
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == (2 if hidden == channels else 3)
    expected = x
    for index, (layer, norm) in enumerate(zip(convolutions, norms, strict=True)):
        expected = norm(layer(expected))
        if index < len(norms) - 1:
            expected = expected.clamp(0, 6)
    if residual:
        expected = expected + x
    torch.testing.assert_close(block(x), expected, rtol=1e-6, atol=1e-6)
    depthwise = convolutions[-2]
    assert depthwise.groups == depthwise.in_channels == hidden
    assert tuple(depthwise.stride) == (stride, stride)


@pytest.mark.parametrize("shape", [(64, 96, 1, 1), (64, 32, 3, 1), (256, 256, 3, 256)], ids=["1x1", "3x3", "depthwise"])
def test_init_weights_uses_the_fan_of_each_kernel(shape):
    torch.manual_seed(0)
    in_channels, out_channels, kernel_size, groups = shape
    static = static_conv(in_channels, out_channels, kernel_size, groups=groups)
    dynamic = DynamicConvFactory()(in_channels, out_channels, kernel_size, groups=groups)
    before = {name: tensor.clone() for name, tensor in dynamic.state_dict().items() if "attention" in name}
    init_weights(nn.ModuleList([static, dynamic]))
    for kernel in dynamic.weight:
        torch.testing.assert_close(kernel.std(), static.weight.std(), rtol=0.1, atol=0)
    assert (torch.corrcoef(dynamic.weight.detach().flatten(1)) - torch.eye(4)).abs().max() < 0.1
    for name, tensor in before.items():
        assert torch.equal(dynamic.state_dict()[name], tensor)


def test_init_weights_sets_biases_to_zero():
    layers = nn.ModuleList([nn.Conv2d(3, 4, 1), DynamicConv2d(3, 4, 1)])
    init_weights(layers)
    for layer in layers:
        assert not layer.bias.any()

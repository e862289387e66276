import pytest
import torch
from torch import nn

from posedy.models.backbones.resnet import BasicBlock, ResNet
from posedy.models.blocks import DynamicConvFactory, static_conv
from posedy.models.dynamic_conv import DynamicConv2d


@pytest.mark.parametrize(("in_channels", "out_channels", "stride"), [(8, 8, 1), (8, 12, 1), (8, 12, 2), (8, 8, 2)])
@pytest.mark.parametrize("conv", [static_conv, DynamicConvFactory(3)], ids=["static", "dynamic"])
def test_basic_block_equals_its_equation(conv, in_channels, out_channels, stride, perturb):
    block = BasicBlock(in_channels, out_channels, stride, conv)
    x = torch.randn(3, in_channels, 8, 6, generator=torch.Generator().manual_seed(0))
    perturb(block, x)
    y = block.conv1[1](block.conv1[0](x)).clamp(min=0)
    y = block.conv2[1](block.conv2[0](y))
    if stride == 1 and in_channels == out_channels:
        shortcut = x
    else:
        projection = block.shortcut[0]
        assert isinstance(projection, nn.Conv2d)
        shortcut = block.shortcut[1](projection(x))
    expected = (y + shortcut).clamp(min=0)
    assert expected.shape == (3, out_channels, 8 // stride, 6 // stride)
    torch.testing.assert_close(block(x), expected, rtol=1e-6, atol=1e-6)


def test_blocks_are_initialized_as_identity():
    block = ResNet((1, 1, 1, 1)).blocks[0].eval()
    x = torch.rand(2, 64, 8, 8)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)


def test_only_3x3_convolutions_are_dynamic():
    net = ResNet((2, 2, 2, 2), DynamicConvFactory())
    dynamic = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    static = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in dynamic] == [(3, 3)] * 16
    assert sorted(layer.kernel_size for layer in static) == [(1, 1)] * 3 + [(7, 7)]


def test_stages_halve_the_feature_map():
    net = ResNet((1, 1, 1, 1)).eval()
    sizes = []
    for block in net.blocks:
        block.register_forward_hook(lambda block, inputs, y: sizes.append(tuple(y.shape[1:])))
    assert net(torch.randn(1, 3, 64, 96)).shape == (1, 512, 2, 3)
    assert sizes == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]

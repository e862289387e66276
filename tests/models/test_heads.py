import pytest
import torch
from torch import nn

from posedy.models.blocks import DynamicConvFactory
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.heads import BneckHead, DeconvHead
from posedy.models.upsampling import BilinearUpsample

PARAMETERS = {1280: (1_208_081, 6_318_877), 576: (1_008_849, 4_871_101), 512: (990_737, 4_764_061)}
DECONV_PARAMETERS = {1280: 7_345_937, 576: 4_462_353, 512: 4_200_209}

# Table 9 for an 8x6 map of B channels: height of the output, kernel, input and output channels, groups
TABLE_9 = [
    *((16, 5, "B", "B", "B"), (16, 1, "B", 256, 1)),
    *((16, 1, 256, 768, 1), (16, 5, 768, 768, 768), (16, 1, 768, 256, 1)),
    *((32, 1, 256, 768, 1), (32, 5, 768, 768, 768), (32, 1, 768, 128, 1)),
    *((64, 1, 128, 384, 1), (64, 5, 384, 384, 384), (64, 1, 384, 128, 1)),
    (64, 1, 128, 17, 1),
]


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("channels", PARAMETERS)
def test_number_of_parameters(channels):
    assert count(BneckHead(channels, 17)) == PARAMETERS[channels][0]
    assert count(BneckHead(channels, 17, DynamicConvFactory())) == PARAMETERS[channels][1]
    assert count(DeconvHead(channels, 17)) == DECONV_PARAMETERS[channels]


@pytest.mark.parametrize("dynamic", [False, True])
def test_bneck_head_is_table_9(dynamic):
    channels = 64
    head = BneckHead(channels, 17, DynamicConvFactory()) if dynamic else BneckHead(channels, 17)
    seen = []
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d | DynamicConv2d):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, output.shape)))
    assert head(torch.randn(1, channels, 8, 6)).shape == (1, 17, 64, 48)
    rows = [
        (shape[2], layer.kernel_size[0], layer.in_channels, layer.out_channels, layer.groups) for layer, shape in seen
    ]
    assert rows == [tuple(channels if entry == "B" else entry for entry in row) for row in TABLE_9]
    assert all(shape[2] * 6 == shape[3] * 8 for _, shape in seen)
    assert [isinstance(layer, DynamicConv2d) for layer, _ in seen] == [dynamic] * 11 + [False]


def test_bneck_head_adds_the_input_where_channels_stay():
    head = BneckHead(64, 17)
    assert [block.is_residual for stage in head.stages for block in list(stage)[1:]] == [False, True, False, True]


def test_upsampling_is_bilinear_without_aligned_corners():
    head = BneckHead(8, 2)
    upsampled = head.stages[0][0](torch.tensor([[[[0.0, 4.0]]]]))
    torch.testing.assert_close(upsampled, torch.tensor([[[[0.0, 1.0, 3.0, 4.0]] * 2]]).reshape(1, 1, 2, 4))
    assert [type(stage[0]) for stage in head.stages] == [BilinearUpsample] * 3


def test_deconv_head_is_three_deconvolutions():
    head = DeconvHead(32, 5)
    assert [type(layer) for layer in head] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3 + [nn.Conv2d]
    for layer in list(head)[0:9:3]:
        assert layer.out_channels == 256
        assert layer.kernel_size == (4, 4)
        assert layer.bias is None
    assert head(torch.randn(2, 32, 2, 3)).shape == (2, 5, 16, 24)


@pytest.mark.parametrize("head", [DeconvHead(64, 17), BneckHead(64, 17), BneckHead(64, 17, DynamicConvFactory())])
def test_last_layers_start_near_zero(head):
    last = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)][-1]
    assert last.out_channels == 17
    assert last.bias is not None
    assert not last.bias.any()
    for layer in [last, *(layer for layer in head.modules() if isinstance(layer, nn.ConvTranspose2d))]:
        torch.testing.assert_close(layer.weight.std(), torch.tensor(0.001), rtol=0.1, atol=0)
        assert layer.weight.mean().abs() < 1e-4
        assert layer.weight.abs().max() > 0.0025  # normal, not uniform: sqrt(3) * 0.001 would be the end

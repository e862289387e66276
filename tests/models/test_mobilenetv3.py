import torch
from torch import nn

from posedy.models.backbones.mobilenetv3 import MobileNetV3Small
from posedy.models.blocks import DynamicConvFactory, SqueezeExcitation
from posedy.models.dynamic_conv import DynamicConv2d


def test_strides_equal_the_first_version():
    net = MobileNetV3Small().eval()
    sizes = []
    for block in net.blocks:
        block.register_forward_hook(lambda block, inputs, y: sizes.append(y.shape[-1]))
    assert net(torch.randn(1, 3, 224, 224)).shape == (1, 576, 7, 7)
    assert sizes == [56, 28, 28, 28, 14, 14, 14, 14, 7, 7, 7]


def test_activations_equal_the_paper():
    net = MobileNetV3Small()
    kinds = [type(block.depthwise[-1]) for block in net.blocks]
    assert kinds == [nn.ReLU] * 3 + [nn.Hardswish] * 8
    assert all(block.expand[-1].__class__ is block.depthwise[-1].__class__ for block in net.blocks[1:])


def test_squeeze_and_excitation_equals_the_first_version_or_is_removed():
    net = MobileNetV3Small(DynamicConvFactory())
    assert [isinstance(block.se, SqueezeExcitation) for block in net.blocks] == [True, False, False] + [True] * 8
    assert isinstance(net.se, SqueezeExcitation)
    assert not any(isinstance(layer, DynamicConv2d) for layer in net.se.modules())
    without = MobileNetV3Small(se=False)
    assert not [layer for layer in without.modules() if isinstance(layer, SqueezeExcitation)]
    assert without.eval()(torch.randn(2, 3, 32, 64)).shape == (2, 576, 1, 2)


def test_squeeze_and_excitation_equals_its_equation():
    layer = SqueezeExcitation(8).double()
    x = torch.randn(3, 8, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for image, y in zip(x, layer(x), strict=True):
        hidden = (layer.fc1.weight @ image.mean(dim=(1, 2)) + layer.fc1.bias).clamp(min=0)
        gate = ((layer.fc2.weight @ hidden + layer.fc2.bias) / 6 + 0.5).clamp(0, 1)
        torch.testing.assert_close(y, image * gate[:, None, None], rtol=1e-12, atol=1e-12)


def test_stem_and_last_layer_are_static():
    net = MobileNetV3Small(DynamicConvFactory())
    static = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in static] == [(3, 16), (96, 576)]
    assert sum(isinstance(layer, DynamicConv2d) for layer in net.modules()) == 32

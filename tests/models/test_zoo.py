import inspect
import re

import pytest
import torch
from torch import nn

import posedy
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from posedy.models.zoo import create_model, list_models
from posedy.skeleton import COCO17, Skeleton

BACKBONE_PARAMETERS = {
    "mobilenetv2_035": 396_128,
    "dy_mobilenetv2_035": 1_405_612,
    "mobilenetv2_050": 687_680,
    "dy_mobilenetv2_050": 2_665_334,
    "mobilenetv2_075": 1_355_424,
    "dy_mobilenetv2_075": 5_731_118,
    "mobilenetv2_100": 2_223_872,
    "dy_mobilenetv2_100": 9_868_736,
}
HEAD_PARAMETERS = {"deconv": 7_345_937, "bneck": 1_208_081, "dy_bneck": 6_318_877}


def test_every_backbone_with_every_head():
    expected = {f"{backbone}-{head}" for backbone in BACKBONE_PARAMETERS for head in HEAD_PARAMETERS}
    assert len(list_models()) == len(set(list_models())) == 24
    assert set(list_models()) == expected
    assert posedy.list_models() == list_models()


@pytest.mark.parametrize("name", list_models())
def test_goes_forward_and_backward(name, perturb):
    net = create_model(name)
    backbone, head = name.split("-")
    assert sum(parameter.numel() for parameter in net.backbone.parameters()) == BACKBONE_PARAMETERS[backbone]
    assert sum(parameter.numel() for parameter in net.head.parameters()) == HEAD_PARAMETERS[head]
    attentions: list[torch.Tensor] = []
    x = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    perturb(net, x, training=True)
    for layer in net.modules():
        if isinstance(layer, KernelAttention):
            layer.register_forward_hook(lambda layer, inputs, attention: attentions.append(attention.detach()))
    y = net(x)
    assert y.shape == (3, 17, 16, 8)
    y.square().mean().backward()
    without = [
        key
        for key, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert without == []
    expected = (50 if backbone.startswith("dy_") else 0) + (11 if head.startswith("dy_") else 0)
    assert len(attentions) == expected
    assert all((attention - attention[:1]).abs().max() > 0.1 for attention in attentions)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("dy_mobilenetv2_050-bnek", "dy_mobilenetv2_050-bneck"),
        ("mobilenetv2_50-deconv", "mobilenetv2_050-deconv"),
        ("mobilenetv2_050-dy_deconv", "mobilenetv2_050-deconv"),
        ("DY_MobileNetV2_100-dy_bneck", "dy_mobilenetv2_100-dy_bneck"),
        ("", ""),
        ("resnet50", ""),
    ],
)
def test_unknown_names_give_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=re.escape(repr(nearest)) if nearest else "nearest name is '") as caught:
        create_model(name)
    assert "list_models" in str(caught.value)


def test_options_reach_the_layers():
    net = create_model("dy_mobilenetv2_035-dy_bneck", 5, 2, temperature=11.0)
    dynamic = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    assert {layer.num_kernels for layer in dynamic} == {2}
    assert {float(layer.attention.temperature) for layer in dynamic} == {11.0}
    assert net.num_keypoints == 5
    assert net.skeleton is None
    assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 8, 8)


def test_defaults_are_the_papers():
    net = create_model("dy_mobilenetv2_035-bneck")
    assert net.skeleton == COCO17
    assert net.input_size == (192, 256)
    layer = next(layer for layer in net.modules() if isinstance(layer, DynamicConv2d))
    assert layer.num_kernels == 4
    assert layer.attention.temperature == 30
    assert isinstance(net.output, nn.Identity)


def test_convolutions_before_norms_have_no_bias():
    for name in ("dy_mobilenetv2_035-dy_bneck", "mobilenetv2_035-deconv"):
        with_bias = [
            key
            for key, layer in create_model(name).named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | DynamicConv2d) and layer.bias is not None
        ]
        assert len(with_bias) == 1  # the heatmap convolution


def test_a_custom_skeleton():
    skeleton = Skeleton(("a", "b", "c"), ((0, 1),), (), (0.1, 0.1, 0.1))
    assert create_model("mobilenetv2_035-bneck", 3, skeleton=skeleton).skeleton is skeleton
    with pytest.raises(ValueError, match="the skeleton has 3 keypoints, num_keypoints is 17"):
        create_model("mobilenetv2_035-bneck", skeleton=skeleton)


@pytest.mark.parametrize("name", ["mobilenetv2_035-bneck", "dy_mobilenetv2_035-dy_bneck"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_keypoints": 0}, "num_keypoints must be at least 1"),
        ({"num_kernels": 0}, "num_kernels must be at least 1"),
        ({"output": "sigmoid"}, "'sigmoid'"),
        ({"input_size": (100, 256)}, "divisible by 32"),
        ({"input_size": (192,)}, "divisible by 32"),
    ],
)
def test_refuses_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **arguments)


def test_public_signature():
    assert posedy.create_model is create_model
    assert list(inspect.signature(create_model).parameters)[:3] == ["name", "num_keypoints", "num_kernels"]


@pytest.mark.parametrize("name", [None, 5, ["dy_mobilenetv2_050-bneck"]])
def test_names_are_text(name):
    with pytest.raises(TypeError, match="a model's name is text"):
        create_model(name)

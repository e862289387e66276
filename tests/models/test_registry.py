import inspect
import re
from collections.abc import Sequence

import pytest
import torch
from torch import nn

import posedy
from posedy.codecs import SimCCCodec, UnbiasedCodec
from posedy.models.blocks import InvertedResidual
from posedy.models.complexity import measure
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from posedy.models.factory import create_backbone, create_model
from posedy.models.meta import meta_device
from posedy.models.pose_net import PoseNet, name_outputs
from posedy.models.registry import is_beyond_paper, list_models, list_options
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
    "mobilenetv2_175": 6_139_552,
    "dy_mobilenetv2_175": 29_267_682,
    "mobilenetv3_small": 1_087_998,
    "dy_mobilenetv3_small": 2_754_368,
    "resnet10": 4_905_792,
    "dy_resnet10": 19_173_008,
    "resnet18": 11_176_512,
    "dy_resnet18": 44_420_880,
}
# by the channels of the backbone's last feature map
HEAD_PARAMETERS = {
    1280: {"deconv": 7_345_937, "bneck": 1_208_081, "dy_bneck": 6_318_877},
    576: {"deconv": 4_462_353, "bneck": 1_008_849, "dy_bneck": 4_871_101},
    512: {"deconv": 4_200_209, "bneck": 990_737, "dy_bneck": 4_764_061},
}
FEATURE_CHANNELS = {
    "mobilenetv2_035": (8, 16, 24, 1280),
    "mobilenetv2_050": (16, 16, 32, 1280),
    "mobilenetv2_075": (24, 24, 48, 1280),
    "mobilenetv2_100": (24, 32, 64, 1280),
    "mobilenetv2_175": (40, 56, 112, 1280),
    "mobilenetv3_small": (16, 40, 48, 576),
    "resnet10": (64, 128, 256, 512),
    "resnet18": (64, 128, 256, 512),
}
# other test files register backbones and heads of their own
NAMES = [name for name in list_models() if name.rpartition("-")[0] in BACKBONE_PARAMETERS]
# each head, static and dynamic, and each family of backbones; the others are slow
FAST = [
    *("mobilenetv2_035-dy_fpn", "dy_mobilenetv2_035-simcc", "dy_mobilenetv3_small-deconv"),
    *("mobilenetv3_small-dy_bneck", "resnet10-bneck", "dy_mobilenetv2_050-fpn"),
]
DYNAMIC_LAYERS = {"mobilenetv2": 50, "mobilenetv3_small": 32, "resnet10": 8, "resnet18": 16}
ONE_OF_EACH_FAMILY = ["mobilenetv2_035", "mobilenetv3_small", "resnet10"]


@pytest.fixture
def zero_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all weights zero: random ones take most of the time of tests that check shapes of large networks."""
    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor.zero_())


def fpn_parameters(feature_channels: Sequence[int], dynamic: bool, K: int = 4) -> int:
    """#Param of the head `fpn` with 17 heatmaps, layer by layer."""

    def conv(in_channels: int, out_channels: int, taps: int = 1, *, bias: bool = False) -> int:
        kernel = out_channels * taps * (in_channels if taps == 1 else 1) + (out_channels if bias else 0)
        hidden = in_channels // 4
        attention = in_channels * hidden + hidden + hidden * K + K
        return K * kernel + attention if dynamic else kernel

    laterals = zip(feature_channels, (24, 32, 64, 64), strict=True)
    count = sum(conv(channels, lateral, bias=True) for channels, lateral in laterals)
    for channels, out_channels in ((64, 32), (32, 24), (24, 24)):
        count += conv(channels, channels, 9) + conv(channels, out_channels) + 2 * out_channels
    return count + conv(24, 24, 9) + conv(24, 96, bias=True) + 96 * 17 + 17


def architecture(backbone: str) -> str:
    name = backbone.removeprefix("dy_")
    return name if name in DYNAMIC_LAYERS else name.rpartition("_")[0]


def test_models_are_all_combinations_of_backbones_and_heads():
    of_paper = [backbone for backbone in BACKBONE_PARAMETERS if not backbone.endswith("_175")]
    expected = {f"{backbone}-{head}" for backbone in of_paper for head in ("deconv", "bneck", "dy_bneck")}
    names = NAMES
    assert len(names) == len(set(names)) == 42 + 28 + 4 + 16
    assert set(names[:42]) == expected
    beyond = {f"{backbone}-{head}" for backbone in BACKBONE_PARAMETERS for head in ("fpn", "dy_fpn", "simcc")}
    assert set(names[42:]) == beyond
    assert [is_beyond_paper(name) for name in names] == [False] * 42 + [True] * 48
    assert posedy.list_models()[:42] == names[:42]


def test_backbones_and_heads_are_listed_in_both_forms():
    assert set(BACKBONE_PARAMETERS) <= set(posedy.list_backbones())
    assert {"deconv", "bneck", "dy_bneck", "fpn", "dy_fpn", "simcc"} <= set(posedy.list_heads())
    assert not {"dy_deconv", "dy_simcc"} & set(posedy.list_heads())


@pytest.mark.parametrize("name", ["mobilenetv2_175-bneck", "dy_mobilenetv2_175-deconv", "mobilenetv2_175-dy_bneck"])
def test_mobilenetv2_175_takes_light_heads_only(name):
    with pytest.raises(ValueError, match=rf"{name}.*fpn.*simcc"):
        create_model(name)


@pytest.mark.parametrize(
    "name",
    [
        *FAST,
        *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in FAST),
    ],
)
def test_outputs_and_gradients_of_every_network(name, perturb):
    net = create_model(name, input_size=(32, 64))
    backbone, head = name.split("-")
    assert sum(parameter.numel() for parameter in net.backbone.parameters()) == BACKBONE_PARAMETERS[backbone]
    if head == "simcc":  # a 1x1 convolution, and the bins of 32 and of 64 crop pixels from two feature map pixels
        expected = 17 * (net.backbone.out_channels + 1) + (64 + 128) * (2 + 1)
    elif head.endswith("fpn"):
        expected = fpn_parameters(FEATURE_CHANNELS[backbone.removeprefix("dy_")], head.startswith("dy_"))
    else:
        expected = HEAD_PARAMETERS[net.backbone.out_channels][head]
    assert sum(parameter.numel() for parameter in net.head.parameters()) == expected
    attentions: list[torch.Tensor] = []
    x = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    perturb(net, x, training=True)
    for layer in net.modules():
        if isinstance(layer, KernelAttention):
            layer.register_forward_hook(lambda layer, inputs, attention: attentions.append(attention.detach()))
    outputs = name_outputs(net(x), net.codec)
    shapes = {"heatmaps": (3, 17, 16, 8), "x_logits": (3, 17, 64), "y_logits": (3, 17, 128)}
    assert {key: output.shape for key, output in outputs.items()} == {key: shapes[key] for key in outputs}
    sum(output.square().mean() for output in outputs.values()).backward()
    for key, layer in net.named_modules():
        if isinstance(layer, DynamicConv2d):
            assert layer.weight.grad is not None
            assert all(gradient.any() for gradient in layer.weight.grad), f"a kernel of {key} has no gradient"
    without_gradient = [
        key
        for key, parameter in net.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert without_gradient == []
    in_backbone = DYNAMIC_LAYERS[architecture(backbone)] if backbone.startswith("dy_") else 0
    expected = in_backbone + {"dy_bneck": 11, "dy_fpn": 12}.get(head, 0)
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
        ("resnet18-dconv", "resnet18-deconv"),
        ("resnet50", ""),
    ],
)
def test_unknown_names_are_rejected_with_the_nearest_name(name, nearest):
    with pytest.raises(ValueError, match=re.escape(repr(nearest)) if nearest else "nearest name is '") as caught:
        create_model(name)
    assert "list_models" in str(caught.value)
    assert "imports" in str(caught.value)


@pytest.mark.usefixtures("zero_weights")
def test_arguments_reach_the_layers():
    net = create_model("dy_mobilenetv2_035-dy_bneck", num_keypoints=5, num_kernels=2, temperature=11.0)
    dynamic = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    assert {layer.num_kernels for layer in dynamic} == {2}
    assert {float(layer.attention.temperature) for layer in dynamic} == {11.0}
    assert net.num_keypoints == 5
    assert net.skeleton is None
    assert net.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 8, 8)


def test_defaults_are_those_of_the_paper():
    net = create_model("dy_mobilenetv2_035-bneck")
    assert net.skeleton == COCO17
    assert net.input_size == (192, 256)
    layer = next(layer for layer in net.modules() if isinstance(layer, DynamicConv2d))
    assert layer.num_kernels == 4
    assert layer.attention.temperature == 30
    assert isinstance(net.output, nn.Identity)


LAST_LAYERS = {"dy_mobilenetv2_035-dy_bneck": "head.heatmap", "mobilenetv2_035-deconv": "head.9"}


@pytest.mark.usefixtures("zero_weights")
def test_convolutions_before_norms_have_no_bias():
    for name in LAST_LAYERS:
        with_bias = [
            key
            for key, layer in create_model(name).named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | DynamicConv2d) and layer.bias is not None
        ]
        assert with_bias == [LAST_LAYERS[name]]


def test_a_custom_skeleton_is_kept_and_must_fit_the_number_of_keypoints():
    skeleton = Skeleton(("a", "b", "c"), ((0, 1),), (), (0.1, 0.1, 0.1))
    assert create_model("mobilenetv2_035-bneck", num_keypoints=3, skeleton=skeleton).skeleton is skeleton
    with pytest.raises(ValueError, match=r"3 keypoints.*17"):
        create_model("mobilenetv2_035-bneck", num_keypoints=17, skeleton=skeleton)
    assert create_model("mobilenetv2_035-bneck", skeleton=skeleton).num_keypoints == 3


@pytest.mark.parametrize("name", ["mobilenetv2_035-bneck", "dy_mobilenetv2_035-dy_bneck"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_keypoints": 0}, "num_keypoints"),
        ({"num_keypoints": 2.0}, r"num_keypoints.*2\.0"),
        ({"num_kernels": 0}, "num_kernels"),
        ({"output": "tanh"}, "'tanh'"),
        ({"codec": "udp"}, "'udp'"),
        ({"input_size": (100, 256)}, "divisible by 32"),
        ({"input_size": (192,)}, "divisible by 32"),
        ({"input_size": 64}, "divisible by 32"),
        ({"sigma": 0}, "sigma"),
        ({"in_channels": 0}, "in_channels"),
        ({"in_channels": True}, "in_channels.*True"),
        ({"dept": 0.5}, "'dept'.*'depth'"),
        ({"depth": 0}, "depth"),
        ({"depth": 1000}, "depth.*8"),
        ({"depth": "half"}, "depth.*'half'"),
        ({"se": False}, "'se'"),
    ],
)
def test_invalid_arguments_are_rejected(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **arguments)


@pytest.mark.usefixtures("zero_weights")
def test_num_kernels_of_a_static_network_is_rejected():
    with pytest.raises(ValueError, match=r"num_kernels=8.*mobilenetv2_035-bneck"):
        create_model("mobilenetv2_035-bneck", num_kernels=8)
    with pytest.raises(ValueError, match=r"num_kernels=8.*resnet10"):
        create_backbone("resnet10", 8)
    assert create_model("mobilenetv2_035-bneck", num_kernels=4).options["num_kernels"] == 4
    for name in ("dy_mobilenetv2_035-bneck", "mobilenetv2_035-dy_bneck"):
        layers = [layer for layer in create_model(name, num_kernels=8).modules() if isinstance(layer, DynamicConv2d)]
        assert {layer.num_kernels for layer in layers} == {8}


def test_only_the_name_and_pretrained_are_positional():
    assert posedy.create_model is create_model
    kinds = {name: parameter.kind for name, parameter in inspect.signature(create_model).parameters.items()}
    positional = [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == ["name", "pretrained"]
    with pytest.raises(TypeError, match=r"pretrained.*17"):
        create_model("mobilenetv2_035-bneck", 17)


def test_a_skeleton_of_another_type_is_rejected():
    with pytest.raises(TypeError, match="'coco'"):
        create_model("mobilenetv2_035-bneck", skeleton="coco")


@pytest.mark.parametrize("name", [None, 5, ["dy_mobilenetv2_050-bneck"]])
@pytest.mark.parametrize("pretrained", [False, True])
def test_a_name_that_is_not_a_string_is_rejected(name, pretrained):
    with pytest.raises(TypeError, match=re.escape(repr(name))):
        create_model(name, pretrained)


def test_model_class_is_the_class_of_the_network():
    class Custom(PoseNet):
        pass

    assert type(create_model("mobilenetv2_035-bneck", model_class=Custom)) is Custom


@pytest.mark.parametrize("name", ["resnet10", "mobilenetv2_035", "mobilenetv3_small"])
def test_the_classifier_is_the_last_module(name):
    """Optimizers and checkpoints of earlier commits have the parameters in this order."""
    names = [key for key, _ in create_backbone(name, num_classes=2).named_parameters()]
    assert names[-1].startswith("classifier.")
    assert not names[0].startswith("classifier.")


def test_the_codec_is_recorded():
    net = create_model("mobilenetv2_035-bneck", codec="unbiased", sigma=1.5, input_size=(64, 96))
    assert net.codec == UnbiasedCodec((64, 96), 1.5)
    assert (net.options["codec"], net.options["sigma"]) == ("unbiased", 1.5)


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=() if name in ONE_OF_EACH_FAMILY else pytest.mark.slow) for name in FEATURE_CHANNELS],
)
def test_one_kernel_equals_the_static_counterpart(backbone, perturb):
    """With K = 1 the attention weight is one."""
    head = "fpn" if backbone in ("mobilenetv2_175", "resnet10") else "bneck"
    dynamic = create_model(f"dy_{backbone}-dy_{head}", num_kernels=1)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    perturb(dynamic, x)
    static = create_model(f"{backbone}-{head}").eval()
    shapes = {key: tensor.shape for key, tensor in static.state_dict().items()}
    static.load_state_dict(
        {key: tensor.reshape(shapes[key]) for key, tensor in dynamic.state_dict().items() if "attention" not in key}
    )
    with torch.no_grad():
        expected = static(x)
        torch.testing.assert_close(dynamic(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.usefixtures("zero_weights")
@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(name, marks=() if name.removeprefix("dy_") in ONE_OF_EACH_FAMILY else pytest.mark.slow)
        for name in BACKBONE_PARAMETERS
        if "_075" not in name
    ],
)
def test_backbones_with_a_classifier_return_logits(backbone):
    net = create_backbone(backbone, num_classes=7).eval()
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.usefixtures("zero_weights")
def test_param_of_backbones_with_a_classifier():
    expected = {"resnet18": 11_689_512, "resnet10": 5_418_792, "mobilenetv2_100": 3_504_872}
    for name, count in expected.items():
        assert sum(parameter.numel() for parameter in create_backbone(name, num_classes=1000).parameters()) == count


@pytest.mark.usefixtures("zero_weights")
@pytest.mark.parametrize(
    "num_kernels", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(6, marks=pytest.mark.slow), 8]
)
@pytest.mark.parametrize("backbone", ONE_OF_EACH_FAMILY)
def test_networks_with_any_number_of_kernels(backbone, num_kernels):
    net = create_model(f"dy_{backbone}-dy_bneck", num_kernels=num_kernels).eval()
    assert {layer.num_kernels for layer in net.modules() if isinstance(layer, DynamicConv2d)} == {num_kernels}
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 17, 8, 8)


@pytest.mark.usefixtures("zero_weights")
@pytest.mark.parametrize("backbone", ["mobilenetv2_035", "mobilenetv3_small"])
@pytest.mark.parametrize("layers", [["expand"], ["depthwise", "project"], ("project",)])
def test_dynamic_layers_of_each_bneck_are_the_selected_ones(backbone, layers):
    net = create_model(f"dy_{backbone}-dy_bneck", dynamic_layers=layers)
    dynamic = set()
    for block in net.modules():
        if isinstance(block, InvertedResidual):
            for name in ("expand", "depthwise", "project"):
                convolution = next(iter(getattr(block, name).children()), None)
                assert convolution is None or isinstance(convolution, DynamicConv2d) == (name in layers)
                dynamic |= {name} if isinstance(convolution, DynamicConv2d) else set()
    assert dynamic == set(layers)


@pytest.mark.parametrize(
    "backbone",
    [ONE_OF_EACH_FAMILY[0], *(pytest.param(name, marks=pytest.mark.slow) for name in ONE_OF_EACH_FAMILY[1:])],
)
def test_sigmoid_attention_has_no_temperature_and_does_not_sum_to_one(backbone, perturb):
    net = create_model(f"dy_{backbone}-dy_bneck", attention="sigmoid")
    assert not [key for key in net.state_dict() if "temperature" in key]
    sums = []
    for layer in net.modules():
        if isinstance(layer, KernelAttention):
            layer.register_forward_hook(lambda layer, inputs, attention: sums.append(attention.sum(dim=1)))
    net.eval()(torch.randn(2, 3, 32, 32))
    assert all(((total > 0.5) & (total < 3.5) & ((total - 1).abs() > 0.01)).all() for total in sums)


@pytest.mark.usefixtures("zero_weights")
@pytest.mark.parametrize("in_channels", [1, 4, 6])
@pytest.mark.parametrize("backbone", ONE_OF_EACH_FAMILY)
def test_networks_with_any_number_of_input_channels(backbone, in_channels):
    net = create_model(f"{backbone}-bneck", in_channels=in_channels).eval()
    assert net(torch.randn(1, in_channels, 64, 32)).shape == (1, 17, 16, 8)


@pytest.mark.usefixtures("zero_weights")
@pytest.mark.parametrize("backbone", ONE_OF_EACH_FAMILY)
@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 160), (96, 32), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((64, 32), (96, 160)))],
)
def test_crops_of_any_size_divisible_by_32(backbone, height, width):
    net = create_model(f"dy_{backbone}-bneck", num_keypoints=3, input_size=(width, height)).eval()
    assert net(torch.randn(2, 3, height, width)).shape == (2, 3, height // 4, width // 4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenetv2_035-bneck", {"attention": "sigmoid"}, "dynamic"),
        ("mobilenetv2_035-bneck", {"dynamic_layers": ["expand"]}, "dynamic"),
        ("dy_resnet10-deconv", {"dynamic_layers": ["expand"]}, "dynamic"),
        ("dy_mobilenetv2_035-bneck", {"attention": "softmx"}, "'softmx'"),
        ("dy_mobilenetv2_035-bneck", {"dynamic_layers": ["projct"]}, "'projct'.*'project'"),
        ("dy_mobilenetv2_035-bneck", {"dynamic_layers": "project"}, "dynamic_layers"),
        ("dy_mobilenetv2_035-bneck", {"dynamic_layers": []}, "dynamic_layers"),
        ("dy_resnet10-bneck", {"dynamic_layers": ["expand"]}, "dynamic"),
        ("resnet10-bneck", {"depth": 0.5}, "'depth'.*resnet10-bneck"),
        ("mobilenetv3_small-bneck", {"se": 0}, "se .*0"),
        ("mobilenetv2_035-fpn", {"padding": "same"}, "padding.*'same'"),
        ("resnet10-fpn", {"padding": "tensorflow"}, "'padding'.*resnet10-fpn"),
    ],
)
def test_invalid_options_are_rejected(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


@pytest.mark.slow
def test_list_options_of_networks_and_backbones():
    assert list_options("dy_mobilenetv2_035-bneck") == [
        "attention",
        "depth",
        "dynamic_layers",
        "in_channels",
        "padding",
    ]
    assert list_options("mobilenetv3_small-deconv") == ["in_channels", "se"]
    assert list_options("resnet10-dy_bneck") == ["attention", "dynamic_layers", "in_channels"]
    assert list_options("dy_resnet10") == ["attention", "in_channels"]
    with meta_device():
        assert all(create_model(name, in_channels=2).options["in_channels"] == 2 for name in NAMES)


def test_backbones_take_and_reject_the_same_options():
    assert create_backbone("dy_resnet10", attention="sigmoid").blocks[0].conv1[0].attention.temperature is None
    with pytest.raises(ValueError, match="dynamic"):
        create_backbone("resnet10", attention="sigmoid")


def test_unknown_backbones_are_rejected_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'dy_resnet_18'.*'dy_resnet18'"):
        create_backbone("dy_resnet_18")


@pytest.mark.usefixtures("zero_weights")
def test_the_head_implies_its_codec():
    net = create_model("mobilenetv2_035-simcc", input_size=(64, 96), sigma=2.0)
    assert net.codec == SimCCCodec((64, 96), 2.0)
    assert net.options["codec"] == "simcc"
    assert create_model("mobilenetv2_035-simcc", codec="simcc", input_size=(64, 96)).codec == SimCCCodec((64, 96))
    for head in ("deconv", "bneck", "fpn"):
        assert create_model(f"mobilenetv2_035-{head}").options["codec"] == "msra"
        with pytest.raises(ValueError, match=rf"'{head}'.*'simcc'"):
            create_model(f"mobilenetv2_035-{head}", codec="simcc")
    for codec in ("msra", "unbiased"):
        with pytest.raises(ValueError, match=rf"'simcc'.*'{codec}'"):
            create_model("mobilenetv2_035-simcc", codec=codec)
    for output in ("softmax", "sigmoid"):
        with pytest.raises(ValueError, match=rf"'{output}'.*'simcc'"):
            create_model("mobilenetv2_035-simcc", output=output)


@pytest.mark.usefixtures("zero_weights")
def test_heads_without_a_codec_and_own_network_classes_take_any_codec(restored_registries):
    class Own(PoseNet):
        def forward(self, x):
            maps = super().forward(x).flatten(2)
            return maps[..., :384], maps[..., :512]

    net = create_model("mobilenetv2_035-fpn", codec="simcc", model_class=Own).eval()
    keypoints, _ = net.codec.decode(name_outputs(net(torch.zeros(1, 3, 256, 192)), net.codec))
    assert keypoints.shape == (1, 17, 2)

    @posedy.register_head("undeclared")
    class Undeclared(nn.Module):
        def __init__(self, in_channels, num_keypoints):
            super().__init__()

    assert create_model("mobilenetv2_035-undeclared").codec.name == "msra"
    assert create_model("mobilenetv2_035-undeclared", codec="simcc").codec.name == "simcc"


@pytest.mark.usefixtures("zero_weights")
def test_the_simcc_head_supports_crops_of_its_input_size_only():
    net = create_model("mobilenetv2_035-simcc", input_size=(64, 96)).eval()
    assert net.fixed_input_size == (64, 96)
    assert [output.shape for output in net(torch.zeros(2, 3, 96, 64))] == [(2, 17, 128), (2, 17, 192)]
    for shape in ((1, 3, 64, 96), (1, 3, 256, 192), (1, 3, 32, 32)):
        with pytest.raises(ValueError, match=r"mobilenetv2_035-simcc.*\(64, 96\)"):
            net(torch.zeros(shape))
    with pytest.raises(ValueError, match="divisible by 32"):
        create_model("mobilenetv2_035-simcc", input_size=(64, 100))
    assert create_model("mobilenetv2_035-bneck").fixed_input_size is None


def test_factories_of_heads_receive_the_input_size(restored_registries):
    @posedy.register_head("sized")
    class Sized(nn.Module):
        def __init__(self, in_channels, num_keypoints, *, input_size, width=3):
            super().__init__()
            self.sizes = input_size, width

    net = create_model("mobilenetv2_035-sized", input_size=[64, 96], width=5)
    assert net.head.sizes == ((64, 96), 5)
    assert "input_size" not in list_options("mobilenetv2_035-sized")
    assert net.fixed_input_size is None


@pytest.mark.slow
def test_the_dynamic_simcc_network_has_at_most_150_million_multiply_adds():
    with meta_device():
        net = create_model("dy_mobilenetv2_050-simcc")
    x = (3, 256, 192)
    maps = 17 * 1280 * 48
    logits = 17 * 48 * (384 + 512)
    assert measure(net, x).madds == measure(net.backbone, x).madds + maps + logits
    assert measure(net, x).madds < 150e6

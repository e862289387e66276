"""`posedy.to_dynamic` and `posedy.to_static` for modules that posedy did not create."""

import copy
import itertools
import logging
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

import posedy
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.replacement import static_reasons

Create = Callable[[], nn.Module]
TORCHVISION: dict[str, Create] = {
    name: getattr(torchvision.models, name) for name in ("mobilenet_v3_small", "resnet18", "efficientnet_b0")
}
TIMM = ["resnet10t", "mobilenetv3_small_050", "convnext_atto"]


def timm_model(name: str) -> Create:
    timm = pytest.importorskip("timm")
    return lambda: timm.create_model(name, pretrained=False)


def perturbed(create: Create) -> nn.Module:
    """A network in evaluation mode with statistics of random images, so that its outputs have a usual size."""
    torch.manual_seed(0)
    net = create()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(images(8))
    return net.eval()


def images(count: int, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same_outputs(net: nn.Module, other: nn.Module, x: Tensor) -> None:
    expected = net(x)
    assert expected.abs().max() > 1e-6
    assert (other(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def dynamic_layers(net: nn.Module) -> dict[str, DynamicConv2d]:
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, DynamicConv2d)}


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v3_small", *(pytest.param(name, marks=pytest.mark.slow) for name in (*list(TORCHVISION)[1:], *TIMM))],
)
def test_outputs_equal_those_of_the_static_network(name: str) -> None:
    net = perturbed(TORCHVISION[name] if name in TORCHVISION else timm_model(name))
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    dynamic = posedy.to_dynamic(net)
    layers = dynamic_layers(dynamic)
    assert len(layers) > 5
    assert not dynamic.training
    x = images(2)
    assert_same_outputs(net, dynamic, x)
    for layer in layers.values():
        assert not layer.attention.fc2.weight.any()
        assert not layer.attention.fc2.bias.any()
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(layer.weight, 2))
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    static = posedy.to_static(dynamic)
    assert not dynamic_layers(static)
    assert_same_outputs(net, static, x)
    assert static.state_dict().keys() == before.keys()
    for key, tensor in static.state_dict().items():
        torch.testing.assert_close(
            tensor, before[key], rtol=1e-5, atol=1e-5 * max(float(before[key].abs().max()), 1e-30)
        )


@pytest.mark.slow
def test_param_of_resnet18_equals_the_paper_s() -> None:
    with torch.device("meta"):
        net = torchvision.models.resnet18()
    net = net.to_empty(device="cpu")
    net.fc = nn.Identity()
    assert sum(parameter.numel() for parameter in posedy.to_dynamic(net).parameters()) == 44_420_880


class SmallNet(nn.Module):
    """A network with a convolution for each rule of the default selection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding="same", dilation=2)
        self.grouped = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=4, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.even = nn.Conv2d(8, 8, 2, padding="same")
        self.reflected = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.special = SpecialConv(8, 8, 1)
        self.shared = nn.Conv2d(8, 8, 3, padding="valid")
        self.alias = self.shared
        self.normalized = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.unused = nn.Conv2d(8, 8, 3)
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 5)."""
        x = self.stem(x)
        x = self.downsample(x) + self.grouped(self.body(x).relu())
        x = x * self.squeeze(x.mean(dim=(2, 3), keepdim=True)).sigmoid()
        x = self.alias(self.shared(self.special(self.reflected(self.even(x)))))
        return self.last(self.normalized(x)).mean(dim=(2, 3))


class SpecialConv(nn.Conv2d):
    """A subclass, which may do anything."""


def test_reasons_of_the_default_selection() -> None:
    reasons = static_reasons(SmallNet())
    assert {name for name, reason in reasons.items() if reason is None} == {"body", "grouped"}
    expected = {
        "stem": "first",
        "downsample.0": "shortcut",
        "squeeze": "pooled map",
        "even": "padding",
        "reflected": "padding_mode='reflect'",
        "special": "SpecialConv",
        "shared": "shared",
        "alias": "shared",
        "normalized": "parametrized",
        "unused": "not run",
        "last": "last, 1x1",
    }
    assert expected.keys() == reasons.keys() - {"body", "grouped"}
    for name, reason in expected.items():
        assert reason in str(reasons[name]), name


def test_padding_dilation_and_groups_are_kept() -> None:
    net = SmallNet().eval()
    dynamic = posedy.to_dynamic(net, num_kernels=3, temperature=5.0)
    layers = dynamic_layers(dynamic)
    assert layers.keys() == {"body", "grouped"}
    assert {layer.num_kernels for layer in layers.values()} == {3}
    assert {float(layer.attention.temperature) for layer in layers.values()} == {5.0}
    assert (layers["body"].padding, layers["body"].dilation, layers["body"].groups) == ((2, 2), (2, 2), 1)
    assert (layers["grouped"].padding, layers["grouped"].groups, layers["grouped"].bias) == ((1, 2), 4, None)
    assert_same_outputs(net, dynamic, images(3, 40))
    assert_same_outputs(net, posedy.to_static(dynamic), images(3, 40))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 4, 3, padding="same"),
        nn.Conv2d(6, 4, (5, 3), padding="same", dilation=(1, 3)),
        nn.Conv2d(6, 4, 3, padding="valid"),
        nn.Conv2d(6, 4, 3, stride=(2, 1), padding=(0, 2), dilation=2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 4, 2, padding="same", dilation=2),
    ],
    ids=str,
)
def test_a_single_convolution_is_converted(conv: nn.Conv2d) -> None:
    dynamic = posedy.to_dynamic(conv.eval(), select=lambda name, _: name == "")
    assert isinstance(dynamic, DynamicConv2d)
    x = torch.randn(2, 6, 11, 12)
    assert_same_outputs(conv, dynamic, x)
    static = posedy.to_static(dynamic)
    assert type(static) is nn.Conv2d
    assert_same_outputs(conv, static, x)


def test_select_replaces_the_rules_but_not_the_obstacles() -> None:
    net = SmallNet().eval()
    seen = []

    def select(name: str, conv: nn.Conv2d) -> bool:
        seen.append(name)
        return name != "body"

    reasons = static_reasons(net, select)
    assert set(seen) == reasons.keys()
    assert reasons["body"] == "not selected"
    selected = {name for name, reason in reasons.items() if reason is None}
    assert selected == {"stem", "grouped", "downsample.0", "squeeze", "unused", "last"}
    dynamic = posedy.to_dynamic(net, select=select)
    assert dynamic_layers(dynamic).keys() == selected
    assert_same_outputs(net, dynamic, images(2, 40))


def test_reasons_of_networks_with_few_convolutions() -> None:
    assert static_reasons(nn.Linear(3, 4)) == {}
    assert not dynamic_layers(posedy.to_dynamic(nn.Linear(3, 4)))
    assert static_reasons(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))) == {"0": "first", "1": None}


def test_tied_weights_and_hooked_convolutions_stay_static() -> None:
    net = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5)))
    net[2].weight = net[1].weight
    net[3].register_forward_hook(lambda module, inputs, output: output)
    reasons = static_reasons(net, lambda name, conv: True)
    assert {name for name, reason in reasons.items() if reason is None} == {"0", "4"}
    assert "shared" in str(reasons["1"])
    assert "hooked" in str(reasons["3"])


def test_modules_that_do_not_run_on_images_need_select() -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.conv(x + y)

    with pytest.raises(ValueError, match="select"):
        posedy.to_dynamic(TwoInputs())
    assert dynamic_layers(posedy.to_dynamic(TwoInputs(), select=lambda name, conv: True)).keys() == {"conv"}


def test_one_kernel_equals_the_static_network() -> None:
    net = SmallNet().eval()
    dynamic = posedy.to_dynamic(net, num_kernels=1)
    torch.testing.assert_close(dynamic_layers(dynamic)["body"].weight[0], net.body.weight)
    assert_same_outputs(net, dynamic, images(2, 40))


@pytest.mark.parametrize(
    "arguments", [{"noise": -1.0}, {"noise": float("nan")}, {"num_kernels": 0}, {"temperature": 0.0}]
)
def test_invalid_arguments_are_rejected(arguments: dict[str, float]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}.* {value:g}"):
        posedy.to_dynamic(SmallNet(), **arguments)  # type: ignore[arg-type]


def test_dtype_mode_gradients_and_random_state_are_kept() -> None:
    net = SmallNet().double().train()
    net.grouped.requires_grad_(False)
    state = torch.get_rng_state()
    first, second, other = (posedy.to_dynamic(net, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    layers = dynamic_layers(first)
    assert first.training
    assert all(layer.training and layer.weight.dtype == torch.float64 for layer in layers.values())
    assert [parameter.requires_grad for parameter in layers["grouped"].parameters()] == [False] * 5
    assert all(parameter.requires_grad for parameter in layers["body"].parameters())
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key])
    assert not torch.equal(layers["body"].weight, dynamic_layers(other)["body"].weight)
    static = posedy.to_static(first)
    assert static.training
    assert not static.get_submodule("grouped").weight.requires_grad
    assert static.get_submodule("body").weight.requires_grad


def test_static_convolutions_are_logged_with_their_reasons(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="posedy"):
        posedy.to_dynamic(SmallNet())
    assert "2 of 13" in caplog.text
    assert "stem (first)" in caplog.text


@pytest.mark.parametrize("name", ["small", pytest.param("mobilenet_v3_small", marks=pytest.mark.slow)])
def test_all_kernels_and_the_attention_learn(name: str) -> None:
    torch.manual_seed(0)
    net = SmallNet() if name == "small" else TORCHVISION[name]()
    dynamic = posedy.to_dynamic(net, temperature=1.0)
    start = copy.deepcopy(dynamic_layers(dynamic))
    optimizer = torch.optim.SGD(dynamic.parameters(), lr=0.02, momentum=0.9)
    x = images(8, 32)
    target = torch.randn(8, 5 if name == "small" else 1000)
    dynamic.train()
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.mse_loss(dynamic(x), target).backward()
        optimizer.step()
    for key, layer in dynamic_layers(dynamic).items():
        for kernel, before in zip(layer.weight, start[key].weight, strict=True):
            assert not torch.equal(kernel, before), key
            assert kernel.isfinite().all(), key
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(layer.weight, 2)), key
        # all hidden units of a small attention may be inactive
        assert layer.attention.fc2.weight.any() or layer.attention.fc2.bias.any(), key


def test_to_static_pads_like_tensorflow() -> None:
    layer = DynamicConv2d(3, 4, 3, stride=2, padding=0, pad_end=1).eval()
    posedy.set_temperature(layer, 1e9)
    static = posedy.to_static(layer)
    assert not dynamic_layers(static)
    assert_same_outputs(layer, static, images(2, 12))


def test_sigmoid_attention_has_no_static_counterpart() -> None:
    net = nn.Sequential(nn.Identity(), DynamicConv2d(3, 4, 3, attention="sigmoid"))
    with pytest.raises(ValueError, match="1 has sigmoid"):
        posedy.to_static(net)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/mobilenetv3_small_050-bneck", "dy_timm/resnet10t-dy_fpn"])
def test_networks_with_timm_backbones(name: str, tmp_path: object) -> None:
    pytest.importorskip("timm")
    net = posedy.create_model(name, input_size=(32, 64)).eval()
    assert bool(dynamic_layers(net.backbone)) == name.startswith("dy_")
    assert net(images(2)).shape == (2, 17, 16, 16)
    path = f"{tmp_path}/net.pt"
    posedy.save_checkpoint(net, path)
    torch.testing.assert_close(posedy.load_checkpoint(path)(images(1)), net(images(1)), rtol=0, atol=0)


@pytest.mark.slow
def test_a_timm_backbone_becomes_dynamic_and_static_again() -> None:
    pytest.importorskip("timm")
    net = posedy.create_model("timm/mobilenetv3_small_050-bneck", input_size=(32, 64)).eval()
    dynamic = posedy.to_dynamic(net)
    assert isinstance(dynamic, posedy.PoseNet)
    assert dynamic.name == "dy_timm/mobilenetv3_small_050-dy_bneck"
    assert_same_outputs(net, dynamic, images(2))
    static = posedy.to_static(dynamic)
    assert isinstance(static, posedy.PoseNet)
    assert static.name == net.name
    assert_same_outputs(net, static, images(2))


def test_unknown_timm_names_are_rejected() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"resnet10x.*resnet10"):
        posedy.create_model("timm/resnet10x-bneck")
    with pytest.raises(ValueError, match=r"bnek.*bneck"):
        posedy.create_model("timm/resnet10t-bnek")


def test_sigmoid_attention_of_timm_backbones_is_rejected() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"resnet10t.*sigmoid"):
        posedy.create_model("dy_timm/resnet10t-bneck", attention="sigmoid")


@pytest.mark.slow
def test_a_timm_backbone_is_exported(tmp_path: object) -> None:
    pytest.importorskip("timm")
    onnxruntime = pytest.importorskip("onnxruntime")
    net = posedy.create_model("dy_timm/resnet18-bneck", input_size=(32, 64)).eval()
    path = f"{tmp_path}/net.onnx"
    posedy.export_onnx(net, path)
    assert onnxruntime.InferenceSession(path).get_inputs()


@pytest.mark.parametrize("module", [None, "resnet18", nn.Conv2d, [nn.Conv2d(3, 3, 3)]])
def test_other_objects_than_modules_are_rejected(module: object) -> None:
    for convert in (posedy.to_dynamic, posedy.to_static):
        with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
            convert(module)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [{"num_kernels": 1.5}, {"num_kernels": "4"}, {"noise": "a"}, {"temperature": None}, {"temperature": "a"}],
)
def test_arguments_of_another_type_are_rejected(arguments: dict) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    with pytest.raises(ValueError, match=next(iter(arguments))):
        posedy.to_dynamic(net, **arguments)

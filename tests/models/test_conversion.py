import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from posedy.models.conversion import convert_weights, to_dynamic, to_static
from posedy.models.dynamic_conv import DynamicConv2d, set_temperature
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint
from posedy.models.replacement import spread
from posedy.models.transfer import load_pretrained

X = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
SHALLOW = {"depth": 0.34}  # 7 blocks instead of 17
BNECK_FORMS = [
    f"{backbone}-{head}" for backbone in ("mobilenetv2_035", "dy_mobilenetv2_035") for head in ("bneck", "dy_bneck")
]


@pytest.fixture(scope="module")
def make(perturb: Callable[..., PoseNet]) -> Callable[..., PoseNet]:
    """`make(name, **options)`: a float64 network with 3 keypoints, perturbed weights and sharp attention."""
    made: dict[str, PoseNet] = {}

    def make(name: str, **options: object) -> PoseNet:
        if "mobilenetv2" in name:
            options = {**SHALLOW, **options}
        key = f"{name} {options}"
        if key not in made:
            torch.manual_seed(5)
            made[key] = perturb(create_model(name, num_keypoints=3, input_size=(32, 64), **options), X)
        return copy.deepcopy(made[key]).double()

    return make


@torch.no_grad()
def assert_same_outputs(net: nn.Module, other: nn.Module) -> None:
    expected = net(X.double())
    assert (other(X.double()) - expected).abs().max() <= 1e-5 * expected.abs().max()


def with_sharp_attention(net: PoseNet) -> PoseNet:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        if "attention" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    set_temperature(net, 0.1)
    return net


@pytest.mark.parametrize("noise", [0, 0.05, pytest.param(0.5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_035-dy_fpn",
        *(pytest.param(f"mobilenetv2_035-{head}", marks=pytest.mark.slow) for head in ("fpn", "deconv")),
    ],
)
def test_outputs_of_the_dynamic_counterpart_equal_the_static_ones(make, name, noise):
    net = make(name)
    dynamic = to_dynamic(net, noise=noise)
    assert dynamic.name == ("dy_mobilenetv2_035-deconv" if "deconv" in name else "dy_mobilenetv2_035-dy_fpn")
    assert_same_outputs(net, dynamic)


def test_inflated_layers_have_uniform_attention_and_others_keep_theirs(make):
    net = make("mobilenetv2_035-dy_fpn")
    before = {name for name, layer in net.named_modules() if isinstance(layer, DynamicConv2d)}
    for name, layer in to_dynamic(net).named_modules():
        if isinstance(layer, DynamicConv2d):
            fc2 = layer.attention.fc2
            assert bool(fc2.weight.any() or fc2.bias.any()) == (name in before)


def test_without_noise_outputs_do_not_depend_on_the_attention(make):
    net = make("mobilenetv2_035-bneck")
    assert_same_outputs(net, with_sharp_attention(to_dynamic(net, noise=0)))


def test_static_weights_become_equal_kernels_with_random_attention_if_it_is_normalized(make, tmp_path):
    net = make("mobilenetv2_035-fpn")
    save_weights(net.float(), tmp_path / "static.safetensors")
    torch.manual_seed(0)
    dynamic = create_model(
        "dy_mobilenetv2_035-dy_fpn", num_keypoints=3, input_size=(32, 64), attention="normalized", **SHALLOW
    )
    load_pretrained(dynamic, tmp_path / "static.safetensors")
    set_temperature(dynamic, 1)
    layers = [layer for layer in dynamic.modules() if isinstance(layer, DynamicConv2d)]
    assert all(torch.equal(layer.weight[0], kernel) for layer in layers for kernel in layer.weight)
    assert_same_outputs(net.double().eval(), dynamic.double().eval())
    assert all(layer.attention.fc2.weight.any() for layer in layers)  # not uniform


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenetv3_small-fpn", "resnet10-fpn")),
        "mobilenetv2_035-bneck",
    ],
)
def test_to_static_is_the_inverse_of_to_dynamic(make, name):
    net = make(name, output="softmax")
    back = to_static(to_dynamic(net, num_kernels=3, noise=0.5))
    assert back.options == net.options
    assert (back.name, back.skeleton, back.input_size) == (net.name, net.skeleton, net.input_size)
    assert (back.num_keypoints, back.options["output"]) == (3, "softmax")
    tensors = back.state_dict()
    assert tensors.keys() == net.state_dict().keys()
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(tensors[key], tensor, rtol=1e-5, atol=1e-5 * float(tensor.abs().max()))


@pytest.mark.parametrize(
    "name",
    ["dy_mobilenetv2_035-dy_bneck", "dy_mobilenetv2_035-fpn", pytest.param("dy_resnet10-fpn", marks=pytest.mark.slow)],
)
def test_outputs_of_to_static_equal_those_with_uniform_attention(make, name):
    net = make(name)
    set_temperature(net, 1e9)
    static = to_static(net)
    assert not any(isinstance(layer, DynamicConv2d) for layer in static.modules())
    assert_same_outputs(net, static)


@pytest.mark.parametrize("num_kernels", [2, 4])
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_noise_is_relative_to_each_filter_and_sums_to_zero(num_kernels, noise):
    torch.manual_seed(0)
    sizes = torch.logspace(-4, 4, 40)
    static = {"weight": 3 * torch.randn(40, 25, 5, 5) * sizes[:, None, None, None], "bias": sizes}
    layer = DynamicConv2d(25, 40, 5, num_kernels=num_kernels)
    convert_weights(static, layer, noise)
    for name, kernel in static.items():
        kernels = layer.get_parameter(name).detach()
        deviations = (kernels - kernel).reshape(num_kernels, 40, -1)
        size = kernel.reshape(40, -1).square().mean(dim=1).sqrt()
        assert (deviations.sum(dim=0).abs() < 1e-5 * size[:, None]).all()
        if name == "weight":
            measured = deviations.square().mean(dim=2).sqrt() / size
            torch.testing.assert_close(measured, torch.full_like(measured, noise), rtol=0.12, atol=0)


def test_attention_has_a_gradient_only_with_noise():
    static = nn.Conv2d(4, 8, 3).state_dict()
    gradients = []
    for noise in (0, 0.05):
        layer = DynamicConv2d(4, 8, 3).double()
        convert_weights(static, layer, noise)
        layer(X.double().repeat(1, 2, 1, 1)[:, :4]).square().mean().backward()
        gradients.append(float(layer.attention.fc2.bias.grad.abs().max()))
    assert gradients[0] < 1e-12
    assert gradients[1] > 1e-6


@pytest.mark.parametrize("shape", [(6,), (6, 3, 3, 3)])
def test_spread_kernels_have_the_given_mean(shape):
    kernel = torch.randn(shape)
    for num_kernels in (1, 2, 4):
        kernels = spread(kernel, num_kernels, 0.3, torch.Generator().manual_seed(0))
        assert kernels.shape == (num_kernels, *shape)
        torch.testing.assert_close(kernels.mean(dim=0), kernel)
        torch.testing.assert_close(spread(kernel, num_kernels, 0.3, torch.Generator().manual_seed(0)), kernels)
    torch.testing.assert_close(spread(kernel, 1, 0.3), kernel[None])


def test_the_k_kernels_of_a_layer_differ(make):
    for layer in to_dynamic(make("mobilenetv2_035-bneck")).modules():
        if isinstance(layer, DynamicConv2d):
            assert all(not torch.equal(a, b) for a, b in itertools.combinations(layer.weight, 2))


def test_one_kernel_equals_the_static_network(make):
    net = make("mobilenetv2_035-fpn")
    assert_same_outputs(net, to_dynamic(net, num_kernels=1))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param(source, target, marks=() if index in (6, 9, 12) else pytest.mark.slow)
        for index, (source, target) in enumerate(itertools.product(BNECK_FORMS, BNECK_FORMS))
    ],
)
def test_every_form_converts_to_every_other_layer_by_layer(make, source, target):
    given, net = make(source), make(target)
    tensors = given.state_dict()
    fresh = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    conversion = convert_weights(tensors, net)
    for key, tensor in net.state_dict().items():
        inflated = key.endswith((".attention.fc2.weight", ".attention.fc2.bias")) and key not in tensors
        if inflated:
            expected = torch.zeros_like(tensor)
        elif key not in tensors:
            assert "attention" in key
            expected = fresh[key]
        else:
            expected = tensors[key]
            if tensor.ndim > expected.ndim:
                tensor = tensor.mean(dim=0)
            elif tensor.ndim < expected.ndim:
                expected = expected.mean(dim=0)
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    before, after = (
        {name for name, layer in form.named_modules() if isinstance(layer, DynamicConv2d)} for form in (given, net)
    )
    assert (conversion.inflated, conversion.averaged) == (len(after - before), len(before - after))
    shared = tensors.keys() & fresh.keys()
    assert conversion.copied == len(shared) - len(before ^ after)


def test_layers_that_stay_static_are_copied(make):
    net = make("mobilenetv2_035-bneck")
    target = create_model("dy_mobilenetv2_035-dy_bneck", num_keypoints=3, dynamic_layers=["depthwise"], **SHALLOW)
    target.double().eval()
    conversion = convert_weights(net.state_dict(), target)
    assert conversion.inflated == 7 + 4
    assert "11 static kernels made dynamic (with uniform attention)" in str(conversion)
    assert_same_outputs(net, target)


def test_options_of_dynamic_layers_are_dropped_from_the_static_counterpart(make):
    net = make("dy_mobilenetv2_035-bneck", dynamic_layers=["project"], depth=0.5)
    static = to_static(net)
    assert static.options["depth"] == 0.5
    assert "dynamic_layers" not in static.options


def test_conversion_keeps_the_given_network_its_mode_and_the_random_state(make):
    net = make("mobilenetv2_035-fpn")
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    converted = [to_dynamic(net, seed=seed) for seed in (0, 0, 1)]
    static = to_static(converted[0].train())
    assert torch.equal(torch.get_rng_state(), state)
    assert static.training
    assert not converted[1].training
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    weights = [each.backbone.blocks[3].expand[0].weight for each in converted]
    assert weights[0].dtype == torch.float64
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("source", "options", "target", "problem"),
    [
        (
            *("mobilenetv2_050-bneck", {}, "dy_mobilenetv2_035-bneck"),
            r"project\.0\.weight .*\(16, 48, 1, 1\).*\(8, 48, 1, 1\).* \(\d+ more",
        ),
        ("mobilenetv2_035-deconv", {}, "mobilenetv2_035-bneck", r"head\.stages.* missing"),
        (
            *("mobilenetv2_035-bneck", {"num_keypoints": 4}, "dy_mobilenetv2_035-bneck"),
            r"head\.heatmap\.weight .*\(4, 128, 1, 1\).*\(3, 128, 1, 1\)",
        ),
        (
            *("dy_mobilenetv2_035-bneck", {"num_kernels": 2}, "dy_mobilenetv2_035-bneck"),
            r"backbone\.blocks\.0\.depthwise\.0\.weight .*num_kernels=2.*num_kernels=4",
        ),
        ("dy_mobilenetv2_035-bneck", {"attention": "sigmoid"}, "mobilenetv2_035-bneck", "sigmoid"),
        (
            *("dy_mobilenetv2_035-bneck", {"attention": "sigmoid"}, "dy_mobilenetv2_035-bneck"),
            r"attention\.temperature is missing",
        ),
    ],
)
def test_tensors_of_a_different_network_are_rejected_by_name(source, options, target, problem):
    given = create_model(source, **({"num_keypoints": 3} | SHALLOW | options)).state_dict()
    net = create_model(target, num_keypoints=3, **SHALLOW)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=problem):
        convert_weights(given, net)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_sigmoid_attention_has_no_static_counterpart():
    net = create_model("mobilenetv2_035-fpn", num_keypoints=3, **SHALLOW)
    target = create_model("dy_mobilenetv2_035-fpn", num_keypoints=3, attention="sigmoid", **SHALLOW)
    with pytest.raises(ValueError, match="sigmoid"):
        convert_weights(net.state_dict(), target)
    convert_weights(target.state_dict(), target)
    with pytest.raises(ValueError, match="sigmoid"):
        to_static(target)


def test_missing_and_additional_tensors_are_rejected(make):
    net = make("dy_mobilenetv2_035-bneck")
    tensors = net.state_dict()
    fc1 = "backbone.blocks.0.depthwise.0.attention.fc1.weight"
    with pytest.raises(ValueError, match=r"backbone\.more"):
        convert_weights({**tensors, "backbone.more": X}, net)
    for key in (fc1, fc1.replace("fc1", "fc2"), "backbone.stem.1.running_mean"):
        with pytest.raises(ValueError, match="the weights do not fit the network"):
            convert_weights({name: tensor for name, tensor in tensors.items() if name != key}, net)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_invalid_noise_is_rejected(make, noise):
    net = make("mobilenetv2_035-fpn")
    with pytest.raises(ValueError, match=f"noise.*{noise}"):
        to_dynamic(net, noise=noise)


@pytest.mark.parametrize(
    "name",
    [
        "dy_mobilenetv2_035-dy_fpn",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("mobilenetv2_035-dy_bneck", "dy_mobilenetv2_035-fpn")
        ),
    ],
)
def test_dynamic_convolutions_with_another_number_of_kernels_are_rejected(name, tmp_path):
    net = create_model(name, num_keypoints=3, num_kernels=2, **SHALLOW)
    for arguments in ({}, {"num_kernels": 3}):
        with pytest.raises(ValueError, match=rf"num_kernels=2.*{name}.*to_static") as caught:
            to_dynamic(net, **arguments)
        assert f"got num_kernels={arguments.get('num_kernels', 4)}" in str(caught.value)
    for converted, num_kernels in ((to_dynamic(net, num_kernels=2), 2), (to_dynamic(to_static(net), num_kernels=3), 3)):
        save_weights(converted, tmp_path / "net.safetensors")
        loaded = load_checkpoint(tmp_path / "net.safetensors")
        assert loaded.options["num_kernels"] == num_kernels
        assert {layer.num_kernels for layer in loaded.modules() if isinstance(layer, DynamicConv2d)} == {num_kernels}


def test_select_of_a_pose_net_is_rejected(make):
    with pytest.raises(ValueError, match="dynamic_layers"):
        to_dynamic(make("mobilenetv2_035-deconv"), select=lambda name, conv: True)

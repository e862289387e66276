import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from posedy.models.conversion import convert_weights, to_dynamic, to_static
from posedy.models.dynamic_conv import DynamicConv2d, set_temperature
from posedy.models.pose_net import PoseNet
from posedy.models.registry import create_model

X = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
BNECK_FORMS = [
    f"{backbone}-{head}" for backbone in ("mobilenetv2_035", "dy_mobilenetv2_035") for head in ("bneck", "dy_bneck")
]


@pytest.fixture(scope="module")
def make(perturb: Callable[..., PoseNet]) -> Callable[..., PoseNet]:
    """`make(name, **options)`: a network of 3 keypoints in float64 with perturbed weights and sharp attention."""

    made: dict[str, PoseNet] = {}

    def make(name: str, **options: object) -> PoseNet:
        key = f"{name} {options}"
        if key not in made:
            torch.manual_seed(5)
            made[key] = perturb(create_model(name, 3, input_size=(32, 64), **options), X)
        return copy.deepcopy(made[key]).double()

    return make


@torch.no_grad()
def assert_same_outputs(net: nn.Module, other: nn.Module) -> None:
    expected = net(X.double())
    assert (other(X.double()) - expected).abs().max() <= 1e-5 * expected.abs().max()


def sharpened(net: PoseNet) -> PoseNet:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        if "attention" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    set_temperature(net, 0.1)
    return net


@pytest.mark.parametrize("name", ["mobilenetv2_035-bneck", "mobilenetv2_035-deconv", "mobilenetv2_035-dy_bneck"])
def test_without_noise_outputs_stay_whatever_the_attention(make, name):
    net = make(name)
    twin = to_dynamic(net, noise=0)
    assert twin.name == ("dy_mobilenetv2_035-deconv" if "deconv" in name else "dy_mobilenetv2_035-dy_bneck")
    assert_same_outputs(net, twin)
    if "dy_" not in name:
        assert_same_outputs(net, sharpened(twin))


@pytest.mark.parametrize("name", ["mobilenetv3_small-bneck", "resnet10-deconv", "mobilenetv2_035-bneck"])
def test_to_static_undoes_to_dynamic(make, name):
    net = make(name, output="softmax")
    back = to_static(to_dynamic(net, num_kernels=3, noise=0.5))
    assert back.options == net.options
    assert (back.name, back.skeleton, back.input_size) == (net.name, net.skeleton, net.input_size)
    assert (back.num_keypoints, back.options["output"]) == (3, "softmax")
    tensors = back.state_dict()
    assert tensors.keys() == net.state_dict().keys()
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(tensors[key], tensor, rtol=1e-5, atol=1e-5 * float(tensor.abs().max()))


@pytest.mark.parametrize("name", ["dy_mobilenetv2_035-dy_bneck", "dy_mobilenetv2_035-bneck", "dy_resnet10-deconv"])
def test_to_static_is_the_network_under_uniform_attention(make, name):
    net = make(name)
    set_temperature(net, 1e9)
    static = to_static(net)
    assert not any(isinstance(layer, DynamicConv2d) for layer in static.modules())
    assert_same_outputs(net, static)


@pytest.mark.parametrize("num_kernels", [2, 4])
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_noise_of_each_filter(num_kernels, noise):
    """Filters of sizes far apart, and a bias: each deviation is relative to its own filter, and their sum is 0."""
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


def test_noise_lets_the_attention_learn():
    static = nn.Conv2d(4, 8, 3).state_dict()
    gradients = []
    for noise in (0, 0.05):
        layer = DynamicConv2d(4, 8, 3).double()
        convert_weights(static, layer, noise)
        layer(X.double().repeat(1, 2, 1, 1)[:, :4]).square().mean().backward()
        gradients.append(float(layer.attention.fc2.bias.grad.abs().max()))
    assert gradients[0] < 1e-12
    assert gradients[1] > 1e-6


def test_all_kernels_differ(make):
    for layer in to_dynamic(make("mobilenetv2_035-bneck")).modules():
        if isinstance(layer, DynamicConv2d):
            assert all(not torch.equal(a, b) for a, b in itertools.combinations(layer.weight, 2))


def test_one_kernel_is_the_static_one(make):
    net = make("mobilenetv2_035-deconv")
    assert_same_outputs(net, to_dynamic(net, num_kernels=1))


@pytest.mark.parametrize("source", BNECK_FORMS)
@pytest.mark.parametrize("target", BNECK_FORMS)
def test_every_form_becomes_every_other_layer_by_layer(make, source, target):
    given, net = make(source), make(target)
    tensors = given.state_dict()
    fresh = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    conversion = convert_weights(tensors, net)
    for key, tensor in net.state_dict().items():
        if key not in tensors:
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
    assert (conversion.multiplied, conversion.averaged) == (len(after - before), len(before - after))
    shared = tensors.keys() & fresh.keys()
    assert conversion.copied == len(shared) - len(before ^ after)


def test_layers_that_stay_static_by_option(make):
    net = make("mobilenetv2_035-bneck")
    target = create_model("dy_mobilenetv2_035-dy_bneck", 3, dynamic_layers=["depthwise"]).double().eval()
    conversion = convert_weights(net.state_dict(), target, noise=0)
    assert conversion.multiplied == 17 + 4
    assert_same_outputs(net, target)


def test_options_of_dynamic_layers_do_not_reach_the_static_twin(make):
    net = make("dy_mobilenetv2_035-bneck", dynamic_layers=["project"], depth=0.5)
    static = to_static(net)
    assert static.options["depth"] == 0.5
    assert "dynamic_layers" not in static.options


def test_the_given_network_the_mode_and_the_random_numbers_stay(make):
    net = make("mobilenetv2_035-deconv")
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    twins = [to_dynamic(net, seed=seed) for seed in (0, 0, 1)]
    static = to_static(twins[0].train())
    assert torch.equal(torch.get_rng_state(), state)
    assert static.training
    assert not twins[1].training
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    weights = [twin.backbone.blocks[3].expand[0].weight for twin in twins]
    assert weights[0].dtype == torch.float64
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("source", "options", "target", "problem"),
    [
        (
            *("mobilenetv2_050-bneck", {}, "dy_mobilenetv2_035-bneck"),
            r"project\.0\.weight has the shape \(16, 48, 1, 1\) in them and \(8, 48, 1, 1\) in the network \(\d+ more",
        ),
        ("mobilenetv2_035-deconv", {}, "mobilenetv2_035-bneck", r"they have no head\.stages"),
        (
            *("mobilenetv2_035-bneck", {"num_keypoints": 4}, "dy_mobilenetv2_035-bneck"),
            r"head\.heatmap\.weight has the shape \(4, 128, 1, 1\) in them and \(3, 128, 1, 1\) in the network",
        ),
        (
            *("dy_mobilenetv2_035-bneck", {"num_kernels": 2}, "dy_mobilenetv2_035-bneck"),
            r"backbone\.blocks\.0\.depthwise\.0\.weight has num_kernels=2 in them and num_kernels=4 in the network",
        ),
        ("dy_mobilenetv2_035-bneck", {"attention": "sigmoid"}, "mobilenetv2_035-bneck", r"sigmoid .* not sum to one"),
        (
            *("dy_mobilenetv2_035-bneck", {"attention": "sigmoid"}, "dy_mobilenetv2_035-bneck"),
            r"they have no .*attention\.temperature",
        ),
    ],
)
def test_other_networks_are_refused_with_what_differs(source, options, target, problem):
    given = create_model(source, **({"num_keypoints": 3} | options)).state_dict()
    net = create_model(target, 3)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=problem):
        convert_weights(given, net)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_sigmoid_attention_has_no_static_twin():
    net = create_model("mobilenetv2_035-deconv", 3)
    target = create_model("dy_mobilenetv2_035-deconv", 3, attention="sigmoid")
    with pytest.raises(ValueError, match="not sum to one"):
        convert_weights(net.state_dict(), target)
    convert_weights(target.state_dict(), target)
    with pytest.raises(ValueError, match="not sum to one"):
        to_static(target)


def test_missing_and_surplus_tensors_are_refused(make):
    net = make("dy_mobilenetv2_035-bneck")
    tensors = net.state_dict()
    fc1 = "backbone.blocks.0.depthwise.0.attention.fc1.weight"
    with pytest.raises(ValueError, match=r"the network has no backbone\.more"):
        convert_weights({**tensors, "backbone.more": X}, net)
    for key in (fc1, fc1.replace("fc1", "fc2"), "backbone.stem.1.running_mean"):
        with pytest.raises(ValueError, match="the weights do not fit the network"):
            convert_weights({name: tensor for name, tensor in tensors.items() if name != key}, net)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_noise_is_a_number_of_at_least_0(make, noise):
    net = make("mobilenetv2_035-deconv")
    with pytest.raises(ValueError, match=r"noise is a number of at least 0"):
        to_dynamic(net, noise=noise)

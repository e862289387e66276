"""Complexity equals layers.csv (counted by hand at 224x224, for heads with an 8x6 feature map) and section 3.2."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from posedy.models.blocks import SqueezeExcitation
from posedy.models.complexity import Complexity, ConvLayer, measure, measure_layers
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.factory import create_backbone, create_model
from posedy.models.meta import meta_device

# name in layers.csv -> a backbone, or a network with that head
NETWORKS = {
    "mobilenetv2_x1": "mobilenetv2_100",
    "mobilenetv2_x0.75": "mobilenetv2_075",
    "mobilenetv2_x0.5": "mobilenetv2_050",
    "mobilenetv2_x0.35": "mobilenetv2_035",
    "mobilenetv3_small_v1": "mobilenetv3_small",
    "resnet18": "resnet18",
    "resnet10": "resnet10",
    "head_typeB_B1280": "mobilenetv2_100-bneck",
    "head_typeB_B576": "mobilenetv3_small-bneck",
}


def reference_layers(name: str) -> list[dict[str, Any]]:
    """Returns the rows of a network in execution order; the file lists shortcuts before the second convolution."""
    with (Path(__file__).parent / "layers.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == name]
    shortcuts = [index for index, row in enumerate(rows) if row["kind"] == "ds"]
    for index in shortcuts:
        rows[index], rows[index + 1] = rows[index + 1], rows[index]
    return rows


def size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def expected_layer(row: dict[str, Any], is_dynamic: bool) -> dict[str, Any]:
    return {
        "in_channels": int(row["cin"]),
        "out_channels": int(row["cout"]),
        "kernel_size": (int(row["k"]), int(row["k"])),
        "groups": int(row["groups"]),
        "in_size": size(row["in_hw"]),
        "out_size": size(row["out_hw"]),
        "is_dynamic": is_dynamic and row["dynamic"] == "1",
        "weights": int(row["weights"]),
        "madds": int(row["madds"]),
    }


def without_name(layer: ConvLayer) -> dict[str, Any]:
    return {key: value for key, value in vars(layer).items() if key != "name"}


@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.slow if name.endswith(("x1", "x0.75", "x0.5", "x0.35", "resnet18", "B1280")) else ()
        )
        for name in NETWORKS
    ],
)
def test_layers_equal_reference(name: str, is_dynamic: bool) -> None:
    model_name = NETWORKS[name] if not is_dynamic else "dy_" + NETWORKS[name].replace("-", "-dy_")
    with meta_device():
        if "-" in model_name:
            network = create_model(model_name)
            layers = measure_layers(network.head, (network.backbone.out_channels, 8, 6))
        else:
            layers = measure_layers(create_backbone(model_name), (3, 224, 224))
    rows = reference_layers(name)
    assert [without_name(layer) for layer in layers] == [expected_layer(row, is_dynamic) for row in rows]
    assert len(rows) >= 12


def test_layers_are_named_and_in_execution_order() -> None:
    with meta_device():
        network = create_backbone("dy_mobilenetv2_035")
    layers = measure_layers(network, (3, 64, 96))
    modules = dict(network.named_modules())
    assert all(isinstance(modules[layer.name], nn.Conv2d | DynamicConv2d) for layer in layers)
    assert all(before.out_size == after.in_size for before, after in pairwise(layers))
    assert (layers[0].in_size, layers[-1].out_size) == ((64, 96), (2, 3))


@st.composite
def dynamic_convs(draw: st.DrawFn) -> tuple[DynamicConv2d, int, int]:
    """A layer with the (H, W) of a sufficiently large input."""
    groups = draw(st.integers(1, 4))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.integers(1, 2))
    with meta_device():
        layer = DynamicConv2d(
            groups * draw(st.integers(1, 9)),
            groups * draw(st.integers(1, 9)),
            kernel,
            stride=draw(st.integers(1, 3)),
            padding=draw(st.integers(0, 2)),
            dilation=dilation,
            groups=groups,
            bias=draw(st.booleans()),
            num_kernels=draw(st.integers(1, 6)),
        )
    height, width = (dilation * (side - 1) + 1 + draw(st.integers(0, 12)) for side in kernel)
    return layer, height, width


@settings(max_examples=25, deadline=None)
@given(dynamic_convs())
def test_dynamic_convolution_equals_section_3_2(case: tuple[DynamicConv2d, int, int]) -> None:
    layer, height, width = case
    c_in, c_out, kernels = layer.in_channels, layer.out_channels, layer.num_kernels
    area = layer.kernel_size[0] * layer.kernel_size[1]
    out_height, out_width = (
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, padding, dilation, kernel, stride in zip(
            (height, width), layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    )
    weights = c_in * c_out * area // layer.groups
    hidden = max(c_in // 4, 1)
    convolution = out_height * out_width * weights
    attention = height * width * c_in + c_in * hidden + hidden * kernels
    aggregation = kernels * weights + (kernels * c_out if layer.bias is not None else 0)
    assert measure(layer, (c_in, height, width)).madds == convolution + attention + aggregation
    (measured,) = measure_layers(layer, (c_in, height, width))
    assert (measured.madds, measured.weights, measured.is_dynamic) == (convolution, weights, True)


def test_measure_excludes_pooling_of_se_and_norms() -> None:
    network = nn.Sequential(SqueezeExcitation(16), nn.BatchNorm2d(16), nn.Upsample(scale_factor=2), nn.ReLU())
    # weights and biases of two linear layers, scale and shift of the norm
    assert measure(network, (16, 5, 7)) == Complexity(2 * 16 * 4 + 4 + 16 + 2 * 16, 2 * 16 * 4)


def test_deconvolution_is_input_pixels_times_weights() -> None:
    deconv = nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1)
    assert measure(deconv, (3, 6, 7)) == Complexity(3 * 5 * 16 + 5, 6 * 7 * 3 * 5 * 16)
    (layer,) = measure_layers(deconv, (3, 6, 7))
    assert (layer.in_size, layer.out_size, layer.madds) == ((6, 7), (12, 14), 6 * 7 * 3 * 5 * 16)


def test_shared_layer_adds_madds_for_each_call() -> None:
    conv = nn.Conv2d(4, 4, 1, bias=False)
    assert measure(nn.Sequential(conv, conv), (4, 3, 3)) == Complexity(16, 2 * 9 * 16)


def test_network_is_the_sum_of_backbone_and_head() -> None:
    network = create_model("dy_mobilenetv2_035-dy_bneck", depth=0.34)
    parts = measure(network.backbone, (3, 64, 96)) + measure(network.head, (1280, 2, 3))
    assert measure(network, (3, 64, 96)) == parts


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_measure_is_independent_of_precision_and_device(dtype: torch.dtype) -> None:
    network = create_backbone("dy_mobilenetv2_035", depth=0.34)
    expected = measure(network, (3, 32, 32))
    assert measure(network.to("meta", dtype), (3, 32, 32)) == expected


def test_measure_does_not_change_the_network() -> None:
    network = create_model("dy_mobilenetv2_035-bneck", depth=0.34).train()
    network.head.eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    parameters = [id(parameter) for parameter in network.parameters()]
    modes = [module.training for module in network.modules()]
    measure(network, (3, 64, 64))
    measure_layers(network, (3, 64, 64))
    assert [id(parameter) for parameter in network.parameters()] == parameters
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert network(torch.zeros(2, 3, 64, 64)).requires_grad


def test_meta_device_creates_the_network_without_values() -> None:
    with meta_device():
        network = create_model("dy_mobilenetv2_035-dy_fpn", depth=0.34)
    state, expected = network.state_dict(), create_model("dy_mobilenetv2_035-dy_fpn", depth=0.34).state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {name: x.shape for name, x in expected.items()}
    assert all(tensor.is_meta for tensor in state.values())
    assert torch.zeros(1).normal_() != 0
    assert torch.zeros(1).uniform_(1, 2) >= 1


@pytest.mark.parametrize("shape", [(3, 64), (1, 3, 64, 64), (3, 0, 64)])
def test_measure_rejects_invalid_input_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="input_shape"):
        measure(nn.Identity(), shape)

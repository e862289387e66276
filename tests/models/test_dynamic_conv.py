import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from posedy.models.dynamic_conv import DynamicConv2d, make_kernels_equal

CASES: dict[str, dict[str, Any]] = {
    "1x1": {"in_channels": 6, "out_channels": 5, "kernel_size": 1},
    "1x1, stride 2": {"in_channels": 6, "out_channels": 5, "kernel_size": 1, "stride": 2},
    "1x1, padding": {"in_channels": 6, "out_channels": 5, "kernel_size": 1, "padding": 1},
    "1x1, groups": {"in_channels": 6, "out_channels": 4, "kernel_size": 1, "groups": 2},
    "3x3": {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1},
    "3x3, stride 2, no bias": {
        **{"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "stride": 2, "bias": False}
    },
    "3x3, groups": {"in_channels": 6, "out_channels": 9, "kernel_size": 3, "groups": 3, "dilation": 2},
    "depthwise": {"in_channels": 5, "out_channels": 5, "kernel_size": 3, "padding": 1, "groups": 5},
    "depthwise, stride 2": {
        **{"in_channels": 5, "out_channels": 5, "kernel_size": 5, "padding": 2, "stride": 2, "groups": 5, "bias": False}
    },
    "depthwise, dilation": {
        **{"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 2, "dilation": 2, "groups": 4}
    },
    "depthwise with a multiplier": {"in_channels": 3, "out_channels": 6, "kernel_size": 3, "groups": 3},
    "non-square": {
        **{"in_channels": 4, "out_channels": 3, "kernel_size": (3, 2), "padding": (0, 1)},
        **{"stride": (1, 2), "dilation": (2, 1)},
    },
    "one channel": {"in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": 1},
    "three channels": {"in_channels": 3, "out_channels": 2, "kernel_size": 3, "padding": 1},
    "one kernel": {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "num_kernels": 1},
    "eight kernels": {"in_channels": 8, "out_channels": 4, "kernel_size": 3, "num_kernels": 8, "reduction": 2},
}
by_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    groups = draw(st.integers(1, 4))
    depthwise = draw(st.booleans())
    pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))
    return {
        "in_channels": groups * (1 if depthwise else draw(st.integers(1, 3))),
        "out_channels": groups * (1 if depthwise else draw(st.integers(1, 3))),
        "kernel_size": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        "stride": draw(pairs),
        "padding": draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
        "dilation": draw(pairs),
        "groups": groups,
        "bias": draw(st.booleans()),
        "num_kernels": draw(st.integers(1, 5)),
        "reduction": draw(st.integers(1, 8)),
        "temperature": draw(st.sampled_from([1.0, 4.5, 30.0])),
    }


def images(layer: DynamicConv2d, batch: int, height: int = 7, width: int = 9, dtype: Any = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(batch * 1000 + height)
    noise = torch.randn(batch, layer.in_channels, height, width, generator=generator, dtype=torch.float64)
    level = torch.randn(batch, layer.in_channels, 1, 1, generator=generator, dtype=torch.float64)
    return (noise + level).to(dtype)


def reference_attention(layer: DynamicConv2d, image: Tensor, temperature: float) -> Tensor:
    pooled = image.sum(dim=(1, 2)) / (image.shape[1] * image.shape[2])
    hidden = (layer.attention.fc1.weight @ pooled + layer.attention.fc1.bias).clamp(min=0)
    z = layer.attention.fc2.weight @ hidden + layer.attention.fc2.bias
    powers = torch.exp((z - z.max()) / temperature)
    return powers / powers.sum()


def equation_1(layer: DynamicConv2d, x: Tensor, case: dict[str, Any]) -> Tensor:
    """Reference implementation: a loop over images."""
    outputs = []
    for image in x:
        pi = reference_attention(layer, image, case.get("temperature", 30.0))
        kernel = sum(pi[k] * layer.weight[k] for k in range(len(pi)))
        bias = sum(pi[k] * layer.bias[k] for k in range(len(pi))) if layer.bias is not None else None
        conv_params = [case.get(name, default) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
        outputs.append(F.conv2d(image[None], kernel, bias, *conv_params, case.get("groups", 1)))
    return torch.cat(outputs)


def assert_attention_is_sharp_and_differs_per_image(layer: DynamicConv2d, x: Tensor) -> None:
    if layer.num_kernels == 1 or len(x) == 1:
        return
    attention = layer.attention(x)
    assert attention.amax() > 0.8
    assert (attention - attention[:1]).abs().max() > 0.3


def assert_equal_with_gradients(case: dict[str, Any], x: Tensor, perturb: Callable[..., nn.Module]) -> None:
    layer = perturb(DynamicConv2d(**case).double(), x)
    assert_attention_is_sharp_and_differs_per_image(layer, x)
    expected_x, x = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = equation_1(layer, expected_x, case)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = dict(layer.named_parameters())
    expected_gradients = torch.autograd.grad((expected * grad).sum(), [expected_x, *parameters.values()])
    y = layer(x)
    gradients = torch.autograd.grad((y * grad).sum(), [x, *parameters.values()])
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-9 * float(expected.detach().abs().max()))
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients)
    for name, gradient, wanted in zip(["x", *parameters], gradients, expected_gradients, strict=True):
        # a gradient that is always zero (attention with one kernel) has rounding errors relative to the largest
        atol = 1e-9 * float(wanted.abs().max()) + 1e-12 * largest
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@by_case
@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_output_and_gradients_equal_equation_1(case, batch, perturb):
    assert_equal_with_gradients(case, images(DynamicConv2d(**case), batch), perturb)


@settings(deadline=None, max_examples=60)
@given(layers(), st.integers(1, 3), st.integers(0, 4), st.integers(0, 4))
def test_output_and_gradients_equal_equation_1_for_any_layer(perturb, case, batch, extra_height, extra_width):
    min_size = [(k - 1) * d + 1 for k, d in zip(case["kernel_size"], case["dilation"], strict=True)]
    x = images(DynamicConv2d(**case), batch, min_size[0] + extra_height, min_size[1] + extra_width)
    assert_equal_with_gradients(case, x, perturb)


@by_case
def test_an_empty_batch_has_an_empty_output_and_zero_gradients(case):
    layer = DynamicConv2d(**case).double()
    x = images(layer, 1)[:0].requires_grad_()
    y = layer(x)
    assert y.shape == (0, *layer(images(layer, 1)).shape[1:])
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@by_case
def test_output_of_an_image_is_independent_of_the_batch(case, perturb):
    layer = DynamicConv2d(**case)
    x = images(layer, 4, dtype=torch.float32)
    perturb(layer, x)
    y = layer(x)
    for index in range(4):
        alone = layer(x[index : index + 1])
        torch.testing.assert_close(y[index : index + 1], alone, rtol=0, atol=1e-5 * float(y.detach().abs().max()))


@by_case
def test_output_is_independent_of_the_memory_format(case, perturb):
    layer = DynamicConv2d(**case).double()
    x = images(layer, 3)
    perturb(layer, x)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    expected = layer(x)
    torch.testing.assert_close(layer(channels_last), expected, rtol=1e-12, atol=1e-12)
    strided = torch.stack([x, x], dim=-1)[..., 0]
    torch.testing.assert_close(layer(strided), expected, rtol=1e-12, atol=1e-12)
    weight = layer.weight
    layer.to(memory_format=torch.channels_last)
    assert layer.weight is weight
    torch.testing.assert_close(layer(channels_last), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(channels_last[:1]), expected[:1], rtol=1e-12, atol=1e-12)


@by_case
def test_one_kernel_equals_a_static_convolution(case):
    layer = DynamicConv2d(**(case | {"num_kernels": 1})).double()
    arguments = {name: value for name, value in case.items() if name not in ("num_kernels", "reduction")}
    static = nn.Conv2d(**arguments).double()
    static.load_state_dict({name: value[0] for name, value in layer.state_dict().items() if "attention" not in name})
    x = images(layer, 3)
    torch.testing.assert_close(layer(x), static(x), rtol=1e-12, atol=1e-12)


@by_case
def test_each_kernel_is_initialized_as_a_static_convolution(case):
    torch.manual_seed(0)
    wide = case | {"in_channels": 48 * case["in_channels"], "out_channels": 48 * case["out_channels"]}
    if case.get("groups", 1) == case["in_channels"]:
        wide["groups"] = wide["in_channels"]
    layer = DynamicConv2d(**wide)
    arguments = {name: value for name, value in wide.items() if name not in ("num_kernels", "reduction")}
    static = nn.Conv2d(**arguments)
    for kernel in layer.weight:
        torch.testing.assert_close(kernel.std(), static.weight.std(), rtol=0.1, atol=0)
        torch.testing.assert_close(kernel.abs().max(), static.weight.abs().max(), rtol=0.1, atol=0)
    if layer.bias is not None:
        assert static.bias is not None
        torch.testing.assert_close(layer.bias.std(), static.bias.std(), rtol=0.25, atol=0)


def test_kernels_are_initialized_independently():
    layer = DynamicConv2d(8, 8, 3)
    correlation = torch.corrcoef(layer.weight.detach().flatten(1))
    assert (correlation - torch.eye(4)).abs().max() < 0.3


@by_case
@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_gradients_under_autocast(case, batch, perturb):
    layer = DynamicConv2d(**case)
    x = images(layer, batch, dtype=torch.float32)
    perturb(layer, x)

    def step() -> tuple[Tensor, dict[str, Tensor]]:
        layer.zero_grad()
        y = layer(x)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        (y.float() * grad).sum().backward()
        return y, {name: parameter.grad for name, parameter in layer.named_parameters() if parameter.grad is not None}

    expected, expected_gradients = step()
    with torch.autocast("cpu", torch.bfloat16):
        y, gradients = step()
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.03 * float(expected.detach().abs().max()))
    assert gradients.keys() == expected_gradients.keys() == dict(layer.named_parameters()).keys()
    for name in ("weight", "bias") if layer.bias is not None else ("weight",):
        assert gradients[name].dtype == torch.float32
        atol = 0.03 * float(expected_gradients[name].abs().max())
        torch.testing.assert_close(gradients[name], expected_gradients[name], rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_layer_supports_other_precisions(dtype, perturb):
    layer = DynamicConv2d(16, 16, 3, padding=1, groups=16)
    x = images(layer, 3, dtype=torch.float32)
    perturb(layer, x)
    expected = layer(x)
    y = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    tolerance = {torch.float64: 1e-5, torch.float16: 0.01, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=tolerance * float(expected.detach().abs().max()))


@by_case
def test_meta_device_computes_shapes(case):
    layer = DynamicConv2d(**case)
    x = images(layer, 3, dtype=torch.float32)
    assert copy.deepcopy(layer).to("meta")(x.to("meta")).shape == layer(x).shape


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 3, 8, 8), (2, 4, 8), (1, 2, 4, 8, 8)])
def test_input_of_another_shape_is_rejected(shape):
    with pytest.raises(ValueError, match=r"N, 4, H, W") as error:
        DynamicConv2d(4, 2, 3)(torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_kernels": 0}, "num_kernels"),
        ({"reduction": 0}, "reduction"),
        ({"groups": 0}, "groups"),
        ({"groups": 3}, "in_channels=4"),
        ({"out_channels": 3, "groups": 2}, "out_channels=3"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"kernel_size": (3, 0)}, "kernel_size"),
        ({"stride": 0}, "stride"),
        ({"dilation": (1, -1)}, "dilation"),
        ({"padding": -1}, "padding"),
        ({"padding": "same"}, "'same'"),
    ],
)
def test_invalid_argument_is_rejected_by_name(arguments, match):
    with pytest.raises(ValueError, match=match):
        DynamicConv2d(**({"in_channels": 4, "out_channels": 4, "kernel_size": 3} | arguments))


@by_case
def test_copies_have_equal_outputs(case, perturb):
    layer = DynamicConv2d(**case)
    x = images(layer, 3, dtype=torch.float32)
    perturb(layer, x)
    expected = layer(x)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(copied(x), expected, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1x1", "3x3, groups", "depthwise"])
def test_compiles_without_graph_breaks_for_any_batch(name, perturb):
    layer = DynamicConv2d(**CASES[name]).double()
    perturb(layer, images(layer, 4))
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for batch in (2, 3, 5, 1):
        x, expected_x = images(layer, batch).requires_grad_(), images(layer, batch).requires_grad_()
        y, expected = compiled(x), layer(expected_x)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        y.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, expected_x.grad, rtol=1e-10, atol=1e-10)


def test_repr_shows_the_arguments():
    layer = DynamicConv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False, num_kernels=6)
    assert "4, 8, kernel_size=(3, 3), stride=(2, 2)" in repr(layer)
    assert "groups=2, bias=False, num_kernels=6" in repr(layer)


def test_positional_arguments_are_ordered_as_in_conv2d():
    names = list(inspect.signature(DynamicConv2d).parameters)
    torch_names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"]
    assert list(inspect.signature(nn.Conv2d).parameters)[:8] == names[:8] == torch_names
    assert names[8:13] == ["num_kernels", "reduction", "temperature", "device", "dtype"]
    layer = DynamicConv2d(4, 6, 3, 2, 1, 2, 2, False, 5, 2, 7.0, "cpu", torch.float64)
    assert (layer.stride, layer.padding, layer.dilation, layer.groups) == ((2, 2), (1, 1), (2, 2), 2)
    assert (layer.bias, layer.num_kernels, layer.attention.fc1.out_features) == (None, 5, 2)
    assert layer.attention.temperature == 7
    assert layer(torch.zeros(2, 4, 9, 9, dtype=torch.float64)).shape == (2, 6, 4, 4)


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "normalized"])
def test_device_and_dtype_apply_to_all_tensors(attention):
    layer = DynamicConv2d(4, 6, 3, device="meta", dtype=torch.bfloat16, attention=attention)
    expected = DynamicConv2d(4, 6, 3, attention=attention).state_dict()
    state = layer.state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {name: t.shape for name, t in expected.items()}
    counters = {"attention.norm.num_batches_tracked"}
    assert {(t.device.type, t.dtype) for name, t in state.items() if name not in counters} == {("meta", torch.bfloat16)}


def test_dtype_equals_a_later_conversion():
    torch.manual_seed(0)
    layer = DynamicConv2d(8, 8, 3, padding=2, dilation=2, dtype=torch.float64)
    x = images(layer, 3)
    converted = DynamicConv2d(8, 8, 3, padding=2, dilation=2).double()
    converted.load_state_dict(layer.state_dict())
    torch.testing.assert_close(converted(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "normalized"])
def test_equal_kernels_are_the_first_and_become_different_by_their_share_of_each_image(attention):
    torch.manual_seed(0)
    layer = DynamicConv2d(6, 8, 3, padding=1, temperature=1, attention=attention).double()
    net = nn.Sequential(layer, nn.Conv2d(8, 2, 1))
    first, bias = layer.weight[0].clone(), layer.bias[0].clone()
    make_kernels_equal(net)
    x = torch.randn(5, 6, 7, 7, dtype=torch.float64) + torch.randn(5, 6, 1, 1, dtype=torch.float64)
    y = layer(x)
    share = layer.attention(x).sum(dim=1)  # 1 for softmax
    expected = F.conv2d(x, first, None, padding=1) + bias[:, None, None]
    torch.testing.assert_close(y, share[:, None, None, None] * expected)
    y.square().sum().backward()
    assert all(not torch.allclose(layer.weight.grad[0], grad) for grad in layer.weight.grad[1:])

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posedy.models.ops import DepthwiseConv2d, depthwise_conv


def tensors(batch: int, channels: int, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    return x, torch.randn(channels, 1, *kernel, generator=generator, dtype=torch.float64)


def gradients(function: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, list[Tensor]]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = function(x, weight)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return y.detach(), list(torch.autograd.grad(y, [x, weight], grad))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=150)
@given(
    batch=st.integers(0, 3),
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    stride=st.one_of(st.just((1, 1)), pairs),
    padding=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    dilation=st.one_of(st.just((1, 1)), pairs),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    pad_end=st.integers(0, 1),
)
def test_output_and_gradients_equal_torch(batch, channels, kernel, stride, padding, dilation, extra, pad_end):
    size = tuple((k - 1) * d + 1 + more for k, d, more in zip(kernel, dilation, extra, strict=True))
    x, weight = tensors(batch, channels, size, kernel)
    y, actual = gradients(lambda x, w: depthwise_conv(x, w, stride, padding, dilation, pad_end), x, weight)
    expected, expected_gradients = gradients(
        lambda x, w: F.conv2d(F.pad(x, (0, pad_end) * 2), w, None, stride, padding, dilation, channels), x, weight
    )
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    torch.testing.assert_close(actual, expected_gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), pytest.param((1, 2), marks=pytest.mark.slow)])
@pytest.mark.parametrize("dilation", [(1, 1), pytest.param((2, 1), marks=pytest.mark.slow)])
@pytest.mark.parametrize("kernel", [(3, 3), *(pytest.param(size, marks=pytest.mark.slow) for size in ((5, 5), (2, 4)))])
def test_gradients_pass_gradcheck(stride, dilation, kernel):
    x, weight = tensors(2, 2, (7, 9), kernel)
    assert torch.autograd.gradcheck(
        lambda x, w: depthwise_conv(x, w, stride, (2, 1), dilation), (x.requires_grad_(), weight.requires_grad_())
    )


@pytest.mark.parametrize(
    ("stride", "dilation", "pad_end"),
    [
        ((1, 1), (1, 1), 0),
        ((2, 2), (1, 1), 1),
        *(pytest.param(*case, 0, marks=pytest.mark.slow) for case in (((2, 2), (1, 1)), ((1, 1), (2, 1)))),
    ],
)
def test_second_derivatives_pass_gradgradcheck(stride, dilation, pad_end):
    x, weight = tensors(2, 2, (4, 5), (3, 3))
    assert torch.autograd.gradgradcheck(
        lambda x, w: depthwise_conv(x, w, stride, (1, 1), dilation, pad_end),
        (x.requires_grad_(), weight.requires_grad_()),
    )


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize(("x_needs", "weight_needs"), [(True, False), (False, True), (False, False)])
def test_backward_computes_required_gradients_only(stride, x_needs, weight_needs):
    x, weight = tensors(2, 3, (6, 8), (3, 3))
    _, expected = gradients(lambda x, w: F.conv2d(x, w, None, stride, 1, 1, 3), x, weight)
    x.requires_grad_(x_needs)
    weight.requires_grad_(weight_needs)
    y = depthwise_conv(x, weight, stride, (1, 1), (1, 1))
    assert y.requires_grad == (x_needs or weight_needs)
    if y.requires_grad:
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    for tensor, needs, gradient in zip((x, weight), (x_needs, weight_needs), expected, strict=True):
        assert (tensor.grad is not None) == needs
        if needs:
            torch.testing.assert_close(tensor.grad, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float32, 1e-5)])
def test_gradients_in_low_precision(stride, kernel, dtype, tolerance):
    x, weight = (tensor.to(dtype) for tensor in tensors(4, 8, (24, 18), (kernel, kernel)))
    padding = (kernel // 2, kernel // 2)
    _, exact = gradients(lambda x, w: depthwise_conv(x, w, stride, padding, (1, 1)), x.double(), weight.double())
    _, actual = gradients(lambda x, w: depthwise_conv(x, w, stride, padding, (1, 1)), x, weight)
    for gradient, expected in zip(actual, exact, strict=True):
        assert gradient.dtype == dtype
        # the output gradient is rounded to the lower precision too
        atol = tolerance * float(expected.abs().max())
        torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=atol)


def test_backward_supports_any_memory_layout():
    x, weight = tensors(2, 3, (6, 8), (3, 3))
    channels_last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight.requires_grad_()
    contiguous = x.clone().requires_grad_()
    # the gradient of a sum is one expanded value
    actual = torch.autograd.grad(
        depthwise_conv(channels_last, weight, (1, 1), (1, 1), (1, 1)).sum(), [channels_last, weight]
    )
    expected = torch.autograd.grad(F.conv2d(contiguous, weight, None, 1, 1, 1, 3).sum(), [contiguous, weight])
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pad_end", [0, 1])
def test_channels_last_gradients_equal_torch(pad_end):
    x, weight = tensors(2, 3, (6, 8), (3, 3))
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert channels_last.requires_grad_().shape[1] == 3
    y = depthwise_conv(channels_last, weight.requires_grad_(), (2, 2), (1 - pad_end,) * 2, (1, 1), pad_end)
    assert y.is_contiguous(memory_format=torch.channels_last)
    actual = torch.autograd.grad(y.square().sum(), [channels_last, weight])
    contiguous = x.clone().requires_grad_()
    padded = F.pad(contiguous, (0, pad_end) * 2)
    expected = torch.autograd.grad(
        F.conv2d(padded, weight, None, 2, 1 - pad_end, 1, 3).square().sum(), [contiguous, weight]
    )
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_no_grad_records_no_graph():
    x, weight = tensors(2, 3, (6, 8), (3, 3))
    with torch.no_grad():
        y = depthwise_conv(x, weight.requires_grad_(), (1, 1), (1, 1), (1, 1))
    assert y.grad_fn is None
    torch.testing.assert_close(y, F.conv2d(x, weight, None, 1, 1, 1, 3).detach(), rtol=0, atol=0)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_layer_equals_torch_conv(kernel_size, stride):
    layer = DepthwiseConv2d(6, kernel_size, stride)
    reference = torch.nn.Conv2d(6, 6, kernel_size, stride, kernel_size // 2, groups=6, bias=False)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(0))
    grad = torch.randn(reference(x).shape, generator=torch.Generator().manual_seed(1))
    for module in (layer, reference):
        (module(x) * grad).sum().backward()
    torch.testing.assert_close(layer(x), reference(x), rtol=0, atol=0)
    torch.testing.assert_close(layer.weight.grad, reference.weight.grad)


@pytest.mark.parametrize("batch", [0, 2])
def test_meta_device_computes_shapes(batch):
    layer = DepthwiseConv2d(4, 5, 2).to("meta")
    assert layer(torch.zeros(batch, 4, 8, 6, device="meta")).shape == (batch, 4, 4, 3)


def test_layer_uses_autocast_dtype():
    layer = DepthwiseConv2d(4, 5)
    x = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32

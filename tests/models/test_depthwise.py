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
    pull = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return y.detach(), list(torch.autograd.grad(y, [x, weight], pull))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=150)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    stride=st.one_of(st.just((1, 1)), pairs),
    padding=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    dilation=st.one_of(st.just((1, 1)), pairs),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    pad_end=st.integers(0, 1),
)
def test_gradients_equal_torchs(batch, channels, kernel, stride, padding, dilation, extra, pad_end):
    size = tuple((k - 1) * d + 1 + more for k, d, more in zip(kernel, dilation, extra, strict=True))
    x, weight = tensors(batch, channels, size, kernel)
    y, ours = gradients(lambda x, w: depthwise_conv(x, w, stride, padding, dilation, pad_end), x, weight)
    expected, theirs = gradients(
        lambda x, w: F.conv2d(F.pad(x, (0, pad_end) * 2), w, None, stride, padding, dilation, channels), x, weight
    )
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 4)])
def test_gradcheck(stride, dilation, kernel):
    x, weight = tensors(2, 2, (7, 9), kernel)
    assert torch.autograd.gradcheck(
        lambda x, w: depthwise_conv(x, w, stride, (2, 1), dilation), (x.requires_grad_(), weight.requires_grad_())
    )


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize(("x_needs", "weight_needs"), [(True, False), (False, True), (False, False)])
def test_gives_the_gradients_that_are_asked_for(stride, x_needs, weight_needs):
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
def test_gradients_in_lower_precision(stride, kernel, dtype, tolerance):
    x, weight = (tensor.to(dtype) for tensor in tensors(4, 8, (24, 18), (kernel, kernel)))
    padding = (kernel // 2, kernel // 2)
    _, exact = gradients(lambda x, w: depthwise_conv(x, w, stride, padding, (1, 1)), x.double(), weight.double())
    _, ours = gradients(lambda x, w: depthwise_conv(x, w, stride, padding, (1, 1)), x, weight)
    for gradient, expected in zip(ours, exact, strict=True):
        assert gradient.dtype == dtype
        # The pull of the output is rounded to the lower precision too.
        atol = tolerance * float(expected.abs().max())
        torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=atol)


def test_takes_gradients_of_any_layout():
    x, weight = tensors(2, 3, (6, 8), (3, 3))
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight.requires_grad_()
    plain = x.clone().requires_grad_()
    # The gradient of a sum is one number expanded.
    ours = torch.autograd.grad(depthwise_conv(last, weight, (1, 1), (1, 1), (1, 1)).sum(), [last, weight])
    theirs = torch.autograd.grad(F.conv2d(plain, weight, None, 1, 1, 1, 3).sum(), [plain, weight])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pad_end", [0, 1])
def test_in_channels_last_gradients_are_torchs_own(pad_end):
    x, weight = tensors(2, 3, (6, 8), (3, 3))
    last = x.contiguous(memory_format=torch.channels_last)
    assert last.requires_grad_().shape[1] == 3
    y = depthwise_conv(last, weight.requires_grad_(), (2, 2), (1 - pad_end,) * 2, (1, 1), pad_end)
    assert y.is_contiguous(memory_format=torch.channels_last)
    ours = torch.autograd.grad(y.square().sum(), [last, weight])
    plain = x.clone().requires_grad_()
    padded = F.pad(plain, (0, pad_end) * 2)
    theirs = torch.autograd.grad(F.conv2d(padded, weight, None, 2, 1 - pad_end, 1, 3).square().sum(), [plain, weight])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_second_gradients_are_refused_rather_than_wrong():
    x, weight = (tensor.requires_grad_() for tensor in tensors(1, 2, (4, 4), (3, 3)))
    y = depthwise_conv(x, weight, (1, 1), (1, 1), (1, 1))
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_needs_nothing_of_its_own_without_gradients():
    x, weight = tensors(2, 3, (6, 8), (3, 3))
    with torch.no_grad():
        y = depthwise_conv(x, weight.requires_grad_(), (1, 1), (1, 1), (1, 1))
    assert y.grad_fn is None
    torch.testing.assert_close(y, F.conv2d(x, weight, None, 1, 1, 1, 3).detach(), rtol=0, atol=0)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_layer_is_the_plain_one_with_the_same_weights(kernel_size, stride):
    layer = DepthwiseConv2d(6, kernel_size, stride)
    plain = torch.nn.Conv2d(6, 6, kernel_size, stride, kernel_size // 2, groups=6, bias=False)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(0))
    pull = torch.randn(plain(x).shape, generator=torch.Generator().manual_seed(1))
    for module in (layer, plain):
        (module(x) * pull).sum().backward()
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=0)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)


def test_layer_follows_autocast():
    layer = DepthwiseConv2d(4, 5)
    x = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32

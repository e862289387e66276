"""Hessian products and `torch.func.grad` of whole networks equal those of torch's own operations."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import posedy
from posedy.models import dynamic_conv, ops
from posedy.models.kernels.derivatives import first_derivatives_only

# torch has no second derivative of MobileNetV3's hardsigmoid, and says so
NAMES = [
    "dy_mobilenetv2_035-fpn",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("mobilenetv2_035-fpn", "dy_mobilenetv2_035-dy_bneck", "dy_resnet10-deconv")
    ),
]


def plain_depthwise(
    x: Tensor, weight: Tensor, stride: ops.Pair, padding: ops.Pair, dilation: ops.Pair, pad_end: int = 0
):
    return F.conv2d(ops.pad_bottom_right(x, pad_end), weight, None, stride, padding, dilation, x.shape[1])


@pytest.fixture
def crops() -> Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def hessian_product(name: str, crops: Tensor) -> Tensor:
    torch.manual_seed(0)
    net = posedy.create_model(name, temperature=1.0).double().eval()
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(net(crops).square().sum(), parameters, create_graph=True)
    generator = torch.Generator().manual_seed(1)
    vectors = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
    product = sum((g * v).sum() for g, v in zip(gradients, vectors, strict=True))
    second = torch.autograd.grad(product, parameters, allow_unused=True)
    used = [zero if s is None else s for s, zero in zip(second, map(torch.zeros_like, parameters), strict=True)]
    return torch.cat([tensor.flatten() for tensor in used])


@pytest.mark.parametrize("name", NAMES)
def test_hessian_products_equal_those_of_torch(name: str, crops: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    actual = hessian_product(name, crops)
    monkeypatch.setattr(ops, "depthwise_conv", plain_depthwise)
    monkeypatch.setattr(dynamic_conv, "global_avg_pool", lambda x, dtype: x.mean(dim=(2, 3), dtype=dtype))
    expected = hessian_product(name, crops)
    assert expected.norm() > 0
    assert (actual - expected).norm() < 1e-9 * expected.norm()


@pytest.mark.parametrize("name", NAMES[:2])
def test_func_grad_equals_backward(name: str, crops: Tensor) -> None:
    net = posedy.create_model(name).double().eval()
    parameters = dict(net.named_parameters())
    expected = torch.autograd.grad(net(crops).square().sum(), list(parameters.values()))
    detached = {key: parameter.detach() for key, parameter in parameters.items()}
    actual = torch.func.grad(lambda p: torch.func.functional_call(net, p, (crops,)).square().sum())(detached)
    for gradient, key in zip(expected, parameters, strict=True):
        torch.testing.assert_close(actual[key], gradient)


def test_kernels_without_second_derivatives_raise_instead() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @first_derivatives_only
        def backward(ctx, grad):
            return 2 * grad * ctx.saved_tensors[0]

    x = torch.ones(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(Square.apply(x).sum(), x)
    assert gradient.tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(Square.apply(x).sum(), x, create_graph=True)

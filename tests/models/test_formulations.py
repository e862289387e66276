"""Per-image convolution: every formulation equals a loop in float64."""

import pytest
import torch
import torch.nn.functional as F

from posedy.models.ops import FORMULATIONS, ConvParams, choose_formulation, conv2d, is_applicable

KERNELS = {
    "wider 1x1": (4, 9, 1, ConvParams((1, 1), (0, 0), (1, 1), 1)),
    "narrower 1x1": (8, 3, 1, ConvParams((1, 1), (0, 0), (1, 1), 1)),
    "1x1, stride 2": (4, 6, 1, ConvParams((2, 2), (0, 0), (1, 1), 1)),
    "depthwise": (6, 6, 3, ConvParams((1, 1), (1, 1), (1, 1), 6)),
    "depthwise, stride 2": (5, 5, 5, ConvParams((2, 2), (2, 2), (1, 1), 5)),
    "multiplier": (3, 6, 3, ConvParams((1, 1), (1, 1), (1, 1), 3)),
    "3x3, dilated": (4, 6, 3, ConvParams((2, 1), (1, 0), (1, 2), 1)),
    "depthwise, dilated": (6, 6, 3, ConvParams((1, 1), (2, 2), (2, 2), 6)),
    "groups": (6, 4, 3, ConvParams((1, 1), (1, 1), (1, 1), 2)),
}
MEMORY_ORDERS = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1), "HWNC": (2, 3, 0, 1)}


def with_memory_order(x: torch.Tensor, order: str) -> torch.Tensor:
    """Returns equal images with another memory order."""
    axes = MEMORY_ORDERS[order]
    return x.permute(axes).contiguous().permute([axes.index(axis) for axis in range(4)])


@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("N", [1, pytest.param(2, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("kernel", KERNELS)
def test_formulation_equals_loop(kernel: str, N: int, bias: bool, order: str) -> None:
    C, out, size, params = KERNELS[kernel]
    torch.manual_seed(0)
    x, weight = torch.randn(N, C, 7, 6), torch.randn(N, out, C // params.groups, size, size)
    biases = torch.randn(N, out) if bias else None
    expected = torch.cat(
        [
            F.conv2d(
                x[n : n + 1].double(),
                weight[n].double(),
                biases[n].double() if biases is not None else None,
                params.stride,
                params.padding,
                params.dilation,
                params.groups,
            )
            for n in range(N)
        ]
    )
    applicable = [name for name in FORMULATIONS if is_applicable(name, N, weight, params)]
    assert {
        choose_formulation(N, weight, params, fused=False),
        choose_formulation(N, weight, params, fused=True),
    } <= set(applicable)
    for name in applicable:
        y = FORMULATIONS[name](with_memory_order(x, order), weight, biases, params)
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()), msg=name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
def test_formulations_support_an_empty_batch(kernel: str, bias: bool) -> None:
    C, out, size, params = KERNELS[kernel]
    for params_ in (params, params._replace(pad_end=1)):
        x, weight = torch.zeros(0, C, 7, 6), torch.zeros(0, out, C // params.groups, size, size)
        biases = torch.zeros(0, out) if bias else None
        expected = conv2d(x, torch.zeros(weight.shape[1:]), None, params_).shape
        for name in FORMULATIONS:
            if is_applicable(name, 0, weight, params_):
                assert FORMULATIONS[name](x, weight, biases, params_).shape == expected, name


def test_choose_formulation_uses_every_formulation() -> None:
    chosen = {
        choose_formulation(N, torch.empty(N, out, C // params.groups, size, size), params, fused)
        for C, out, size, params in KERNELS.values()
        for N in (1, 2)
        for fused in (True, False)
    }
    assert chosen == set(FORMULATIONS)


def test_hwnc_order_is_kept_from_layer_to_layer() -> None:
    """An expansion, its activation and the depthwise convolution need no copy between them."""
    C, out, size, params = KERNELS["wider 1x1"]
    wide = FORMULATIONS["pointwise_nhwc"](torch.randn(3, C, 7, 6), torch.randn(3, out, C, size, size), None, params)
    hwnc = (out, 1, 6 * 3 * out, 3 * out)
    assert wide.stride() == wide.clamp(0, 6).stride() == hwnc
    depthwise = ConvParams((1, 1), (1, 1), (1, 1), out)
    assert FORMULATIONS["depthwise_hwnc"](wide, torch.randn(3, out, 1, 3, 3), None, depthwise).stride() == hwnc

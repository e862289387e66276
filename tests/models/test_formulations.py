"""Each way of convolving images with kernels of their own equals a loop in float64."""

import pytest
import torch
import torch.nn.functional as F

from posedy.models.ops import FORMULATIONS, Geometry, applies, choose

KERNELS = {
    "wider 1x1": (4, 9, 1, Geometry((1, 1), (0, 0), (1, 1), 1)),
    "narrower 1x1": (8, 3, 1, Geometry((1, 1), (0, 0), (1, 1), 1)),
    "1x1, stride 2": (4, 6, 1, Geometry((2, 2), (0, 0), (1, 1), 1)),
    "depthwise": (6, 6, 3, Geometry((1, 1), (1, 1), (1, 1), 6)),
    "depthwise, stride 2": (5, 5, 5, Geometry((2, 2), (2, 2), (1, 1), 5)),
    "multiplier": (3, 6, 3, Geometry((1, 1), (1, 1), (1, 1), 3)),
    "3x3": (4, 6, 3, Geometry((2, 1), (1, 0), (1, 2), 1)),
    "groups": (6, 4, 3, Geometry((1, 1), (1, 1), (1, 1), 2)),
}
ORDERS = {"contiguous": (0, 1, 2, 3), "channels_last": (0, 2, 3, 1), "beside": (2, 3, 0, 1)}


def laid_out(x: torch.Tensor, order: str) -> torch.Tensor:
    """The same images with another order in memory."""
    axes = ORDERS[order]
    return x.permute(axes).contiguous().permute([axes.index(axis) for axis in range(4)])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("N", [1, 2, 5])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_formulation_equals_the_loop(kernel: str, N: int, bias: bool, order: str) -> None:
    C, out, size, geometry = KERNELS[kernel]
    torch.manual_seed(0)
    x, weight = torch.randn(N, C, 7, 6), torch.randn(N, out, C // geometry.groups, size, size)
    biases = torch.randn(N, out) if bias else None
    expected = torch.cat(
        [
            F.conv2d(
                x[n : n + 1].double(),
                weight[n].double(),
                biases[n].double() if biases is not None else None,
                geometry.stride,
                geometry.padding,
                geometry.dilation,
                geometry.groups,
            )
            for n in range(N)
        ]
    )
    used = [name for name in FORMULATIONS if applies(name, N, weight, geometry)]
    assert {choose(N, weight, geometry, fused=False), choose(N, weight, geometry, fused=True)} <= set(used)
    for name in used:
        y = FORMULATIONS[name](laid_out(x, order), weight, biases, geometry)
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()), msg=name)


def test_each_formulation_is_chosen_somewhere() -> None:
    chosen = {
        choose(N, torch.empty(N, out, C // geometry.groups, size, size), geometry, fused)
        for C, out, size, geometry in KERNELS.values()
        for N in (1, 2)
        for fused in (True, False)
    }
    assert chosen == set(FORMULATIONS)


def test_images_beside_each_other_stay_so_from_layer_to_layer() -> None:
    """Nothing is copied between an expansion, its activation and the depthwise convolution."""
    C, out, size, geometry = KERNELS["wider 1x1"]
    wide = FORMULATIONS["rows"](torch.randn(3, C, 7, 6), torch.randn(3, out, C, size, size), None, geometry)
    beside = (out, 1, 6 * 3 * out, 3 * out)
    assert wide.stride() == wide.clamp(0, 6).stride() == beside
    depthwise = Geometry((1, 1), (1, 1), (1, 1), out)
    assert FORMULATIONS["beside"](wide, torch.randn(3, out, 1, 3, 3), None, depthwise).stride() == beside

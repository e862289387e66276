import copy

import pytest
import torch
from torch import nn

from posedy.export.fuse import fold_norms
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.factory import create_model

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dy_mobilenetv2_035-bneck", {"depth": 0.34}),
        pytest.param("dy_mobilenetv3_small-deconv", {}, marks=pytest.mark.slow),
    ],
)
def test_network_with_folded_norms_equals_original(name: str, options: dict[str, float], perturb) -> None:
    net = perturb(create_model(name, num_keypoints=3, **options).double(), X.double())
    before = copy.deepcopy(net.state_dict())
    folded = fold_norms(net)
    with torch.no_grad():
        expected, actual = net(X.double()), folded(X.double())
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert all(float(m.attention.temperature) == 1 for m in folded.modules() if isinstance(m, DynamicConv2d))
    after = net.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_norms_that_cannot_be_folded_are_kept() -> None:
    """Norms after sigmoid attention, whose weights do not sum to one, and before a convolution."""
    for net, norm in (
        (
            create_model("dy_mobilenetv2_035-bneck", num_keypoints=3, attention="sigmoid", depth=0.34),
            "backbone.blocks.0.depthwise.1",
        ),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), "0"),
    ):
        folded = fold_norms(net)
        assert isinstance(folded.get_submodule(norm), nn.BatchNorm2d)
        with torch.no_grad():
            torch.testing.assert_close(folded(X), net.eval()(X), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 1, bias=True), DynamicConv2d(3, 4, 1, bias=True)])
def test_bias_before_a_norm_is_scaled(conv: nn.Module, perturb) -> None:
    net = perturb(nn.Sequential(conv, nn.BatchNorm2d(4)), X).double().eval()
    folded = fold_norms(net)
    with torch.no_grad():
        torch.testing.assert_close(folded(X.double()), net(X.double()), rtol=0, atol=1e-6)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())

"""What is timed beside posedy's networks is what it is called."""

import pytest
import torch
from torch import nn

from posedy.models.registry import create_backbone
from tools.lab.benchmarks.rivals import simple_baseline, usual_dynamic

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_usual_way_computes_the_same() -> None:
    net = create_backbone("dy_mobilenetv2_035").eval()
    for x in (X, X[:1]):
        torch.testing.assert_close(usual_dynamic(net)(x), net(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_simple_baseline_is_that_of_the_paper() -> None:
    """34.0 million parameters with its norms (Xiao et al., Table 2), which are folded into 26,560 biases here."""
    net = simple_baseline()
    assert net(X).shape == (2, 17, 16, 16)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.backbone.modules())
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(34.0, abs=0.05)

"""The reference models of the latency benchmark."""

import pytest
import torch
from torch import nn

from posedy.models.factory import create_backbone
from tools.lab.benchmarks.reference_models import grouped_dynamic_model, simple_baseline

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_grouped_dynamic_model_computes_the_same() -> None:
    net = create_backbone("dy_mobilenetv2_035").eval()
    for x in (X, X[:1]):
        torch.testing.assert_close(grouped_dynamic_model(net)(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_simple_baseline_has_the_papers_number_of_parameters() -> None:
    """34.0 million parameters (Xiao et al., Table 2); the norms are folded into 26,560 biases here."""
    net = simple_baseline()
    assert net(X).shape == (2, 17, 16, 16)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.backbone.modules())
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(34.0, abs=0.05)

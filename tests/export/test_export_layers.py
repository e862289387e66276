"""Every form computes what the layer computes."""

import pytest
import torch

from posedy.export.onnx_layers import ComputedKernel, MatrixProduct, WeightedOutputs, dynamic_form
from posedy.models.dynamic_conv import DynamicConv2d

POINTWISE = {"in_channels": 6, "out_channels": 8, "kernel_size": 1}
DEPTHWISE = {"in_channels": 6, "out_channels": 6, "kernel_size": 5, "stride": 2, "padding": 2, "groups": 6}
FULL = {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "padding": 1}


@pytest.mark.parametrize("case", [POINTWISE, DEPTHWISE, FULL], ids=["1x1", "depthwise", "3x3"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
@pytest.mark.parametrize("batch", ["free", 1])
@torch.no_grad()
def test_form_equals_the_layer(case: dict, bias: bool, attention: str, batch: str | int) -> None:
    torch.manual_seed(0)
    conv = DynamicConv2d(**case, bias=bias, attention=attention, temperature=0.02).eval()
    x = torch.randn(3 if batch == "free" else 1, 6, 9, 7) + torch.randn(6, 1, 1)
    form = dynamic_form(conv, batch)
    torch.testing.assert_close(form(x), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "batch", "form"),
    [
        (POINTWISE, "free", MatrixProduct),
        (DEPTHWISE, "free", WeightedOutputs),
        (FULL, "free", WeightedOutputs),
        ({**POINTWISE, "stride": 2}, "free", WeightedOutputs),
        (POINTWISE, 1, ComputedKernel),
        (DEPTHWISE, 1, ComputedKernel),
    ],
)
def test_the_table_chooses(case: dict, batch: str | int, form: type) -> None:
    assert type(dynamic_form(DynamicConv2d(**case), batch)) is form

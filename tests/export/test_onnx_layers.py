"""Every replacement of a dynamic convolution equals the layer."""

from pathlib import Path

import pytest
import torch

from posedy.export.onnx import trace
from posedy.export.onnx_layers import ComputedKernel, MatrixProduct, WeightedOutputs, make_export_layer
from posedy.export.runtimes import make_runner
from posedy.models.dynamic_conv import DynamicConv2d

POINTWISE = {"in_channels": 6, "out_channels": 8, "kernel_size": 1}
DEPTHWISE = {"in_channels": 6, "out_channels": 6, "kernel_size": 5, "stride": 2, "padding": 2, "groups": 6}
FULL = {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "padding": 1}
DILATED = {**FULL, "dilation": (2, 1), "groups": 2}
DILATED_DEPTHWISE = {**DEPTHWISE, "stride": 1, "dilation": 2}


@pytest.mark.parametrize(
    "case",
    [POINTWISE, DEPTHWISE, FULL, DILATED, DILATED_DEPTHWISE],
    ids=["1x1", "depthwise", "3x3", "dilated 3x3", "dilated depthwise"],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "normalized"])
@pytest.mark.parametrize("batch", ["free", 1])
@torch.no_grad()
def test_export_layer_equals_dynamic_conv(case: dict, bias: bool, attention: str, batch: str | int) -> None:
    torch.manual_seed(0)
    conv = DynamicConv2d(**case, bias=bias, attention=attention, temperature=0.02).eval()
    x = torch.randn(3 if batch == "free" else 1, 6, 9, 7) + torch.randn(6, 1, 1)
    layer = make_export_layer(conv, batch)
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "batch", "layer_type"),
    [
        (POINTWISE, "free", MatrixProduct),
        (DEPTHWISE, "free", WeightedOutputs),
        (FULL, "free", WeightedOutputs),
        ({**POINTWISE, "stride": 2}, "free", WeightedOutputs),
        (POINTWISE, 1, ComputedKernel),
        (DEPTHWISE, 1, ComputedKernel),
    ],
)
def test_export_layer_type_follows_the_table(case: dict, batch: str | int, layer_type: type) -> None:
    assert type(make_export_layer(DynamicConv2d(**case), batch)) is layer_type


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["free", 1])
@pytest.mark.parametrize("case", [DILATED, DILATED_DEPTHWISE], ids=["dilated 3x3", "dilated depthwise"])
@torch.no_grad()
def test_exported_dilated_convolution_equals_dynamic_conv(case: dict, batch: str | int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    conv = DynamicConv2d(**case, temperature=0.02).eval()
    x = torch.randn(3 if batch == "free" else 1, 6, 11, 13) + torch.randn(6, 1, 1)
    trace(
        make_export_layer(conv, batch),
        x,
        tmp_path / "x.onnx",
        free_dims={0: torch.export.Dim("batch")} if batch == "free" else None,
    )
    (y,) = make_runner((tmp_path / "x.onnx").read_bytes(), batch, "onnxruntime", threads=1)(x.numpy())
    torch.testing.assert_close(torch.from_numpy(y), conv(x), rtol=1e-4, atol=1e-5)

"""Every replacement of a dynamic convolution equals the layer."""

from pathlib import Path

import pytest
import torch

from posedy.export import onnx_layers
from posedy.export.onnx import trace
from posedy.export.onnx_layers import (
    Batch,
    ComputedKernel,
    MatrixProduct,
    SummedKernel,
    WeightedOutputs,
    make_export_layer,
)
from posedy.export.runtimes import make_runner
from posedy.models.dynamic_conv import DynamicConv2d

POINTWISE = {"in_channels": 6, "out_channels": 8, "kernel_size": 1}
DEPTHWISE = {"in_channels": 6, "out_channels": 6, "kernel_size": 5, "stride": 2, "padding": 2, "groups": 6}
FULL = {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "padding": 1}
LARGE = {"in_channels": 128, "out_channels": 128, "kernel_size": 1}
DILATED = {**FULL, "dilation": (2, 1), "groups": 2}
DILATED_DEPTHWISE = {**DEPTHWISE, "stride": 1, "dilation": 2}


@pytest.mark.parametrize(
    "case",
    [POINTWISE, DEPTHWISE, FULL, DILATED, DILATED_DEPTHWISE],
    ids=["1x1", "depthwise", "3x3", "dilated 3x3", "dilated depthwise"],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attention", ["softmax", pytest.param("sigmoid", marks=pytest.mark.slow), "normalized"])
@pytest.mark.parametrize(("batch", "runtime"), [("free", "openvino"), (1, "onnxruntime"), (1, "openvino")])
@torch.no_grad()
def test_export_layer_equals_dynamic_conv(
    case: dict, bias: bool, attention: str, batch: Batch, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_layers, "MIN_SUMMED_VALUES", 40)
    torch.manual_seed(0)
    conv = DynamicConv2d(**case, bias=bias, attention=attention, temperature=0.02).eval()
    x = torch.randn(3 if batch == "free" else 1, 6, 9, 7) + torch.randn(6, 1, 1)
    layer = make_export_layer(conv, batch, runtime)
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "batch", "runtime", "layer_type"),
    [
        (POINTWISE, "free", "openvino", MatrixProduct),
        (DEPTHWISE, "free", "openvino", WeightedOutputs),
        (FULL, "free", "openvino", WeightedOutputs),
        ({**POINTWISE, "stride": 2}, "free", "openvino", WeightedOutputs),
        (POINTWISE, 1, "openvino", ComputedKernel),
        (DEPTHWISE, 1, "openvino", ComputedKernel),
        (LARGE, 1, "openvino", SummedKernel),
        (LARGE, 1, "onnxruntime", ComputedKernel),
    ],
)
def test_export_layer_type_follows_the_table(case: dict, batch: Batch, runtime: str, layer_type: type) -> None:
    assert type(make_export_layer(DynamicConv2d(**case), batch, runtime)) is layer_type


@pytest.mark.parametrize(("attention", "is_constant"), [("softmax", True), ("sigmoid", False)])
def test_equal_biases_are_a_constant_if_attention_sums_to_one(attention: str, is_constant: bool) -> None:
    conv = DynamicConv2d(**POINTWISE, attention=attention)
    conv.bias.data[:] = torch.arange(8.0)
    layer = make_export_layer(conv, 1, "openvino")
    assert (layer.constant_bias is not None, layer.biases is None) == (is_constant, is_constant)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["free", 1])
@pytest.mark.parametrize("case", [DILATED, DILATED_DEPTHWISE], ids=["dilated 3x3", "dilated depthwise"])
@torch.no_grad()
def test_exported_dilated_convolution_equals_dynamic_conv(case: dict, batch: str | int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    conv = DynamicConv2d(**case, temperature=0.02).eval()
    x = torch.randn(3 if batch == "free" else 1, 6, 11, 13) + torch.randn(6, 1, 1)
    trace(
        make_export_layer(conv, batch, "onnxruntime"),
        x,
        tmp_path / "x.onnx",
        free_dims={0: torch.export.Dim("batch")} if batch == "free" else None,
    )
    (y,) = make_runner((tmp_path / "x.onnx").read_bytes(), batch, "onnxruntime", threads=1)(x.numpy())
    torch.testing.assert_close(torch.from_numpy(y), conv(x), rtol=1e-4, atol=1e-5)

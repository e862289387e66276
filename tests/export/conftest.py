"""Networks whose errors show, and their exported files."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from posedy.export.onnx import export_onnx
from posedy.models.dynamic_conv import set_temperature
from posedy.models.pose_net import PoseNet
from posedy.models.registry import create_model

SIZE = (64, 64)
TEMPERATURES = (100.0, 150.0, 250.0, 400.0, 800.0)
FLOAT32_ERROR = 1e-5  # of the largest output, where 1e-4 is asked
NAME = "dy_resnet10-dy_fpn"  # 1x1, 3x3 and depthwise layers, few of them


def images(count: int) -> Tensor:
    """(count, 3, 64, 64) that differ in color and texture, so that attention does."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.randn(count, 3, 4, 4, generator=generator) + torch.randn(count, 3, 1, 1, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=SIZE[::-1], mode="bicubic")
    return smooth + 0.3 * torch.randn(count, 3, *SIZE[::-1], generator=generator)


@torch.no_grad()
def float32_error(net: PoseNet, x: Tensor) -> float:
    """How far PyTorch itself is from its float64, relative to the largest output."""
    exact = copy.deepcopy(net).double()(x.double())
    return float((net(x) - exact).abs().max() / exact.abs().max())


@pytest.fixture(scope="session")
def make(perturb: Callable[..., PoseNet]) -> Callable[..., PoseNet]:
    """`make(name, **options)`: a network with perturbed weights and statistics and sharp attention."""

    def made(name: str = NAME, **options: object) -> PoseNet:
        torch.manual_seed(0)
        made = create_model(name, input_size=SIZE, **options)
        norms = [layer for layer in made.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        # Norms with the statistics of their input: with others these networks lose float32's digits layer by layer.
        perturb(made, images(8), training=True)
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.running_var.shape)
            norm.running_var *= 1 + 0.1 * torch.rand(norm.running_var.shape)
        # Attention that is sharp everywhere makes deep networks chaotic: float32 and float64 of PyTorch itself differ
        # by the whole output. So it is as sharp as float32 bears; at 120 the largest weight is over 0.8 in a third of
        # the cases.
        made.eval()
        for temperature in TEMPERATURES:
            set_temperature(made, temperature)
            if max(float32_error(made, images(count)) for count in (1, 2, 5, 8)) < FLOAT32_ERROR:
                break
        return made

    return made


@pytest.fixture(scope="session")
def net(make: Callable[..., PoseNet]) -> PoseNet:
    return make()


@pytest.fixture(scope="session")
def exported(net: PoseNet, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`exported(name, **options)`: the file of an export, written once for all worker processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def export(name: str, **options: Any) -> Path:
        path = folder / name
        with FileLock(f"{path}.lock"):
            if not path.exists():
                export_onnx(net, path, **options)
        return path

    return export


@pytest.fixture(scope="session")
def free(exported: Callable[..., Path]) -> Path:
    """Its graph of heatmaps with a free batch."""
    return exported("free.onnx", batch="free")


@pytest.fixture(scope="session")
def single(exported: Callable[..., Path]) -> Path:
    """Its graph of heatmaps of batch 1, weights in float16."""
    return exported("single.onnx", batch=1, half=True, runtime="openvino")


@pytest.fixture(scope="session")
def decoding(exported: Callable[..., Path]) -> Path:
    """Its graph of keypoints with a free batch."""
    return exported("decoding.onnx", batch="free", with_decoding=True)

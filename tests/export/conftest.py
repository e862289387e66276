"""Networks for which errors are visible, and their exported files."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

from posedy.export.onnx import export_onnx
from posedy.export.tracing import random_inputs, smooth_inputs
from posedy.models.blocks import DynamicConvFactory, conv_norm_act, static_conv
from posedy.models.dynamic_conv import set_temperature
from posedy.models.factory import create_model
from posedy.models.ops import BilinearUpsample
from posedy.models.pose_net import PoseNet, name_outputs
from posedy.skeleton import COCO17

SIZE = (64, 64)
TEMPERATURES = (100.0, 150.0, 250.0, 400.0, 800.0)
SEEDS = range(4)
FLOAT32_ERROR = 1e-5  # relative to the largest output; the tests allow 1e-4
NAME = "dy_resnet10-dy_fpn"  # a few 1x1, 3x3 and depthwise layers


def images(count: int) -> Tensor:
    """Returns images (count, 3, 64, 64) of different colors and textures, for which attention differs."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.randn(count, 3, 4, 4, generator=generator) + torch.randn(count, 3, 1, 1, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=SIZE[::-1], mode="bicubic")
    return smooth + 0.3 * torch.randn(count, 3, *SIZE[::-1], generator=generator)


@torch.no_grad()
def float32_error(net: PoseNet) -> float:
    """Returns the largest difference of PyTorch's float32 and float64, relative to the largest output."""
    inputs = [images(count) for count in (1, 2, 5, 8)]
    # export_onnx verifies the graph on these
    inputs += [make(net, False, count) for make in (random_inputs, smooth_inputs) for count in (1, 5)]
    double = copy.deepcopy(net).double()
    errors = [0.0]
    for x in inputs:
        exact, outputs = name_outputs(double(x.double()), net.codec), name_outputs(net(x), net.codec)
        errors += [float((outputs[name] - exact[name]).abs().max() / exact[name].abs().max()) for name in exact]
    return max(errors)


@pytest.fixture(scope="session")
def create_net(sharpen: Callable[[PoseNet], PoseNet]) -> Callable[..., PoseNet]:
    """`create_net(name, **options)`: a network with perturbed weights and statistics and sharp attention."""

    def create(name: str = NAME, **options: object) -> PoseNet:
        nets = []
        for seed in SEEDS:
            torch.manual_seed(seed)
            nets.append(sharpen(create_model(name, input_size=SIZE, **options)))
            if float32_error(nets[-1]) < FLOAT32_ERROR:
                return nets[-1]
        # deep networks without any dynamic layer lose precision with some weights, too
        return min(nets, key=float32_error)

    return create


@pytest.fixture(scope="session")
def sharpen(perturb: Callable[..., PoseNet]) -> Callable[[PoseNet], PoseNet]:
    """Perturbs weights and statistics of a network and makes its attention as sharp as float32 allows."""

    def sharpen(net: PoseNet) -> PoseNet:
        norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        # norms with the statistics of their input: with others, float32 loses precision layer by layer
        perturb(net, images(8), training=True)
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.running_var.shape)
            norm.running_var *= 1 + 0.1 * torch.rand(norm.running_var.shape)
        # Attention that is sharp everywhere makes deep networks chaotic: float32 and float64 in PyTorch differ by the
        # whole output. Therefore it is as sharp as float32 allows; at a temperature of 120 the largest weight exceeds
        # 0.8 in a third of the cases.
        net.eval()
        for temperature in TEMPERATURES:
            set_temperature(net, temperature)
            if float32_error(net) < FLOAT32_ERROR:
                break
        return net

    return sharpen


def small_backbone() -> nn.Sequential:
    """A backbone of a few layers of each kind, with 32 output channels: tracing takes time for each layer."""
    conv = DynamicConvFactory()
    return nn.Sequential(
        conv_norm_act(static_conv(3, 64, 3, 2), 64, nn.ReLU6()),
        conv_norm_act(conv(64, 64, 3, 2), 64, nn.ReLU()),
        conv_norm_act(conv(64, 64, 5, 2, groups=64), 64, nn.Hardswish()),
        conv_norm_act(conv(64, 32, 1), 32),
        conv_norm_act(static_conv(32, 32, 3, 2, groups=32), 32, nn.ReLU()),
        conv_norm_act(static_conv(32, 32, 3, 2), 32, nn.ReLU()),
    )


@pytest.fixture(scope="session")
def net(sharpen: Callable[[PoseNet], PoseNet]) -> PoseNet:
    """A network with the small backbone."""
    torch.manual_seed(0)
    backbone, conv = small_backbone(), DynamicConvFactory()
    head = nn.Sequential(
        BilinearUpsample(),
        conv(32, 24, 1, bias=True),
        nn.ConvTranspose2d(24, 24, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        BilinearUpsample(),
        nn.Conv2d(24, 17, 1),
    )
    options = {"num_keypoints": 17, "num_kernels": 4, "output": "linear"}
    return sharpen(PoseNet(backbone, head, name="few-layers", skeleton=COCO17, input_size=SIZE, options=options))


@pytest.fixture(scope="session")
def exported(net: PoseNet, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`exported(name, **options)`: an exported file, written once for all worker processes of pytest-xdist."""
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
    """A graph of `net` that outputs heatmaps, with a free batch."""
    return exported("free.onnx", batch="free")


@pytest.fixture(scope="session")
def single(exported: Callable[..., Path]) -> Path:
    """A graph of `net` that outputs heatmaps, with batch size 1 and weights in float16."""
    return exported("single.onnx", batch=1, half=True, runtime="openvino")


@pytest.fixture(scope="session")
def decoding(exported: Callable[..., Path]) -> Path:
    """A graph of `net` that outputs keypoints, with a free batch."""
    return exported("decoding.onnx", batch="free", with_decoding=True)

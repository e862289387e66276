"""Inputs, comparison and silence for tracing networks into graphs."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from posedy.models.pose_net import PoseNet, normalize_crops


def relative_difference(output: Tensor, expected: Tensor) -> float:
    """Returns the largest difference of two tensors, relative to the largest expected value; NaN is infinite."""
    ratio = ((output - expected).abs().max() / expected.abs().max()).item()
    return ratio if ratio == ratio else float("inf")


def random_inputs(net: PoseNet, decodes: bool, size: int) -> Tensor:
    """Returns crops of noise: (N, H, W, 3) uint8 for a graph that decodes, otherwise (N, C, H, W) float32."""
    width, height = net.input_size
    generator = torch.Generator().manual_seed(size)
    if decodes:
        return torch.randint(0, 256, (size, height, width, 3), generator=generator, dtype=torch.uint8)
    channels = 3 if net.in_channels == 1 else net.in_channels
    return torch.randn(size, channels, height, width, generator=generator)


def smooth_inputs(net: PoseNet, decodes: bool, size: int) -> Tensor:
    """Returns crops of smooth structures at several scales, closer to the statistics of images than noise."""
    if net.in_channels not in (1, 3):
        return random_inputs(net, decodes, size + 100)
    width, height = net.input_size
    generator = torch.Generator().manual_seed(size)
    crops = torch.zeros(size, 3, height, width)
    for grid_size in (2, 4, 8, 16):
        grid = torch.rand(size, 3, grid_size, grid_size, generator=generator)
        crops += F.interpolate(grid, (height, width), mode="bicubic", align_corners=False) / 4
    crops = (255 * crops).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return crops if decodes else normalize_crops(crops)


@contextmanager
def silence_exporter() -> Iterator[None]:
    """Silences the exporter's warnings, which concern its developers only."""
    loggers: list[Any] = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.__trace")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

"""Blocks of a network that take one image after the other."""

import torch
from torch import Tensor, nn

_CACHED = 150_000
"""Numbers of a map in float32 that a core of a CPU keeps near itself, of a usual half megabyte of cache."""


class ImageByImage(nn.Module):
    """A block that takes the images of a batch one after the other where their maps are large, on a CPU.

    What a layer leaves of one image is in the cache when the next layer reads it; of a whole batch it is not. Small
    maps are computed for all images at once, which takes fewer operations. Measured on an AMD EPYC, batch 8, one
    thread: fused backbones take 0.75 to 0.79 of the time if dynamic, 0.80 to 0.87 if static; on two threads, where
    convolutions of one image share its rows, it makes little difference.

    Args:
        block: (N, C, H, W) -> (N, C', H', W'), each image by itself.
        channels: of its widest map, which has the size of the input.
    """

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block = block
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        N, _, H, W = x.shape
        if N == 1 or self.channels * H * W <= _CACHED or x.device.type != "cpu":
            return self.block(x)
        return torch.cat([self.block(image) for image in x.split(1)])

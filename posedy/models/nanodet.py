"""NanoDet-g, a light object detector of RangiLyu (github.com/RangiLyu/nanodet, Apache-2.0), here for persons only.

A CSP network computes feature maps of stride 8, 16 and 32, a path aggregation network combines them at 128 channels,
and a head for each stride predicts the objects around each location, the center ((j + 0.5) stride, (i + 0.5) stride) of
a stride x stride square of the image:

    score = sigmoid(logit)
    distance to side s of the box = stride * sum_k k softmax(bins_s)_k,    k = 0 .. 10,    s = left, top, right, bottom

as in Generalized Focal Loss (Li et al., NeurIPS 2020). Batch norms are folded into the convolutions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from posedy.models.ops import BilinearUpsample
from posedy.models.registry import WEIGHTS_FOLDER

STRIDES = (8, 16, 32)
"""Strides of the three output levels."""
INPUT_MULTIPLE = STRIDES[-1]
"""Width and height of the input are multiples of this number."""
MAX_SIDE = 1312
"""Largest width and height of the input in pixels."""
NUM_BINS = 11
"""Bins of the distance from a location to a side of its box: 0 to 10 strides."""
PERSON_WEIGHTS = WEIGHTS_FOLDER / "detectors" / "nanodet_g_person.safetensors"
"""The weights in the package."""

# mean and standard deviation of B, G and R in ImageNet, in pixel values
_MEAN = (103.53, 116.28, 123.675)
_STD = (57.375, 57.12, 58.395)

_STEM_CHANNELS = 32
# input channels, bottlenecks and stride of each CSP block; its output has twice the channels
_STAGES = ((32, 1, 1), (64, 2, 2), (128, 2, 2), (256, 3, 2))
_NECK_CHANNELS = 128


class NanoDet(nn.Module):
    """NanoDet-g for images of any size that is a multiple of 32.

    Args:
        num_classes: number of classes; COCO's 80 in the original weights, of which person is the first.
    """

    def __init__(self, num_classes: int = 1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Sequential(_conv_act(3, _STEM_CHANNELS, stride=2), nn.MaxPool2d(3, stride=2, padding=1))
        self.stages = nn.ModuleList(CspBlock(*stage) for stage in _STAGES)
        self.neck = PathAggregation([2 * channels for channels, _, _ in _STAGES[1:]], _NECK_CHANNELS)
        out_channels = num_classes + 4 * NUM_BINS
        self.heads = nn.ModuleList(
            nn.Sequential(_conv_act(_NECK_CHANNELS, _NECK_CHANNELS), nn.Conv2d(_NECK_CHANNELS, out_channels, 1))
            for _ in STRIDES
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts the objects around each location.

        Args:
            images: (N, 3, H, W), as `normalize_images` returns them.

        Returns:
            Logits (N, A, num_classes) and bins (N, A, 4, 11) of the A locations, level by level in the order of
            `STRIDES`, row by row.
        """
        return self.join_maps(self.compute_maps(images))

    def compute_maps(self, images: Tensor) -> list[Tensor]:
        """Computes the outputs (N, num_classes + 44, H / stride, W / stride) for each stride of images (N, 3, H, W)."""
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        levels = self.neck(features[1:])
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]

    def join_maps(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Joins the maps of `compute_maps` to the outputs of `forward`."""
        outputs = torch.cat([level.flatten(2) for level in maps], dim=2)
        logits, bins = outputs.transpose(1, 2).split([self.num_classes, 4 * NUM_BINS], dim=2)
        return logits, bins.unflatten(2, (4, NUM_BINS))


class CspBlock(nn.Module):
    """A cross-stage partial block (Wang et al., 2019): (N, C, H, W) -> (N, 2 C, H / stride, W / stride).

    Args:
        channels: number C of input channels.
        num_bottlenecks: number of bottlenecks.
        stride: stride of the first convolution.
    """

    def __init__(self, channels: int, num_bottlenecks: int, stride: int) -> None:
        super().__init__()
        self.first = _conv_act(channels, channels, stride=stride)
        self.bottlenecks = nn.Sequential(*(ConcatBottleneck(channels) for _ in range(num_bottlenecks)))
        self.last = _conv_act(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the block."""
        x = self.first(x)
        return torch.cat([self.last(self.bottlenecks(x)), x], dim=1)


class ConcatBottleneck(nn.Module):
    """Two convolutions of C / 2 channels whose outputs are concatenated: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv_act(channels, channels // 2)
        self.second = _conv_act(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the bottleneck."""
        x = self.first(x)
        return torch.cat([self.second(x), x], dim=1)


class PathAggregation(nn.Module):
    """A path aggregation network (Liu et al., CVPR 2018) that adds the levels top-down, then bottom-up.

    Args:
        in_channels: channels of the levels, finest first.
        out_channels: channels of all outputs.
    """

    def __init__(self, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.upsample = BilinearUpsample()

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Combines feature maps (N, C, H, W), finest first, to as many of the same sizes."""
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for index in range(len(levels) - 1, 0, -1):
            levels[index - 1] = levels[index - 1] + self.upsample(levels[index])
        for index in range(1, len(levels)):
            # bilinear interpolation to half the size is the mean of 2x2 pixels
            levels[index] = levels[index] + F.avg_pool2d(levels[index - 1], 2)
        return levels


def _conv_act(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Creates a 3x3 convolution followed by a leaky ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
    return nn.Sequential(conv, nn.LeakyReLU(0.1, inplace=True))


def normalize_images(images: Tensor) -> Tensor:
    """Normalizes BGR images (N, H, W, 3) uint8 for `NanoDet`: (N, 3, H, W) float32 in channels_last."""
    mean, std = (torch.tensor(values, device=images.device) for values in (_MEAN, _STD))
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)


def decode_outputs(logits: Tensor, bins: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Decodes the outputs of `NanoDet` for one class to boxes (N, A, 4) xyxy in pixels and scores (N, A).

    Args:
        logits: (N, A, 1).
        bins: (N, A, 4, 11).
        size: (width, height) of the images.

    Returns:
        Boxes (N, A, 4) xyxy in pixels of the images, clipped to them, and scores (N, A).
    """
    width, height = size
    boxes = boxes_from_bins(bins, make_locations(width, height, bins.device))
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).flatten(-2), logits[..., 0].sigmoid()


def boxes_from_bins(bins: Tensor, locations: "Locations") -> Tensor:
    """Computes boxes (..., A, 4) xyxy, not clipped, from the bins (..., A, 4, 11) of A locations."""
    centers, strides = locations
    expected = bins.softmax(dim=-1) @ torch.arange(NUM_BINS, dtype=bins.dtype, device=bins.device)
    distances = expected * strides[:, None]
    return torch.cat([centers - distances[..., :2], centers + distances[..., 2:]], dim=-1)


class Locations(NamedTuple):
    """The locations of an input size in the order of `NanoDet`'s outputs: centers (A, 2) xy and strides (A,)."""

    centers: Tensor
    strides: Tensor


def make_locations(width: int, height: int, device: torch.device | None = None) -> Locations:
    """Returns the locations of images of width x height pixels."""
    centers, strides = [], []
    for stride in STRIDES:
        x = stride * (torch.arange(width // stride, device=device) + 0.5)
        y = stride * (torch.arange(height // stride, device=device) + 0.5)
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        centers.append(torch.stack([columns, rows], dim=-1).flatten(0, 1))
        strides.append(torch.full_like(centers[-1][:, 0], stride))
    return Locations(torch.cat(centers), torch.cat(strides))


def load_nanodet(path: str | Path = PERSON_WEIGHTS) -> NanoDet:
    """Loads the person detector from a .safetensors file, in evaluation mode, in float32 on the CPU.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it does not contain the weights of `NanoDet` with one class.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file of detector weights at {Path(path).absolute()}")
    net = NanoDet()
    try:
        net.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not contain the weights of NanoDet-g for persons: {error!s:.300}") from error
    return net.eval()

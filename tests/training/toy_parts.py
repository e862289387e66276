"""A backbone, a head, a codec and a network class of a user: keypoints by regression."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import posedy


@posedy.register_backbone("toy")
class ToyBackbone(nn.Module):
    """Five convolutions of stride 2."""

    def __init__(self, conv: Any = posedy.static_conv, *, width: int = 8) -> None:
        super().__init__()
        channels = [3, width, width, width, width, width]
        self.layers = nn.Sequential(
            *(nn.Sequential(conv(before, after, 3, 2, bias=True), nn.ReLU()) for before, after in pairwise(channels))
        )
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@posedy.register_head("toy_regression")
class ToyHead(nn.Module):
    """Coordinates from 0 to 1 of the average of the map, and a score."""

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, 3 * num_keypoints)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.fc(x.mean(dim=(2, 3))).unflatten(1, (-1, 3)).sigmoid()
        return y[..., :2], y[..., 2]


@posedy.register_codec("toy_regression")
class ToyCodec(posedy.Codec):
    """Coordinates relative to the size of the crop."""

    output_names = ("coordinates", "confidence")

    def encode(self, keypoints: Tensor, labeled: Tensor) -> tuple[Tensor, Tensor]:
        return keypoints.float() / keypoints.new_tensor(self.input_size).float(), labeled.float()

    def decode(self, outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        coordinates = outputs["coordinates"].float()
        return coordinates * coordinates.new_tensor(self.input_size), outputs["confidence"].float()

    def merge_flipped(
        self, outputs: Mapping[str, Tensor], flipped: Mapping[str, Tensor], flip_permutation: Sequence[int]
    ) -> dict[str, Tensor]:
        order = list(flip_permutation)
        width = self.input_size[0]
        back = flipped["coordinates"][:, order] * torch.tensor([-1.0, 1.0]) + torch.tensor([(width - 1) / width, 0.0])
        return {
            "coordinates": (outputs["coordinates"] + back) / 2,
            "confidence": (outputs["confidence"] + flipped["confidence"][:, order]) / 2,
        }

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor, weights: Tensor) -> Tensor:
        distance = (outputs["coordinates"] - targets).abs().sum(dim=-1)
        return (weights * distance).sum() + 0.01 * (outputs["confidence"] - 0.9).square().sum()


class ToyNet(posedy.PoseNet):
    """A network with a forward of its own, which counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Any:
        type(self).calls += 1
        return super().forward(0.5 * x)

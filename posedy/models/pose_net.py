"""Pose networks (a backbone and a head) and prediction on crops, with or without the flip test."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posedy.codecs import Codec, Outputs, create_codec, default_sigma
from posedy.models.blocks import Backbone
from posedy.skeleton import Skeleton

HeatmapOutput = Literal["linear", "softmax", "sigmoid"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# ITU-R BT.601
_LUMA = (0.299, 0.587, 0.114)


class SpatialSoftmax(nn.Module):
    """A softmax over the pixels of each heatmap, scaled so that a perfect heatmap has the peak 1.

        heatmap = 2 pi sigma^2 * softmax(logits over h * w pixels)

    A Gaussian target of the codec divided by its sum has the peak 1 / (2 pi sigma^2).

    Args:
        sigma: standard deviation of a target in heatmap pixels; None is the codec's default for the heatmap height.
    """

    def __init__(self, sigma: float | None = None) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, logits: Tensor) -> Tensor:
        """Converts logits (N, K, h, w) to float32 heatmaps (N, K, h, w)."""
        sigma = self.sigma if self.sigma is not None else default_sigma(logits.shape[-2])
        return (2 * math.pi * sigma**2) * logits.float().flatten(2).softmax(dim=-1).reshape(logits.shape)


_OUTPUTS: dict[HeatmapOutput, Callable[[float | None], nn.Module]] = {
    "linear": lambda sigma: nn.Identity(),
    "softmax": SpatialSoftmax,
    "sigmoid": lambda sigma: nn.Sigmoid(),
}


class PoseNet(nn.Module):
    """A network that predicts heatmaps from crops, with the information needed to build, decode and draw them.

    Args:
        backbone: (N, C, H, W) -> (N, B, H / 32, W / 32); a `Backbone` if the head is an `FPNHead`.
        head: (N, B, H / 32, W / 32), or for an `FPNHead` all feature maps of the backbone -> (N, K, H / 4, W / 4), or
            a tuple of the codec's outputs.
        name: the name of the model, `[dy_]BACKBONE-[dy_]HEAD`.
        skeleton: the skeleton of the K keypoints; None if unknown.
        input_size: default (width, height) of the crops; heads of heatmaps support any size divisible by 32.
        options: the other arguments of `create_model`, to create the network again.

    Attributes:
        fixed_input_size: the only (width, height) that the network supports, as with the head `simcc`; None if it
            supports any size divisible by 32.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        name: str,
        skeleton: Skeleton | None,
        input_size: tuple[int, int],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._uses_pyramid = getattr(head, "reads_pyramid", False)
        self.name = name
        self.skeleton = skeleton
        self.input_size = (input_size[0], input_size[1])
        self.fixed_input_size: tuple[int, int] | None = getattr(head, "input_size", None)
        self.options = dict(options)
        self.output = _OUTPUTS[options["output"]](self.sigma)

    @property
    def num_keypoints(self) -> int:
        """The number of keypoints K."""
        return self.options["num_keypoints"]

    @property
    def sigma(self) -> float | None:
        """Standard deviation of the targets in the codec's unit; None is the codec's default."""
        return self.options.get("sigma")

    @property
    def codec(self) -> Codec:
        """The codec of the outputs, for crops of `input_size`."""
        return create_codec(self.options.get("codec", "msra"), self.input_size, self.sigma)

    @property
    def in_channels(self) -> int:
        """The number of input channels C."""
        return self.options.get("in_channels", 3)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Predicts the codec's outputs, such as heatmaps (N, K, H / 4, W / 4), of normalized RGB crops (N, C, H, W).

        A grayscale network (C = 1) converts RGB crops to luma.

        Raises:
            ValueError: if H or W is not divisible by 32 or the network supports only another size, or the number of
                channels differs from the network's.
        """
        if x.ndim != 4 or any(side == 0 or side % 32 for side in x.shape[-2:]):
            raise ValueError(f"expected crops (N, C, H, W) with H and W divisible by 32, got {tuple(x.shape)}")
        self.check_input_size((x.shape[-1], x.shape[-2]))
        x = self.match_channels(x)
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected crops of in_channels={self.in_channels} channels for {self.name}, got {x.shape[1]} channels"
            )
        if self._uses_pyramid:
            assert isinstance(self.backbone, Backbone)
            return self.output(self.head(self.backbone.features(x)))
        return self.output(self.head(self.backbone(x)))

    def check_input_size(self, input_size: tuple[int, int]) -> None:
        """Checks that the network supports crops of a size (width, height).

        Raises:
            ValueError: if it supports only another size.
        """
        if self.fixed_input_size not in (None, input_size):
            raise ValueError(
                f"{self.name} supports only crops of input_size={self.fixed_input_size} (width, height), for which it "
                f"was created, got {input_size}"
            )

    def match_channels(self, x: Tensor) -> Tensor:
        """Converts RGB crops (N, 3, H, W) to luma (N, 1, H, W) if the network is grayscale; keeps other crops."""
        if self.in_channels == 1 and x.shape[1] == 3:
            return (x * torch.tensor(_LUMA, dtype=x.dtype, device=x.device)[:, None, None]).sum(dim=1, keepdim=True)
        return x


def normalize_crops(crops: Tensor) -> Tensor:
    """Normalizes RGB crops (N, H, W, 3) uint8 with ImageNet's mean and std: (N, 3, H, W) float32, on their device."""
    mean = torch.tensor(IMAGENET_MEAN, device=crops.device) * 255
    std = torch.tensor(IMAGENET_STD, device=crops.device) * 255
    return ((crops.float() - mean) / std).permute(0, 3, 1, 2).contiguous()


def normalize_array(crops: NDArray[np.uint8]) -> Tensor:
    """Normalizes crops as `normalize_crops`, with equal results, on one thread.

    It takes less time than torch's threads, and beside busy processes these have to wait for each other.
    """
    mean, std = np.array(IMAGENET_MEAN, np.float32) * 255, np.array(IMAGENET_STD, np.float32) * 255
    images = np.empty((len(crops), 3, *crops.shape[1:3]), np.float32)
    for channel in range(3):
        np.subtract(crops[..., channel], mean[channel], out=images[:, channel])
    images /= std[:, None, None]
    return torch.from_numpy(images)


def name_outputs(outputs: Tensor | Sequence[Tensor], codec: Codec) -> dict[str, Tensor]:
    """Names the outputs of a network: its tensor, or tensors in the order of the codec's `output_names`.

    Raises:
        TypeError: if the outputs are not tensors.
        ValueError: if there are more or fewer outputs than names.
    """
    tensors: Any = (outputs,) if isinstance(outputs, Tensor) else outputs
    if not isinstance(tensors, tuple | list) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError(
            f"expected the network to return a tensor, or a tuple of tensors ({', '.join(codec.output_names)}) for "
            f"codec {codec.name!r}, got {type(outputs).__name__}"
        )
    if len(tensors) != len(codec.output_names):
        raise ValueError(
            f"codec {codec.name!r} expects the outputs {', '.join(codec.output_names)}, the network has {len(tensors)}"
        )
    return dict(zip(codec.output_names, tensors, strict=True))


def predict_outputs(
    net: Callable[[Tensor], Tensor | Sequence[Tensor]],
    crops: Tensor | NDArray[np.uint8],
    codec: Codec,
    flip_permutation: Sequence[int] | None = None,
    in_one_batch: bool = False,
) -> dict[str, Tensor]:
    """Predicts the outputs of crops; with the flip test they are merged with those of the flipped crops.

    Args:
        net: normalized crops (N, 3, H, W) -> the codec's outputs, for heatmap codecs heatmaps (N, K, h, w).
        crops: (N, H, W, 3) uint8 RGB, a tensor on the network's device, or an array for a network on the CPU.
        codec: names the outputs, and merges those of the flip test.
        flip_permutation: K indices for the flip test, `Skeleton.flip_permutation`; None is no flip test.
        in_one_batch: whether crops and flipped crops are one batch of the network; it takes more memory.

    Returns:
        Float32 tensors by name.
    """

    def predict(images: Tensor) -> Outputs:
        return {name: output.float() for name, output in name_outputs(net(images), codec).items()}

    images = normalize_crops(crops) if isinstance(crops, Tensor) else normalize_array(crops)
    if flip_permutation is None:
        return dict(predict(images))
    if in_one_batch:
        joined = predict(torch.cat([images, images.flip(-1)]))
        halves = {name: output.tensor_split(2) for name, output in joined.items()}
        outputs: Outputs = {name: half for name, (half, _) in halves.items()}
        flipped: Outputs = {name: half for name, (_, half) in halves.items()}
    else:
        outputs, flipped = predict(images), predict(images.flip(-1))
    merged = codec.merge_flipped(outputs, flipped, flip_permutation)
    if not isinstance(merged, Mapping) or merged.keys() != outputs.keys():
        got = sorted(merged) if isinstance(merged, Mapping) else type(merged).__name__
        raise TypeError(
            f"expected merge_flipped of codec {codec.name!r} to return a dictionary of {', '.join(outputs)}, got {got}"
        )
    return merged


def last_layer(net: PoseNet) -> dict[str, Tensor]:
    """Returns the tensors of the last convolution, which predicts a map for each keypoint."""
    *_, layer = (name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    return {name: tensor for name, tensor in net.state_dict().items() if name.startswith(f"{layer}.")}

"""From crops to keypoints in the crop: normalise, network, average with the mirror, decode."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posedy.codecs import HeatmapCodec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise_crops(crops: Tensor) -> Tensor:
    """RGB crops (N, H, W, 3) uint8 -> (N, 3, H, W) float32, ImageNet-normalised, on the crops' device."""
    mean = torch.tensor(IMAGENET_MEAN, device=crops.device) * 255
    std = torch.tensor(IMAGENET_STD, device=crops.device) * 255
    return ((crops.float() - mean) / std).permute(0, 3, 1, 2).contiguous()


def predict_heatmaps(
    net: Callable[[Tensor], Tensor], crops: Tensor, codec: HeatmapCodec, flip_permutation: Sequence[int] | None = None
) -> Tensor:
    """Heatmaps of crops, averaged with those of the mirrored crops unless `flip_permutation` is None.

    Args:
        net: normalised crops (N, 3, H, W) -> heatmaps (N, K, h, w).
        crops: (N, H, W, 3) uint8 RGB on the network's device.
        codec: owns the shift of the mirrored heatmaps.
        flip_permutation: K indices, `Skeleton.flip_permutation`.
    """
    images = normalise_crops(crops)
    heatmaps = net(images).float()
    if flip_permutation is None:
        return heatmaps
    return codec.merge_flipped(heatmaps, net(images.flip(-1)).float(), flip_permutation)


@torch.inference_mode()
def predict_keypoints(
    net: Callable[[Tensor], Tensor],
    crops: NDArray[np.uint8],
    codec: HeatmapCodec,
    flip_permutation: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keypoints (N, K, 2) in crop pixels and their scores (N, K) of crops (N, H, W, 3) uint8 RGB."""
    heatmaps = predict_heatmaps(net, torch.from_numpy(crops).to(device), codec, flip_permutation)
    keypoints, scores = codec.decode(heatmaps)
    return keypoints.cpu().numpy(), scores.cpu().numpy()

"""From crops to keypoints in the crop: normalise, network, average with the mirror, decode."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posedy.codecs import HeatmapCodec
from posedy.models.pose_net import predict_heatmaps


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

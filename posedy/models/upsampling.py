"""Bilinear upsampling to twice the size that is fast on GPUs too."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BilinearUpsample(nn.Module):
    """Doubles height and width: `nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)`.

    Along each axis, with the border repeated,

        y[2 i] = x[i - 1] / 4 + 3 x[i] / 4,    y[2 i + 1] = 3 x[i] / 4 + x[i + 1] / 4.

    Torch's CUDA kernel gives a thread to each cell of a map and goes through all maps of the batch in it, which takes
    45 % of a training step of these networks; there it is two products with constant matrices, R x C^T.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, 2 h, 2 w)."""
        if not x.is_cuda:
            return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        rows, columns = (doubling_matrix(size, x) for size in x.shape[-2:])
        return rows @ (x @ columns.T)


def doubling_matrix(size: int, like: Tensor) -> Tensor:
    """The matrix (2 size, size) that doubles an axis, with the type and the device of `like`."""
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    before = torch.cat([identity[:1], identity[:-1]])
    after = torch.cat([identity[1:], identity[-1:]])
    return torch.stack([before + 3 * identity, 3 * identity + after], dim=1).flatten(0, 1) / 4

"""Dynamic convolution with as few and as fast operations as torch has, for inference.

Between layers, images (N, C, H, W) lie in memory as (N, H, W, C), torch's channels_last, or as (H, W, N, C), here called
beside each other: the batch stands beside the channels. A depthwise convolution with a kernel for each image, which no
library has, is then an ordinary one of N * C channels in channels_last. A 1x1 convolution is a product of matrices whose
rows lie N * C apart, read from either layout and written to either. Whatever works on each number does not notice.
A single image is the same in both.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.models.dynamic_conv import DynamicConv2d


class FusedDynamicConv2d(nn.Module):
    """A `DynamicConv2d` for inference.

    Kernels and biases lie in one matrix with a row for each k, so that one product aggregates both:

        [W(x) b(x)] = sum_k pi_k(x) [W_k b_k],    pi(x) = softmax(FC2(ReLU(FC1(GAP(x)))))

    Args:
        conv: with a bias and the temperature 1, as `posedy.deploy.norms.fold_norms` leaves it.
    """

    kernels: Tensor

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__()
        attention = conv.attention
        if conv.bias is None or attention.temperature is None or float(attention.temperature) != 1:
            raise ValueError("fusing takes a dynamic convolution with K biases and a softmax of temperature 1")
        self.in_channels, self.out_channels, self.groups = conv.in_channels, conv.out_channels, conv.groups
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.padding, self.dilation = conv.padding, conv.dilation
        self.is_depthwise = conv.groups == conv.in_channels == conv.out_channels
        self.is_pointwise = conv.is_pointwise
        self.fc1, self.fc2 = attention.fc1, attention.fc2
        # (K, out, kh, kw, in / groups): channels_last, as the convolution wants its kernel
        kernels = conv.weight.permute(0, 1, 3, 4, 2).flatten(1)
        self.register_buffer("kernels", torch.cat([kernels, conv.bias], dim=1).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Convolves each image (N, in_channels, H, W) with its own kernel: (N, out_channels, H', W')."""
        # the mean is a sum, whose division the product makes
        alpha = 1 / (x.shape[2] * x.shape[3])
        hidden = torch.addmm(self.fc1.bias, x.sum(dim=(2, 3)), self.fc1.weight.t(), alpha=alpha).relu_()
        pi = torch.addmm(self.fc2.bias, hidden, self.fc2.weight.t()).softmax(dim=-1)
        aggregated = pi @ self.kernels
        if self.is_pointwise:
            return self._pointwise(x, aggregated)
        if self.is_depthwise or len(x) == 1:
            return self._grouped(x, aggregated)
        return self._one_by_one(x, aggregated)

    def _pointwise(self, x: Tensor, aggregated: Tensor) -> Tensor:
        """A 1x1 convolution as matrix products; a wider output, which a depthwise convolution takes, beside each other."""
        N, C, H, W = x.shape
        out = self.out_channels
        rows = x.permute(0, 2, 3, 1).reshape(N, H * W, C)
        weight, bias = aggregated[:, : out * C].view(N, out, C).mT, aggregated[:, out * C :]
        if N == 1:
            return torch.addmm(bias[0], rows[0], weight[0]).view(1, H, W, out).permute(0, 3, 1, 2)
        if out <= C:
            return torch.baddbmm(bias[:, None], rows, weight).view(N, H, W, out).permute(0, 3, 1, 2)
        products = x.new_empty(H * W, N, out).copy_(bias)
        products.transpose(0, 1).baddbmm_(rows, weight)
        return products.view(H, W, N, out).permute(2, 3, 0, 1)

    def _grouped(self, x: Tensor, aggregated: Tensor) -> Tensor:
        """A depthwise convolution of any number of images, or any convolution of one, as one convolution."""
        N, C, H, W = x.shape
        out = self.out_channels
        channels = x.permute(2, 3, 0, 1).reshape(1, H, W, N * C).permute(0, 3, 1, 2)
        weight, bias = aggregated[:, :-out].reshape(N * out, *self.kernel_size, -1), aggregated[:, -out:].reshape(-1)
        y = F.conv2d(
            channels,
            weight.permute(0, 3, 1, 2),
            bias,
            self.stride,
            self.padding,
            self.dilation,
            N * self.groups,
        )
        _, _, height, width = y.shape
        return y.permute(0, 2, 3, 1).view(height, width, N, out).permute(2, 3, 0, 1)

    def _one_by_one(self, x: Tensor, aggregated: Tensor) -> Tensor:
        parts = zip(x.split(1), aggregated.split(1), strict=True)
        return torch.cat([self._grouped(image, kernel) for image, kernel in parts])

"""Dynamic convolution with as few operations as torch has, for inference."""

import torch
from torch import Tensor, nn

from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.formulations import FORMULATIONS, choose, conv2d


class FusedDynamicConv2d(nn.Module):
    """A `DynamicConv2d` for inference.

    Kernels and biases lie in one matrix with a column for each k, so that one product aggregates both:

        [W(x) b(x)] = sum_k pi_k(x) [W_k b_k],    pi(x) = softmax(FC2(ReLU(FC1(GAP(x)))))

    For one image most operations here take less time than torch takes to begin them. So it has a way of its own, of
    vectors instead of matrices with one row, and kernel and bias are each one view of what was aggregated.

    Args:
        conv: with a softmax of temperature 1, as `posedy.deploy.norms.fold_norms` leaves it.
    """

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__()
        attention = conv.attention
        if attention.temperature is None or float(attention.temperature) != 1:
            raise ValueError("fusing takes a dynamic convolution with a softmax of temperature 1 as attention")
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.num_kernels, conv.out_channels)
        self.geometry = conv.geometry
        self.for_more = FORMULATIONS[choose(2, conv.weight[:2], conv.geometry, fused=True)]
        # a convolution of several channels and pixels wants its kernel in channels_last, (out, kh, kw, in / groups)
        is_permuted = conv.weight.shape[2] > 1 and conv.kernel_size != (1, 1)
        kernel = conv.weight[0].contiguous(memory_format=torch.channels_last) if is_permuted else conv.weight[0]
        self.kernel_size, self.kernel_stride = tuple(kernel.shape), kernel.stride()
        self.bias_size, self.bias_offset = (conv.out_channels,), kernel.numel()
        kernels = conv.weight.permute(0, 1, 3, 4, 2) if is_permuted else conv.weight
        for name, tensor in (
            ("fc1_weight", attention.fc1.weight),
            ("fc1_bias", attention.fc1.bias),
            ("fc2_weight", attention.fc2.weight),
            ("fc2_bias", attention.fc2.bias),
            # column by column in memory
            ("kernels", torch.cat([kernels.flatten(1), bias], dim=1).t()),
        ):
            self.register_buffer(name, tensor.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Convolves each image (N, in, H, W) with its own kernel: (N, out, H', W')."""
        # as a dictionary: torch looks each up by a function in Python, which takes as long as a small operation
        held: dict[str, Tensor] = self._buffers  # type: ignore[assignment]
        N, _, H, W = x.shape
        per_pixel = 1 / (H * W)  # the product divides the sum, which makes a mean of it
        if N == 1:
            hidden = torch.addmv(held["fc1_bias"], held["fc1_weight"], x.sum((0, 2, 3)), alpha=per_pixel).relu_()
            pi = torch.addmv(held["fc2_bias"], held["fc2_weight"], hidden).softmax(0)
            aggregated = torch.mv(held["kernels"], pi)
            weight = aggregated.as_strided(self.kernel_size, self.kernel_stride)
            bias = aggregated.as_strided(self.bias_size, (1,), self.bias_offset)
            return conv2d(x, weight, bias, self.geometry)
        hidden = torch.addmm(held["fc1_bias"], x.sum((2, 3)), held["fc1_weight"].t(), alpha=per_pixel).relu_()
        pi = torch.addmm(held["fc2_bias"], hidden, held["fc2_weight"].t()).softmax(1)
        aggregated = torch.mm(pi, held["kernels"].t())
        length = aggregated.shape[1]
        weight = aggregated.as_strided((N, *self.kernel_size), (length, *self.kernel_stride))
        bias = aggregated.as_strided((N, *self.bias_size), (length, 1), self.bias_offset)
        return self.for_more(x, weight, bias, self.geometry)

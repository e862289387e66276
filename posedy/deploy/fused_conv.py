"""Dynamic convolution with as few operations as torch has, for inference."""

import torch
from torch import Tensor, nn

from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.formulations import FORMULATIONS, choose


class FusedDynamicConv2d(nn.Module):
    """A `DynamicConv2d` for inference.

    Kernels and biases lie in one matrix with a row for each k, so that one product aggregates both:

        [W(x) b(x)] = sum_k pi_k(x) [W_k b_k],    pi(x) = softmax(FC2(ReLU(FC1(GAP(x)))))

    Args:
        conv: with a softmax of temperature 1, as `posedy.deploy.norms.fold_norms` leaves it.
    """

    fc1_weight: Tensor
    fc2_weight: Tensor
    kernels: Tensor

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__()
        attention = conv.attention
        if attention.temperature is None or float(attention.temperature) != 1:
            raise ValueError("fusing takes a dynamic convolution with a softmax of temperature 1 as attention")
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.num_kernels, conv.out_channels)
        self.geometry = conv.geometry
        self.fc1_bias, self.fc2_bias = attention.fc1.bias, attention.fc2.bias
        self.register_buffer("fc1_weight", attention.fc1.weight.t().contiguous())
        self.register_buffer("fc2_weight", attention.fc2.weight.t().contiguous())
        # a convolution of several channels and pixels wants its kernel in channels_last, (out, kh, kw, in / groups)
        self.is_permuted = conv.weight.shape[2] > 1 and conv.kernel_size != (1, 1)
        kernels = conv.weight.permute(0, 1, 3, 4, 2) if self.is_permuted else conv.weight
        self.kernel_shape = kernels.shape[1:]
        self.sizes = [kernels[0].numel(), conv.out_channels]
        self.for_one, self.for_more = (
            FORMULATIONS[choose(batch, conv.weight[:batch], conv.geometry, fused=True)] for batch in (1, 2)
        )
        self.register_buffer("kernels", torch.cat([kernels.flatten(1), bias], dim=1).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Convolves each image (N, in, H, W) with its own kernel: (N, out, H', W')."""
        # the product divides the sum, which makes a mean of it
        per_pixel = 1 / (x.shape[2] * x.shape[3])
        hidden = torch.addmm(self.fc1_bias, x.sum(dim=(2, 3)), self.fc1_weight, alpha=per_pixel).relu_()
        pi = torch.addmm(self.fc2_bias, hidden, self.fc2_weight).softmax(dim=-1)
        weight, bias = torch.mm(pi, self.kernels).split_with_sizes(self.sizes, dim=1)
        weight = weight.view(len(x), *self.kernel_shape)
        if self.is_permuted:
            weight = weight.permute(0, 1, 4, 2, 3)
        formulation = self.for_one if len(x) == 1 else self.for_more
        return formulation(x, weight, bias, self.geometry)

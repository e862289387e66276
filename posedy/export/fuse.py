"""Fused networks: copies for inference that compute the same faster.

Batch norms are folded into the convolutions before them, and temperatures into the attention.

In evaluation a batch norm is y -> s * y + t for each channel, with s = gamma / sqrt(var + eps) and
t = beta - s * mean. The aggregation of a dynamic convolution is linear and its attention sums to one, so

    s * (sum_k pi_k W_k * x + b) + t = sum_k pi_k (s W_k) * x + sum_k pi_k (s b_k + t)

exactly, where b = sum_k pi_k b_k; and softmax(z / tau) is softmax with 1 / tau in the last layer that makes z.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from posedy.models.blocks import InvertedResidual
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from posedy.models.ops import FORMULATIONS, EndPaddedConv2d, choose, conv2d

Net = TypeVar("Net", bound=nn.Module)


def fuse(net: Net) -> Net:
    """A copy of a network for inference: same output up to rounding, in less time. The network given is left alone.

    Batch norms are folded into the kernels before them, also into the K of dynamic convolutions, temperatures into the
    attention; kernel and bias are aggregated by one product, see `FusedDynamicConv2d`; bottlenecks take large maps
    image by image, see `ImageByImage`; all is computed in torch's channels_last. The copy takes (N, C, H, W) in any
    memory format, channels_last best, and works in the precision of its weights.

    Args:
        net: of `create_model` or `create_backbone`.
    """
    return _streamline(fold_norms(net)).to(memory_format=torch.channels_last)


def _streamline(module: Net) -> Net:
    """Puts the fused layers in, leaves identities in sequences out, lets activations overwrite what they are given."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU | nn.ReLU6 | nn.Hardswish):
            child.inplace = True
        if isinstance(child, DynamicConv2d) and child.attention.temperature is not None:
            setattr(module, name, FusedDynamicConv2d(child))
        else:
            setattr(module, name, _streamline(child))
        if isinstance(child, InvertedResidual):
            setattr(module, name, ImageByImage(child, child.hidden_channels))
    if not isinstance(module, nn.Sequential):
        return module
    return nn.Sequential(*(layer for layer in module if not isinstance(layer, nn.Identity)))  # type: ignore[return-value]


def fold_norms(net: Net) -> Net:
    """A copy of a network for inference, in evaluation mode and without gradients, its batch norms folded.

    Static convolutions get a bias, dynamic ones K biases and the temperature 1; the output is the same up to rounding.
    Norms stay where they do not follow a convolution, and behind dynamic ones with a sigmoid as attention, whose
    weights do not sum to one.
    """
    folded = copy.deepcopy(net).eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, nn.Sequential):
            _fold_sequence(module)
    for module in folded.modules():
        if isinstance(module, DynamicConv2d):
            fold_temperature(module.attention)
    return folded


def _fold_sequence(layers: nn.Sequential) -> None:
    """Folds each norm of a sequence into the convolution before it; an identity takes its place."""
    for index in range(1, len(layers)):
        conv, norm = layers[index - 1], layers[index]
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        if isinstance(conv, nn.ConvTranspose2d):
            layers[index - 1] = fuse_conv_bn_eval(conv, norm, transpose=True)
        elif isinstance(conv, nn.Conv2d):
            layers[index - 1] = fuse_conv_bn_eval(_plain(conv), norm)
        elif isinstance(conv, DynamicConv2d) and conv.attention.temperature is not None:
            _fold_dynamic(conv, norm)
        else:
            continue
        layers[index] = nn.Identity()


def _plain(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution without fast gradients, as torch's own class unless that lacks its padding."""
    plain = (EndPaddedConv2d if getattr(conv, "pad_end", 0) else nn.Conv2d)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias=conv.bias is not None,
    ).to(conv.weight.device, conv.weight.dtype)
    plain.load_state_dict(conv.state_dict())
    return plain.eval().requires_grad_(False)


def _fold_dynamic(conv: DynamicConv2d, norm: nn.BatchNorm2d) -> None:
    scale, shift = _scale_and_shift(norm)
    K, out_channels = conv.weight.shape[:2]
    bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(K, out_channels)
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    conv.bias = nn.Parameter(bias * scale + shift, requires_grad=False)


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Of a norm, s and t."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -scale * mean
    return scale, shift + norm.bias if norm.bias is not None else shift


def fold_temperature(attention: KernelAttention) -> None:
    """Takes the temperature into the last layer of an attention, in place, and sets it to 1; a sigmoid has none."""
    if attention.temperature is None:
        return
    for parameter in (attention.fc2.weight, attention.fc2.bias):
        parameter.data.div_(attention.temperature)
    attention.temperature.fill_(1)


class FusedDynamicConv2d(nn.Module):
    """A `DynamicConv2d` for inference.

    Kernels and biases lie in one matrix with a column for each k, so that one product aggregates both:

        [W(x) b(x)] = sum_k pi_k(x) [W_k b_k],    pi(x) = softmax(FC2(ReLU(FC1(GAP(x)))))

    For one image most operations here take less time than torch takes to begin them. So it has a way of its own, of
    vectors instead of matrices with one row, and kernel and bias are each one view of what was aggregated.

    Args:
        conv: with a softmax of temperature 1, as `posedy.export.fuse.fold_norms` leaves it.
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

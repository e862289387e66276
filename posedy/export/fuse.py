"""Fused networks: faster copies for inference with the same output.

Batch norms are folded into the convolutions before them, and temperatures into the attention.

In evaluation mode a batch norm is y -> s * y + t for each channel, with s = gamma / sqrt(var + eps) and
t = beta - s * mean. The aggregation of a dynamic convolution is linear and its attention sums to one, so

    s * (sum_k pi_k W_k * x + b) + t = sum_k pi_k (s W_k) * x + sum_k pi_k (s b_k + t)

exactly, where b = sum_k pi_k b_k; and softmax(z / tau) equals a softmax of z whose last layer is scaled by 1 / tau.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from posedy.models.blocks import ConvNormAct, InvertedResidual
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention, check_is_module
from posedy.models.ops import FORMULATIONS, AsymmetricPadConv2d, DepthwiseConv2d, choose_formulation, conv2d

Net = TypeVar("Net", bound=nn.Module)
_PACKAGE = __name__.partition(".")[0]


def fuse(net: Net) -> Net:
    """Returns a faster copy of a network for inference, whose output is the same up to rounding.

    Batch norms are folded into the kernels before them, including the K kernels of dynamic convolutions, and
    temperatures into the attention. Kernel and bias are aggregated by one product, see `FusedDynamicConv2d`.
    Bottlenecks process large feature maps one image at a time, see `PerImageBlock`. The weights are in torch's
    channels_last; the input (N, C, H, W) may have any memory format, channels_last is fastest.

    Args:
        net: a network of `create_model` or `create_backbone`; it is not changed.

    Raises:
        TypeError: if the network is not a module.
    """
    check_is_module(net)
    return _fuse_layers(fold_norms(net)).to(memory_format=torch.channels_last)


def _fuse_layers(module: Net, is_own: bool = False) -> Net:
    """Replaces layers by fused ones; in posedy's modules removes identities and makes activations in-place.

    Modules of others may use the input of an activation again, or the layers of a sequence by their indices.

    Args:
        module: the module; it is changed.
        is_own: whether it is part of a module of posedy.
    """
    is_plain_sequence = type(module) is nn.Sequential
    is_own = type(module).__module__.startswith(f"{_PACKAGE}.") or (is_own and is_plain_sequence)
    for name, child in module.named_children():
        if is_own and not _has_hooks(module) and isinstance(child, nn.ReLU | nn.ReLU6 | nn.Hardswish):
            child.inplace = True
        if type(child) is DynamicConv2d and child.attention.temperature is not None and not _has_hooks(child):
            setattr(module, name, FusedDynamicConv2d(child))
        else:
            setattr(module, name, _fuse_layers(child, is_own))
        if isinstance(child, InvertedResidual):
            setattr(module, name, PerImageBlock(child, child.hidden_channels))
    if not (is_own and isinstance(module, nn.Sequential)) or module._forward_pre_hooks or module._forward_hooks:
        return module
    return nn.Sequential(*(layer for layer in module if not isinstance(layer, nn.Identity)))  # type: ignore[return-value]


def fold_norms(net: Net) -> Net:
    """Returns a copy of a network in evaluation mode, without gradients and with its batch norms folded.

    Static convolutions get a bias, dynamic ones K biases and the temperature 1; the output is the same up to rounding.
    Norms are kept if they do not follow a convolution, or follow a dynamic one with sigmoid attention, whose weights do
    not sum to one; so are subclasses and layers with hooks, which may compute something else.
    """
    folded = copy.deepcopy(net).eval().requires_grad_(False)
    for module in folded.modules():
        if type(module).forward in (nn.Sequential.forward, ConvNormAct.forward):
            _fold_sequence(module)  # type: ignore[arg-type]
    for module in folded.modules():
        if isinstance(module, DynamicConv2d) and not _has_hooks(module.attention):
            fold_attention(module.attention)
    return folded


def _fold_sequence(layers: nn.Sequential) -> None:
    """Folds each norm of a sequence into the convolution before it, and replaces the norm by an identity."""
    for index in range(1, len(layers)):
        conv, norm = layers[index - 1], layers[index]
        if type(norm) is not nn.BatchNorm2d or norm.running_var is None or _has_hooks(conv) or _has_hooks(norm):
            continue
        if type(conv) is nn.ConvTranspose2d:
            layers[index - 1] = fuse_conv_bn_eval(conv, norm, transpose=True)
        elif type(conv) in (nn.Conv2d, AsymmetricPadConv2d):
            layers[index - 1] = fuse_conv_bn_eval(conv, norm)  # type: ignore[type-var]
        elif type(conv) is DepthwiseConv2d:
            layers[index - 1] = fuse_conv_bn_eval(_to_torch_conv(conv), norm)
        elif type(conv) is DynamicConv2d and conv.attention.temperature is not None:
            _fold_dynamic(conv, norm)
        else:
            continue
        layers[index] = nn.Identity()


def _has_hooks(module: nn.Module) -> bool:
    """Returns whether a module or one in it has forward hooks, which see or change what it computes."""
    return any(each._forward_pre_hooks or each._forward_hooks for each in module.modules())


def _to_torch_conv(conv: DepthwiseConv2d) -> nn.Conv2d:
    """Copies a convolution to `nn.Conv2d`, or to `AsymmetricPadConv2d` if it has asymmetric padding."""
    copied = (AsymmetricPadConv2d if conv.pad_end else nn.Conv2d)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias=conv.bias is not None,
    ).to(conv.weight.device, conv.weight.dtype)
    copied.load_state_dict(conv.state_dict())
    return copied.eval().requires_grad_(False)


def _fold_dynamic(conv: DynamicConv2d, norm: nn.BatchNorm2d) -> None:
    scale, shift = _scale_and_shift(norm)
    K, out_channels = conv.weight.shape[:2]
    bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(K, out_channels)
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    conv.bias = nn.Parameter(bias * scale + shift, requires_grad=False)


def _scale_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns the scale s and the shift t of a norm."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("cannot fold a batch norm without running statistics")
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -scale * mean
    return scale, shift + norm.bias if norm.bias is not None else shift


def fold_attention(attention: KernelAttention) -> None:
    """Folds the norm and the temperature of a softmax attention into its last layer, in place; tau becomes 1."""
    if attention.temperature is None:
        return
    weight, bias = attention.fc2.weight.data, attention.fc2.bias.data
    if attention.norm is not None:
        scale, shift = _scale_and_shift(attention.norm)
        weight.mul_(scale.detach()[:, None])
        bias.mul_(scale.detach()).add_(shift.detach())
        attention.norm = None
    for parameter in (weight, bias):
        parameter.div_(attention.temperature)
    attention.temperature.fill_(1)


class FusedDynamicConv2d(nn.Module):
    """A `DynamicConv2d` for inference that aggregates kernel and bias with one matrix product.

    Kernels and biases are stored in one matrix with a column for each k, so that one product aggregates both:

        [W(x) b(x)] = sum_k pi_k(x) [W_k b_k],    pi(x) = softmax(FC2(ReLU(FC1(GAP(x)))))

    For a single image most operations take less time than torch's call overhead. Therefore it has a separate code path
    with vectors instead of one-row matrices, in which kernel and bias are views of the aggregated vector.

    Args:
        conv: a dynamic convolution with softmax attention of temperature 1, as `fold_norms` returns.
    """

    def __init__(self, conv: DynamicConv2d) -> None:
        super().__init__()
        attention = conv.attention
        if attention.temperature is None or float(attention.temperature) != 1:
            raise ValueError(
                "expected a dynamic convolution with softmax attention of temperature 1: call fold_norms first"
            )
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.num_kernels, conv.out_channels)
        self.conv_params = conv.conv_params
        self.convolve_batch = FORMULATIONS[choose_formulation(2, conv.weight[:2], conv.conv_params, fused=True)]
        # a kernel of several channels and pixels is fastest in channels_last, (out, kh, kw, in / groups)
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
            # column-major
            ("kernels", torch.cat([kernels.flatten(1), bias], dim=1).t()),
        ):
            self.register_buffer(name, tensor.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Convolves each image (N, in, H, W) with its own kernel: (N, out, H', W')."""
        # direct access: torch's attribute lookup in Python takes as long as a small operation
        buffers: dict[str, Tensor] = self._buffers  # type: ignore[assignment]
        N, _, H, W = x.shape
        per_pixel = 1 / (H * W)  # scales the sum to a mean in the product below
        if N == 1:
            hidden = torch.addmv(buffers["fc1_bias"], buffers["fc1_weight"], x.sum((0, 2, 3)), alpha=per_pixel).relu_()
            pi = torch.addmv(buffers["fc2_bias"], buffers["fc2_weight"], hidden).softmax(0)
            aggregated = torch.mv(buffers["kernels"], pi)
            weight = aggregated.as_strided(self.kernel_size, self.kernel_stride)
            bias = aggregated.as_strided(self.bias_size, (1,), self.bias_offset)
            return conv2d(x, weight, bias, self.conv_params)
        hidden = torch.addmm(buffers["fc1_bias"], x.sum((2, 3)), buffers["fc1_weight"].t(), alpha=per_pixel).relu_()
        pi = torch.addmm(buffers["fc2_bias"], hidden, buffers["fc2_weight"].t()).softmax(1)
        aggregated = torch.mm(pi, buffers["kernels"].t())
        length = aggregated.shape[1]
        weight = aggregated.as_strided((N, *self.kernel_size), (length, *self.kernel_stride))
        bias = aggregated.as_strided((N, *self.bias_size), (length, 1), self.bias_offset)
        return self.convolve_batch(x, weight, bias, self.conv_params)


_MAX_CACHED_VALUES = 150_000
"""Float32 values of a feature map that fit into a CPU core's cache, assuming half a megabyte."""


class PerImageBlock(nn.Module):
    """A block that processes one image of a batch at a time if its feature maps are large, on a CPU.

    The output of a layer for one image is still in the cache when the next layer reads it; for a whole batch it is not.
    Small feature maps are computed for all images at once, which takes fewer operations. On an AMD EPYC (batch size 8,
    one thread) fused backbones take 0.75 to 0.79 times as long (dynamic) or 0.80 to 0.87 times (static); on two
    threads, which share the rows of one image, the difference is small.

    Args:
        block: (N, C, H, W) -> (N, C', H', W'), independently for each image.
        channels: channels of its widest feature map, which has the spatial size of the input.
    """

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block = block
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        N, _, H, W = x.shape
        is_small = N == 1 or self.channels * H * W <= _MAX_CACHED_VALUES
        if is_small or x.device.type != "cpu" or torch.compiler.is_compiling():  # a graph may have a free batch size
            return self.block(x)
        return torch.cat([self.block(image) for image in x.split(1)])

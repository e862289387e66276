"""Batch norms folded into the convolutions before them, and temperatures into the attention.

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

from posedy.models.depthwise import EndPaddedConv2d
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention

Net = TypeVar("Net", bound=nn.Module)


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

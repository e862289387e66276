"""Fusing: a copy of a network that computes the same faster, for inference."""

from typing import TypeVar

import torch
from torch import nn

from posedy.deploy.fused_conv import FusedDynamicConv2d
from posedy.deploy.image_by_image import ImageByImage
from posedy.deploy.norms import fold_norms
from posedy.models.blocks import InvertedResidual
from posedy.models.dynamic_conv import DynamicConv2d

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

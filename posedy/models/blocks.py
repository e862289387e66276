"""What the backbones and heads are built of: convolutions, static or dynamic, with norm and activation."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from posedy.models.depthwise import DepthwiseConv2d
from posedy.models.dynamic_conv import DynamicConv2d


class ConvFactory(Protocol):
    """Makes the convolutions of a network, so that one description serves its static and its dynamic form."""

    def __call__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
    ) -> nn.Module:
        """A convolution without bias, padded to keep the size at stride 1."""


def static_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """A plain convolution without bias (a batch norm follows), padded to keep the size at stride 1."""
    if groups == in_channels == out_channels:
        return DepthwiseConv2d(in_channels, kernel_size, stride)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)


@dataclass(frozen=True)
class DynamicConvFactory:
    """Makes dynamic convolutions without bias, padded to keep the size at stride 1.

    Attributes:
        num_kernels: K.
        temperature: tau of the attention's softmax.
    """

    num_kernels: int = 4
    temperature: float = 30.0

    def __call__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
    ) -> nn.Module:
        """A dynamic convolution of K kernels."""
        return DynamicConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            kernel_size // 2,
            groups=groups,
            bias=False,
            num_kernels=self.num_kernels,
            temperature=self.temperature,
        )


def conv_norm_act(conv: nn.Module, out_channels: int, activation: nn.Module | None = None) -> nn.Sequential:
    """A convolution, its batch norm, and an activation if one is given."""
    layers = [conv, nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers, activation) if activation is not None else nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """MobileNetV2's bottleneck residual block (bneck): 1x1 expansion, depthwise kxk, linear 1x1 projection.

    The input is added when the stride is 1 and the channels stay.

    Args:
        in_channels: channels of the input.
        hidden_channels: channels of the depthwise convolution; no expansion when equal to `in_channels`.
        out_channels: channels of the output.
        kernel_size: of the depthwise convolution.
        stride: of the depthwise convolution.
        conv: makes the three convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        conv: ConvFactory,
    ) -> None:
        super().__init__()
        self.expand = (
            conv_norm_act(conv(in_channels, hidden_channels, 1), hidden_channels, nn.ReLU6())
            if hidden_channels != in_channels
            else nn.Identity()
        )
        self.depthwise = conv_norm_act(
            conv(hidden_channels, hidden_channels, kernel_size, stride, groups=hidden_channels),
            hidden_channels,
            nn.ReLU6(),
        )
        self.project = conv_norm_act(conv(hidden_channels, out_channels, 1), out_channels)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


def initialise(module: nn.Module) -> None:
    """Initialises the convolutions of a network for training from scratch.

    He's normal initialisation over the fan in, each of a dynamic layer's K kernels on its own fan; attention layers
    and batch norms keep torch's defaults. Residual blocks start as the identity (the last norm's scale is 0; Goyal et
    al., 2017), which leaves the plateau at the mean pose sooner.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, DynamicConv2d):
            for kernel in layer.weight:
                nn.init.kaiming_normal_(kernel, mode="fan_in")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, InvertedResidual) and layer.is_residual:
            norm = layer.project[-1]
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.zeros_(norm.weight)

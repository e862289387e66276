"""What the backbones and heads are built of: convolutions, static or dynamic, with norm and activation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard, get_args

import torch
from torch import Tensor, nn

from posedy.models.dynamic_conv import AttentionKind, DynamicConv2d
from posedy.models.kernels.availability import takes
from posedy.models.ops import DepthwiseConv2d, EndPaddedConv2d

BneckLayer = Literal["expand", "depthwise", "project"]
"""The three convolutions of a bneck, C1, C2 and C3 of the paper's Table 5."""
BNECK_LAYERS: tuple[BneckLayer, ...] = get_args(BneckLayer)


Padding = Literal["symmetric", "tensorflow"]
"""Zeros around the input of a k x k convolution: k // 2 on all sides, or TensorFlow's SAME: at stride 2 one less above
and to the left. The two differ by one input pixel in where a stride-2 layer samples."""


class ConvFactory(Protocol):
    """Makes the convolutions of a network, so that one description serves its static and its dynamic form."""

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        *,
        bias: bool = False,
        padding: Padding = "symmetric",
    ) -> nn.Module:
        """A convolution, padded so that the output has H / stride rows; no bias where a batch norm follows."""


def static_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    *,
    bias: bool = False,
    padding: Padding = "symmetric",
) -> nn.Module:
    """A plain convolution, see `ConvFactory`."""
    pad, pad_end = _paddings(kernel_size, stride, padding)
    if groups == in_channels == out_channels and not bias:
        return DepthwiseConv2d(in_channels, kernel_size, stride, pad, pad_end)
    conv = EndPaddedConv2d if pad_end else nn.Conv2d
    return conv(in_channels, out_channels, kernel_size, stride, pad, groups=groups, bias=bias)


def _paddings(kernel_size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """The padding on all sides, and what is added to it below and to the right."""
    if padding == "tensorflow" and stride == 2:
        return kernel_size // 2 - 1, 1
    return kernel_size // 2, 0


@dataclass(frozen=True)
class DynamicConvFactory:
    """Makes dynamic convolutions, see `ConvFactory`.

    Attributes:
        num_kernels: K.
        temperature: tau of the attention's softmax.
        attention: what makes weights of the attention's last layer.
    """

    num_kernels: int = 4
    temperature: float = 30.0
    attention: AttentionKind = "softmax"

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        *,
        bias: bool = False,
        padding: Padding = "symmetric",
    ) -> nn.Module:
        """A dynamic convolution of K kernels."""
        pad, pad_end = _paddings(kernel_size, stride, padding)
        return DynamicConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            pad,
            groups=groups,
            bias=bias,
            num_kernels=self.num_kernels,
            temperature=self.temperature,
            attention=self.attention,
            pad_end=pad_end,
        )


class ConvNormAct(nn.Sequential):
    """A convolution, its batch norm and maybe an activation; in training on a GPU the last two are one kernel.

    The norm stays a plain `nn.BatchNorm2d`, which may be frozen or converted: what the kernel is not made for goes
    through the layers one by one. Where it does their work, hooks of norm and activation are not called.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        conv, *others = self
        y = conv(x)
        activation = _FUSED.get(tuple(type(layer) for layer in others))
        if activation is not None and takes(y) and _trains_with_statistics(others[0], y):
            from posedy.models.kernels.batch_norm import batch_norm_act  # Triton is not everywhere

            return batch_norm_act(y, others[0], activation)
        for layer in others:
            y = layer(y)
        return y


# exact types: a subclass, such as torchvision's frozen norms, may compute something else
_FUSED: dict[tuple[type[nn.Module], ...], Literal["none", "relu", "relu6"]] = {
    (nn.BatchNorm2d,): "none",
    (nn.BatchNorm2d, nn.ReLU): "relu",
    (nn.BatchNorm2d, nn.ReLU6): "relu6",
}


def _trains_with_statistics(norm: nn.Module, x: Tensor) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a norm is a batch norm in training of the usual kind: affine, with a moving average of its statistics."""
    return (
        isinstance(norm, nn.BatchNorm2d)
        and norm.training
        and norm.running_mean is not None
        and norm.momentum is not None
        and norm.affine
        and norm.weight.dtype == torch.float32
        and x.numel() > x.shape[1]  # torch refuses to norm one value
    )


def conv_norm_act(conv: nn.Module, out_channels: int, activation: nn.Module | None = None) -> nn.Sequential:
    """A convolution, its batch norm, and an activation if one is given."""
    layers = [conv, nn.BatchNorm2d(out_channels)]
    return ConvNormAct(*layers, activation) if activation is not None else ConvNormAct(*layers)


class Backbone(nn.Module, ABC):
    """What a head is put on: (N, C, H, W) -> (N, out_channels, H / 32, W / 32).

    Attributes:
        feature_channels: of the maps of `features`, those of strides 4, 8, 16 and 32.
        classifier: what follows the last map: an identity, or the ImageNet classifier.
    """

    feature_channels: tuple[int, int, int, int]
    classifier: nn.Module

    @property
    def out_channels(self) -> int:
        """Channels of the last map."""
        return self.feature_channels[-1]

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the last maps of strides 4, 8, 16 and 32, (N, C_i, H / stride, W / stride)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H / 32, W / 32), or logits (N, num_classes)."""
        return self.classifier(self.features(x)[-1])


def maps_after(blocks: nn.Module, x: Tensor, taps: Collection[int]) -> list[Tensor]:
    """The maps that blocks give after those with the numbers `taps`, and after the last one."""
    maps = []
    layers = list(blocks.children())
    for index, block in enumerate(layers):
        x = block(x)
        if index in taps or index == len(layers) - 1:
            maps.append(x)
    return maps


class ResidualBlock(nn.Module, ABC):
    """A block that may add its input to its output."""

    @property
    @abstractmethod
    def residual_norm(self) -> nn.BatchNorm2d | None:
        """The last norm of the branch that the input is added to; None if nothing is added."""


class SqueezeExcitation(nn.Module):
    """Attention over channels (Hu et al., CVPR 2018), with the hard sigmoid of MobileNetV3.

        y = x * hard_sigmoid(FC2(ReLU(FC1(GAP(x)))))

    Args:
        channels: C; FC1 has C // reduction outputs.
        reduction: of the channels.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)
        self.activation = nn.ReLU()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        scale = self.gate(self.fc2(self.activation(self.fc1(x.mean(dim=(2, 3))))))
        return x * scale[..., None, None]


class InvertedResidual(ResidualBlock):
    """The bottleneck residual block (bneck) of MobileNetV2 and V3: 1x1 expansion, depthwise kxk, linear 1x1 projection.

    The input is added when the stride is 1 and the channels stay.

    Args:
        in_channels: channels of the input.
        hidden_channels: channels of the depthwise convolution; no expansion when equal to `in_channels`.
        out_channels: channels of the output.
        kernel_size: of the depthwise convolution.
        stride: of the depthwise convolution.
        conv: makes the convolutions that `dynamic_layers` names; the others are static.
        activation: makes the activations.
        se: squeeze-and-excitation after the depthwise convolution (MobileNetV3).
        dynamic_layers: see above.
        padding: of the depthwise convolution.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        conv: ConvFactory,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU6,
        se: bool = False,
        dynamic_layers: Collection[str] = BNECK_LAYERS,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        expand, depthwise, project = (conv if layer in dynamic_layers else static_conv for layer in BNECK_LAYERS)
        self.expand = (
            conv_norm_act(expand(in_channels, hidden_channels, 1), hidden_channels, activation())
            if hidden_channels != in_channels
            else nn.Identity()
        )
        self.depthwise = conv_norm_act(
            depthwise(hidden_channels, hidden_channels, kernel_size, stride, groups=hidden_channels, padding=padding),
            hidden_channels,
            activation(),
        )
        self.se = SqueezeExcitation(hidden_channels) if se else nn.Identity()
        self.project = conv_norm_act(project(hidden_channels, out_channels, 1), out_channels)
        self.is_residual = stride == 1 and in_channels == out_channels

    @property
    def residual_norm(self) -> nn.BatchNorm2d | None:
        """The projection's, if the input is added."""
        norm = self.project[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm if self.is_residual else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H / stride, W / stride)."""
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.is_residual else y


def classifier(in_channels: int, num_classes: int, hidden_channels: int | None = None) -> nn.Sequential:
    """Global average pool and FC, or FC -> h-swish -> FC with hidden channels (MobileNetV3): (N, C, H, W) -> logits."""
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if hidden_channels is not None:
        layers += [nn.Linear(in_channels, hidden_channels), nn.Hardswish()]
    return nn.Sequential(*layers, nn.Linear(hidden_channels or in_channels, num_classes))


def initialize(module: nn.Module) -> None:
    """Initializes the convolutions of a network for training from scratch.

    He's normal initialization over the fan in, each of a dynamic layer's K kernels on its own fan; attention layers
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
        elif isinstance(layer, ResidualBlock) and layer.residual_norm is not None:
            nn.init.zeros_(layer.residual_norm.weight)

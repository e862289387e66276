"""Building blocks of backbones and heads: static or dynamic convolutions with batch norm and activation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard, get_args

import torch
from torch import Tensor, nn

from posedy.models.dynamic_conv import DEFAULT_NUM_KERNELS, DEFAULT_TEMPERATURE, AttentionKind, DynamicConv2d
from posedy.models.kernels.availability import can_use_triton
from posedy.models.ops import AsymmetricPadConv2d, DepthwiseConv2d

BneckLayer = Literal["expand", "depthwise", "project"]
"""The three convolutions of a bneck: C1, C2 and C3 in the paper's Table 5."""
BNECK_LAYERS: tuple[BneckLayer, ...] = get_args(BneckLayer)

Padding = Literal["symmetric", "tensorflow"]
"""Zero padding of a k x k convolution: k // 2 on all sides, or TensorFlow's SAME, which at stride 2 has one row and
column less at the top and the left. The sampling positions of a stride-2 layer differ by one input pixel."""


class ConvFactory(Protocol):
    """Protocol of functions that create convolutions, so that one definition has a static and a dynamic form."""

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
        """Creates a convolution padded to an output of H / stride rows; before a batch norm, `bias` is False."""


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
    """Creates a static convolution, the `conv` of a backbone or a head without dynamic convolutions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: size of the square kernel.
        stride: as in `nn.Conv2d`.
        groups: as in `nn.Conv2d`.
        bias: whether it has a bias; False before a batch norm.
        padding: "symmetric" or "tensorflow", such that the output has H / stride rows.
    """
    pad, pad_end = _padding_sizes(kernel_size, stride, padding)
    if groups == in_channels == out_channels and not bias:
        return DepthwiseConv2d(in_channels, kernel_size, stride, pad, pad_end)
    conv_type = AsymmetricPadConv2d if pad_end else nn.Conv2d
    return conv_type(in_channels, out_channels, kernel_size, stride, pad, groups=groups, bias=bias)


def _padding_sizes(kernel_size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Returns the padding on all sides and the additional padding at the bottom and the right."""
    if padding == "tensorflow" and stride == 2:
        return kernel_size // 2 - 1, 1
    return kernel_size // 2, 0


@dataclass(frozen=True)
class DynamicConvFactory:
    """Creates dynamic convolutions, see `ConvFactory`.

    Attributes:
        num_kernels: K, the number of kernels.
        temperature: tau of the attention's softmax.
        attention: "softmax", "sigmoid" or "normalized", see `KernelAttention`.
    """

    num_kernels: int = DEFAULT_NUM_KERNELS
    temperature: float = DEFAULT_TEMPERATURE
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
        """Creates a dynamic convolution of K kernels."""
        pad, pad_end = _padding_sizes(kernel_size, stride, padding)
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
    """A convolution, a batch norm and optionally an activation; training on a GPU fuses the last two into one kernel.

    The norm stays an ordinary `nn.BatchNorm2d`, which may be frozen or converted: cases that the kernel does not
    support run layer by layer. The fused kernel does not call the hooks of norm and activation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H', W')."""
        conv, *others = self
        y = conv(x)
        activation = _FUSED_ACTIVATIONS.get(tuple(type(layer) for layer in others))
        if activation is not None and can_use_triton(y) and _is_standard_training_norm(others[0], y):
            from posedy.models.kernels.batch_norm import batch_norm_act  # Triton is optional

            return batch_norm_act(y, others[0], activation)
        for layer in others:
            y = layer(y)
        return y


# exact types: subclasses, such as torchvision's frozen norms, may compute something else
_FUSED_ACTIVATIONS: dict[tuple[type[nn.Module], ...], Literal["none", "relu", "relu6"]] = {
    (nn.BatchNorm2d,): "none",
    (nn.BatchNorm2d, nn.ReLU): "relu",
    (nn.BatchNorm2d, nn.ReLU6): "relu6",
}


def _is_standard_training_norm(norm: nn.Module, x: Tensor) -> TypeGuard[nn.BatchNorm2d]:
    """Returns whether a norm is an affine batch norm in training mode with running averages of its statistics."""
    return (
        isinstance(norm, nn.BatchNorm2d)
        and norm.training
        and norm.running_mean is not None
        and norm.momentum is not None
        and norm.affine
        and norm.weight.dtype == torch.float32
        and x.numel() > x.shape[1]  # torch raises an error for a single value
    )


def conv_norm_act(conv: nn.Module, out_channels: int, activation: nn.Module | None = None) -> nn.Sequential:
    """Creates a convolution followed by its batch norm and, if given, an activation."""
    layers = [conv, nn.BatchNorm2d(out_channels)]
    return ConvNormAct(*layers, activation) if activation is not None else ConvNormAct(*layers)


class Backbone(nn.Module, ABC):
    """The feature extractor of a network: (N, C, H, W) -> (N, out_channels, H / 32, W / 32).

    Attributes:
        feature_channels: channels of the feature maps of strides 4, 8, 16 and 32.
        classifier: applied to the last feature map: an identity or the ImageNet classifier.
    """

    feature_channels: tuple[int, int, int, int]
    classifier: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Identity()

    def set_classifier(self, classifier: nn.Module) -> None:
        """Replaces the classifier; it becomes the last module, in the order of the computation."""
        del self.classifier
        self.classifier = classifier

    @property
    def out_channels(self) -> int:
        """Channels of the last feature map."""
        return self.feature_channels[-1]

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """Extracts the last feature maps (N, C_i, H / s, W / s) of strides s = 4, 8, 16 and 32 from x (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, out_channels, H / 32, W / 32), or to logits (N, num_classes)."""
        return self.classifier(self.features(x)[-1])


def collect_features(blocks: nn.Module, x: Tensor, out_indices: Collection[int]) -> list[Tensor]:
    """Runs blocks in sequence and returns the outputs of those at `out_indices` and of the last one."""
    features = []
    layers = list(blocks.children())
    for index, block in enumerate(layers):
        x = block(x)
        if index in out_indices or index == len(layers) - 1:
            features.append(x)
    return features


class ResidualBlock(nn.Module, ABC):
    """A block with an optional residual connection from its input to its output."""

    @property
    @abstractmethod
    def last_norm(self) -> nn.BatchNorm2d | None:
        """The last batch norm of the residual branch; None without a residual connection."""


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (Hu et al., CVPR 2018) with the hard sigmoid of MobileNetV3.

        y = x * hard_sigmoid(FC2(ReLU(FC1(GAP(x)))))

    Args:
        channels: C, channels of the input.
        reduction: FC1 has C // reduction outputs.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)
        self.activation = nn.ReLU()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Rescales the channels of (N, C, H, W)."""
        scale = self.gate(self.fc2(self.activation(self.fc1(x.mean(dim=(2, 3))))))
        return x * scale[..., None, None]


class InvertedResidual(ResidualBlock):
    """The bottleneck residual block (bneck) of MobileNetV2 and V3: 1x1 expansion, depthwise kxk, linear 1x1 projection.

    The input is added to the output if the stride is 1 and the numbers of channels are equal.

    Args:
        in_channels: channels of the input.
        hidden_channels: channels of the depthwise convolution; no expansion if equal to `in_channels`.
        out_channels: channels of the output.
        kernel_size: kernel size of the depthwise convolution.
        stride: stride of the depthwise convolution.
        conv: creates the convolutions named in `dynamic_layers`; the others are static.
        activation: creates the activations.
        se: whether squeeze-and-excitation follows the depthwise convolution (MobileNetV3).
        dynamic_layers: some of `BNECK_LAYERS`, see `conv`.
        padding: padding of the depthwise convolution.
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
    def last_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm of the projection; None without a residual connection."""
        norm = self.project[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm if self.is_residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return x + y if self.is_residual else y


def make_classifier(
    in_channels: int, num_classes: int | None, dropout: float = 0.0, hidden_channels: int | None = None
) -> nn.Module:
    """Creates a classifier: (N, C, H, W) -> logits (N, num_classes), or without classes the identity.

    Global average pooling is followed by a linear layer, or with `hidden_channels` by two with a hard swish between
    them (MobileNetV3). Dropout is before the last one.
    """
    if num_classes is None:
        return nn.Identity()
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if hidden_channels is not None:
        layers += [nn.Linear(in_channels, hidden_channels), nn.Hardswish()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(hidden_channels or in_channels, num_classes))


def init_weights(module: nn.Module) -> None:
    """Initializes the convolutions of a network for training from scratch.

    Uses He's normal initialization, for each of the K kernels of a dynamic layer with the fan-in of a single kernel.
    Attention layers and batch norms keep torch's defaults. Residual blocks start as the identity: the scale of their
    last norm is 0 (Goyal et al., 2017), which shortens the initial plateau at the mean pose.
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
        elif isinstance(layer, ResidualBlock) and layer.last_norm is not None:
            nn.init.zeros_(layer.last_norm.weight)

"""Backbones of timm, by the names `timm/NAME` and `dy_timm/NAME`."""

from typing import Any

from torch import Tensor

from posedy.models.blocks import Backbone, ConvFactory, DynamicConvFactory, static_conv
from posedy.models.replacement import replace_convs
from posedy.registration import nearest_name

_STRIDES = (4, 8, 16, 32)


class TimmBackbone(Backbone):
    """A convolutional network of timm as a backbone, with random weights.

    In the dynamic form its convolutions are replaced as in `posedy.to_dynamic`.

    Args:
        timm_name: the name in timm, such as "resnet18".
        conv: whether convolutions become dynamic, with which K and temperature.
        in_channels: channels of the image.

    Raises:
        ValueError: if timm is missing or has no model of this name, the model lacks feature maps of strides 4, 8, 16
            and 32, or the attention is not softmax.
    """

    def __init__(self, timm_name: str, conv: ConvFactory = static_conv, *, in_channels: int = 3) -> None:
        super().__init__()
        timm = check_timm_name(timm_name)
        try:
            net = timm.create_model(timm_name, pretrained=False, features_only=True, in_chans=in_channels)
        except RuntimeError as error:  # models without feature maps
            raise ValueError(f"timm's {timm_name} has no feature maps: {error}") from error
        strides = list(net.feature_info.reduction())
        if not set(_STRIDES) <= set(strides):
            raise ValueError(f"timm's {timm_name} has feature maps of strides {strides}, expected {list(_STRIDES)}")
        self._indices = [strides.index(stride) for stride in _STRIDES]
        channels = net.feature_info.channels()
        c4, c8, c16, c32 = (channels[index] for index in self._indices)
        self.feature_channels = (c4, c8, c16, c32)
        if isinstance(conv, DynamicConvFactory):
            if conv.attention != "softmax":
                raise ValueError(f"dy_timm/{timm_name} has softmax attention only, got attention={conv.attention!r}")
            net = replace_convs(net, conv.num_kernels, conv.temperature, noise=0.05, seed=0, select=None)
        self.net = net

    def features(self, x: Tensor) -> list[Tensor]:
        """Extracts the feature maps of strides 4, 8, 16 and 32 of images (N, in_channels, H, W)."""
        maps = self.net(x)
        return [maps[index] for index in self._indices]


def check_timm_name(name: str) -> Any:
    """Checks that timm is installed and has a model of this name, and returns the module timm.

    Raises:
        ValueError: if timm is not installed or has no such model; the message contains the nearest name.
    """
    try:
        import timm
    except ImportError:
        raise ValueError(f"timm/{name} needs timm: pip install 'posedy[timm]'") from None
    names = timm.list_models()
    if name not in names:
        nearest = nearest_name(name, names)
        raise ValueError(f"timm has no model {name!r}; the nearest name is {nearest!r}")
    return timm

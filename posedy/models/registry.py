"""Networks by name: `[dy_]BACKBONE-[dy_]HEAD`.

42 of the names are combinations of the paper's parts. The head `fpn` and the backbone `mobilenetv2_175`, which exists
for that head only, are beyond the paper.
"""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, get_args

from torch import nn

from posedy.codecs import Coding, make_codec
from posedy.models.backbones.mobilenetv2 import MobileNetV2
from posedy.models.backbones.mobilenetv3 import MobileNetV3Small
from posedy.models.backbones.resnet import ResNet
from posedy.models.blocks import BNECK_LAYERS, Backbone, ConvFactory, DynamicConvFactory, Padding, static_conv
from posedy.models.heads import BneckHead, DeconvHead, FPNHead
from posedy.models.pose_net import HeatmapOutput, PoseNet
from posedy.skeleton import COCO17, Skeleton

_BACKBONES: dict[str, Callable[..., Backbone]] = {
    "mobilenetv2_035": partial(MobileNetV2, 0.35),
    "mobilenetv2_050": partial(MobileNetV2, 0.5),
    "mobilenetv2_075": partial(MobileNetV2, 0.75),
    "mobilenetv2_100": partial(MobileNetV2, 1.0),
    "mobilenetv2_175": partial(MobileNetV2, 1.75, last_channels=1280),
    "mobilenetv3_small": MobileNetV3Small,
    "resnet10": partial(ResNet, (1, 1, 1, 1)),
    "resnet18": partial(ResNet, (2, 2, 2, 2)),
}


def _deconv_head(in_channels: int, num_keypoints: int, conv: ConvFactory) -> nn.Module:
    """The deconvolution head, which exists in its static form only."""
    return DeconvHead(in_channels, num_keypoints)


# head name -> constructor and whether it has a dynamic form
_HEADS: dict[str, tuple[Callable[..., nn.Module], bool]] = {
    "deconv": (_deconv_head, False),
    "bneck": (BneckHead, True),
    "fpn": (FPNHead, True),
}
# these read the maps of all strides
_PYRAMID_HEADS = ("fpn",)
_BEYOND_PAPER = ("fpn", "mobilenetv2_175")
_DYNAMIC_OPTIONS = ("attention", "dynamic_layers")
DEFAULT_NUM_KERNELS = 4
"""K of each dynamic convolution if none is given."""


def list_backbones() -> list[str]:
    """The names of all backbones, static and dynamic."""
    return [f"{prefix}{backbone}" for backbone in _BACKBONES for prefix in ("", "dy_")]


def list_models() -> list[str]:
    """The names of all networks: the paper's 42, then those beyond the paper."""
    heads = [
        name for head, (_, has_dynamic) in _HEADS.items() for name in ([head, f"dy_{head}"] if has_dynamic else [head])
    ]
    names = [
        f"{backbone}-{head}"
        for backbone in list_backbones()
        for head in heads
        if not backbone.endswith("mobilenetv2_175") or head.endswith("fpn")
    ]
    return sorted(names, key=is_beyond_paper)


def is_beyond_paper(name: str) -> bool:
    """Whether a network or a backbone has a part that the paper does not have."""
    return any(part.removeprefix("dy_") in _BEYOND_PAPER for part in name.split("-"))


def is_dynamic(name: str) -> bool:
    """Whether a network or a backbone has dynamic convolution, by its name."""
    return any(part.startswith("dy_") for part in name.split("-"))


def list_options(name: str) -> list[str]:
    """The options of a network or a backbone beside those that all have, as `create_model` takes them.

    Raises:
        ValueError: if the name is unknown.
    """
    _check_name(name, [*list_models(), *list_backbones()])
    backbone, _, head = name.partition("-")
    parts: list[tuple[str, Callable[..., nn.Module]]] = [(backbone, _BACKBONES[backbone.removeprefix("dy_")])]
    parts += [(head, _HEADS[head.removeprefix("dy_")][0])] if head else []
    names: set[str] = set()
    for part, constructor in parts:
        # What is about dynamic convolution is an option of the parts that have it.
        names |= {option for option in _parameters(constructor) if is_dynamic(part) or option not in _DYNAMIC_OPTIONS}
        names |= {"attention"} if is_dynamic(part) else set()
    return sorted(names - {"num_classes"})


def create_backbone(
    name: str,
    num_kernels: int = DEFAULT_NUM_KERNELS,
    *,
    temperature: float = 30.0,
    num_classes: int | None = None,
    **options: Any,
) -> Backbone:
    """Builds a backbone with fresh weights: (N, in_channels, H, W) -> (N, out_channels, H / 32, W / 32).

    Args:
        name: one of `list_backbones()`.
        num_kernels: K of each dynamic convolution; static networks take the default only.
        temperature: tau of the attention's softmax.
        num_classes: ends in the ImageNet classifier of so many classes (paper, Table 8); None ends in the last map.
        options: of the architecture, see `create_model`; `list_options(name)` has them.

    Raises:
        ValueError: if the name or an option is unknown or an argument does not fit.
    """
    _check_name(name, list_backbones())
    _check_options(name, options)
    _check_num_kernels(name, num_kernels)
    if num_classes is not None:
        _check_at_least_one(num_classes=num_classes)
    make_backbone = _BACKBONES[name.removeprefix("dy_")]
    conv = _conv_factory(name, num_kernels, temperature, options)
    return make_backbone(conv=conv, num_classes=num_classes, **_those_of(make_backbone, options))


def create_model(
    name: str,
    num_keypoints: int = 17,
    num_kernels: int = DEFAULT_NUM_KERNELS,
    *,
    temperature: float = 30.0,
    output: HeatmapOutput = "linear",
    coding: Coding = "paper",
    sigma: float | None = None,
    input_size: tuple[int, int] = (192, 256),
    skeleton: Skeleton | None = None,
    **options: Any,
) -> PoseNet:
    """Builds a network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_keypoints: heatmaps of the output.
        num_kernels: K of each dynamic convolution; static networks take the default only.
        temperature: tau of the attention's softmax.
        output: "linear", the paper's; "softmax": each heatmap a distribution over its cells, for cross-entropy; or
            "sigmoid": each cell a probability, for binary cross-entropy.
        coding: "paper" or "unbiased", of its heatmaps; kept with the network for those who decode them.
        sigma: standard deviation of its targets in heatmap pixels, kept with the network like the coding; None is 2 for
            crops of 256 pixels in height, and in proportion.
        input_size: (width, height) of the crops; kept with the network for those who use it.
        skeleton: the meaning of the keypoints; COCO's when there are 17.
        options: of the architecture, `list_options(name)` has those of a network:
            in_channels: 3; 1 makes a gray-scale network, which takes RGB crops too.
            attention: "softmax", the paper's, or "sigmoid", CondConv's (section 4.3), which has no temperature.
            dynamic_layers: which of "expand", "depthwise" and "project", C1 to C3 of Table 5, are dynamic in a bneck.
            depth: multiplier of the number of blocks (MobileNetV2, Figure 6).
            se: False leaves out squeeze-and-excitation (MobileNetV3, Table 7).
            padding: "symmetric", or "tensorflow" for weights that were trained there (MobileNetV2).

    Raises:
        ValueError: if the name or an option is unknown or another argument does not fit.
    """
    _check_name(name, list_models())
    _check_options(name, options)
    _check_at_least_one(num_keypoints=num_keypoints)
    _check_num_kernels(name, num_kernels)
    make_codec(coding, input_size, sigma)  # refuses what it does not know
    if output not in get_args(HeatmapOutput):
        raise ValueError(f"output is one of {list(get_args(HeatmapOutput))}, got {output!r}")
    if not isinstance(skeleton, Skeleton | None):
        raise TypeError(f"skeleton is a posedy.Skeleton, got {skeleton!r}")
    if skeleton is None and num_keypoints == COCO17.num_keypoints:
        skeleton = COCO17
    if skeleton is not None and skeleton.num_keypoints != num_keypoints:
        raise ValueError(f"the skeleton has {skeleton.num_keypoints} keypoints, num_keypoints is {num_keypoints}")
    backbone_name, head_name = name.split("-")
    of_backbone = {option: options[option] for option in list_options(backbone_name) if option in options}
    of_backbone["num_kernels"] = num_kernels if is_dynamic(backbone_name) else DEFAULT_NUM_KERNELS
    backbone = create_backbone(backbone_name, temperature=temperature, **of_backbone)
    make_head, _ = _HEADS[head_name.removeprefix("dy_")]
    conv = _conv_factory(head_name, num_kernels, temperature, options)
    is_pyramid = head_name.removeprefix("dy_") in _PYRAMID_HEADS
    channels = backbone.feature_channels if is_pyramid else backbone.out_channels
    head = make_head(channels, num_keypoints, conv, **_those_of(make_head, options))
    record: dict[str, Any] = {
        "num_keypoints": num_keypoints,
        "num_kernels": num_kernels,
        "output": output,
        "coding": coding,
        "sigma": sigma,
        **options,
    }
    return PoseNet(backbone, head, name=name, skeleton=skeleton, input_size=input_size, options=record)


def _conv_factory(name: str, num_kernels: int, temperature: float, options: Mapping[str, Any]) -> ConvFactory:
    """What makes the convolutions of a backbone or a head, by its name."""
    if not is_dynamic(name):
        return static_conv
    return DynamicConvFactory(num_kernels, temperature, options.get("attention", "softmax"))


def _parameters(constructor: Callable[..., nn.Module]) -> set[str]:
    """The options of a constructor: its arguments that are given by name only."""
    parameters = inspect.signature(constructor).parameters.values()
    return {item.name for item in parameters if item.kind is item.KEYWORD_ONLY}


def _those_of(constructor: Callable[..., nn.Module], options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in _parameters(constructor)}


def _check_name(name: str, names: list[str]) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a model's name is text, one of posedy.list_models(), got {name!r}")
    if name not in names:
        heads = [f"[dy_]{head}" if has_dynamic else head for head, (_, has_dynamic) in _HEADS.items()]
        raise ValueError(
            f"unknown model {name!r}; the nearest name is {_nearest(name.lower(), names)!r}. Networks are "
            f"[dy_]BACKBONE-HEAD with the backbones {', '.join(_BACKBONES)} and the heads {', '.join(heads)}; "
            "posedy.list_models() has them all (mobilenetv2_175 takes the heads fpn and dy_fpn only)"
        )


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    valid = list_options(name)
    for option, value in options.items():
        if option in _DYNAMIC_OPTIONS and option not in valid:
            raise ValueError(f"{option!r} is an option of dynamic convolution, {name} has none that takes it")
        if option not in valid:
            raise ValueError(
                f"unknown option {option!r} of {name}; the nearest is {_nearest(option, valid)!r}, all are {valid}"
            )
        if option == "in_channels":
            _check_at_least_one(in_channels=value)
        if option == "se" and not isinstance(value, bool):
            raise ValueError(f"se is true or false, got {value!r}")
        if option == "depth" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"depth is a number, got {value!r}")
        if option == "padding" and value not in get_args(Padding):
            raise ValueError(f"padding is one of {list(get_args(Padding))}, got {value!r}")
        if option == "dynamic_layers":
            _check_layers(value)


def _check_num_kernels(name: str, num_kernels: int) -> None:
    _check_at_least_one(num_kernels=num_kernels)
    if num_kernels != DEFAULT_NUM_KERNELS and not is_dynamic(name):
        raise ValueError(
            f"num_kernels={num_kernels} is for dynamic convolution, {name} has none: leave it out, or use a network "
            "with a part whose name begins with dy_"
        )


def _check_layers(layers: Collection[str]) -> None:
    if isinstance(layers, str) or not isinstance(layers, Collection) or not layers:
        raise ValueError(f"dynamic_layers is a list of some of {list(BNECK_LAYERS)}, got {layers!r}")
    for layer in layers:
        if layer not in BNECK_LAYERS:
            nearest = _nearest(str(layer), BNECK_LAYERS)
            raise ValueError(f"unknown layer {layer!r} in dynamic_layers; the nearest is {nearest!r}")


def _check_at_least_one(**numbers: int) -> None:
    for what, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"{what} is a whole number, got {number!r}")
        if number < 1:
            raise ValueError(f"{what} must be at least 1, got {number}")


def _nearest(word: str, words: Iterable[str]) -> str:
    return difflib.get_close_matches(word, list(words), n=1, cutoff=0)[0]

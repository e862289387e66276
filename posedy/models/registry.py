"""The registry of backbones and heads, and networks by name: `[dy_]BACKBONE-[dy_]HEAD`.

42 of the names are combinations of the paper's parts. The heads `fpn` and `simcc` and the backbone `mobilenetv2_175`,
which exists for these heads only, are beyond the paper.
"""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from posedy.models.backbones.mobilenetv2 import MobileNetV2
from posedy.models.backbones.mobilenetv3 import MobileNetV3Small
from posedy.models.backbones.resnet import ResNet
from posedy.models.heads import BneckHead, DeconvHead, FPNHead, SimCCHead
from posedy.registration import nearest_name, register

_BACKBONES: dict[str, Callable[..., nn.Module]] = {}
_HEADS: dict[str, Callable[..., nn.Module]] = {}
_Factory = TypeVar("_Factory", bound=Callable[..., nn.Module])
_NAMES = r"(?!dy_)[A-Za-z0-9_]+"


def register_backbone(name: str) -> Callable[[_Factory], _Factory]:
    """Registers a backbone: a decorator of a class or a function that creates one.

        @posedy.register_backbone("my_net")
        class MyNet(posedy.Backbone):
            def __init__(self, conv=posedy.static_conv, *, width: int = 32): ...

    `[dy_]my_net-HEAD` is then a name for `create_model`, configurations and the command line. The factory is called as
    `factory(conv=..., **options)`: `conv` creates its convolutions, static ones or dynamic ones (see `ConvFactory`),
    and its keyword-only parameters are options of `create_model`. A factory without `conv` has no dynamic form. It
    returns a module from (N, 3, H, W) to (N, out_channels, H / 32, W / 32) with an attribute `out_channels`; a
    `Backbone` also supports heads that use feature maps of all strides.

    Args:
        name: letters, digits and underscores; not beginning with `dy_`.

    Raises:
        TypeError: if the factory cannot be called.
        ValueError: if the name is invalid, or another factory has it.
    """
    return register(_BACKBONES, "backbone", name, _NAMES)


def register_head(name: str) -> Callable[[_Factory], _Factory]:
    """Registers a head: a decorator of a class or a function that creates one.

    The factory is called as `factory(in_channels, num_keypoints, conv=..., **options)` and returns a module from the
    backbone's feature map (N, in_channels, H / 32, W / 32) to the outputs of the network's codec, such as heatmaps
    (N, num_keypoints, H / 4, W / 4). With an attribute `reads_pyramid = True` it receives the channels and
    the feature maps of strides 4, 8, 16 and 32 instead. `conv` and options are as for `register_backbone`.

    The attribute `codec` of a factory, such as `codec = "simcc"`, is the name of the default codec of its networks;
    other codecs must have the same outputs. Without it, the default is "msra", and any codec is accepted. A factory
    with a parameter `input_size` receives the (width, height) of the crops; a module with an attribute `input_size`
    supports crops of this size only.

    Args:
        name: letters, digits and underscores; not beginning with `dy_`.

    Raises:
        TypeError: if the factory cannot be called.
        ValueError: if the name is invalid, or another factory has it.
    """
    return register(_HEADS, "head", name, _NAMES)


_BACKBONES |= {
    "mobilenetv2_035": partial(MobileNetV2, 0.35),
    "mobilenetv2_050": partial(MobileNetV2, 0.5),
    "mobilenetv2_075": partial(MobileNetV2, 0.75),
    "mobilenetv2_100": partial(MobileNetV2, 1.0),
    "mobilenetv2_175": partial(MobileNetV2, 1.75, last_channels=1280),
    "mobilenetv3_small": MobileNetV3Small,
    "resnet10": partial(ResNet, (1, 1, 1, 1)),
    "resnet18": partial(ResNet, (2, 2, 2, 2)),
}
_HEADS |= {"deconv": DeconvHead, "bneck": BneckHead, "fpn": FPNHead, "simcc": SimCCHead}
PRESETS = {
    "light": "mobilenetv2_100-fpn-192x160",
    "balanced": "mobilenetv2_100-fpn",
    "accurate": "mobilenetv2_175-fpn",
}
"""The networks of the presets, which are names of pretrained weights by their purpose."""
_FORMER = {"dy_mobilenetv2_050-dy_bneck": "light"}
"""Networks whose weights were in the package before, and the presets that replace them."""
_PAPER_BACKBONES = tuple(name for name in _BACKBONES if name != "mobilenetv2_175")
_PAPER_HEADS = ("deconv", "bneck")
_HEADS_OF_175 = ("fpn", "dy_fpn", "simcc")
_DEFAULT_CODEC = "msra"
_INPUT_SIZE = "input_size"
DYNAMIC_OPTIONS = ("attention", "dynamic_layers")
"""Options of dynamic convolutions."""
_TIMM = "timm/"
_PACKAGE = __name__.partition(".")[0]
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
"""The folder of the package with the weights of pretrained networks."""


def list_backbones() -> list[str]:
    """Lists the names of all registered backbones, static and dynamic (`dy_`)."""
    return [name for backbone in _BACKBONES for name in _forms(backbone, _BACKBONES[backbone])]


def list_heads() -> list[str]:
    """Lists the names of all registered heads, static and dynamic (`dy_`)."""
    return [name for head in _HEADS for name in _forms(head, _HEADS[head])]


def list_models(pretrained: bool = False) -> list[str]:
    """Lists the names of networks: the paper's 42, then those beyond the paper, then those with registered parts.

    With timm installed, `[dy_]timm/NAME-HEAD` are names of networks too, which are not listed.

    Args:
        pretrained: whether to list only the networks whose weights are in the package; `PRESETS` names them by their
            purpose.
    """
    if pretrained:
        return list_pretrained()
    heads = list_heads()
    names = [
        f"{backbone}-{head}"
        for backbone in list_backbones()
        for head in heads
        if backbone.removeprefix("dy_") != "mobilenetv2_175" or head in _HEADS_OF_175
    ]
    return sorted(names, key=is_beyond_paper)


def list_pretrained() -> list[str]:
    """Lists the names of the networks whose weights are in the package, sorted."""
    return sorted(file.stem for file in WEIGHTS_FOLDER.glob("*.safetensors"))


def list_presets() -> dict[str, str]:
    """Lists the presets whose weights are in the package, with the names of their networks."""
    pretrained = list_pretrained()
    return {preset: name for preset, name in PRESETS.items() if name in pretrained}


def weights_path(name: str) -> Path:
    """Returns the file of the weights of a preset or a pretrained network in the package.

    Raises:
        ValueError: if the package has no weights of the name.
    """
    presets, names = list_presets(), list_pretrained()
    if name in presets or name in names:
        return WEIGHTS_FOLDER / f"{presets.get(name, name)}.safetensors"
    if name in _FORMER:
        raise ValueError(
            f"the weights of {name!r} are no longer in the package: the preset {_FORMER[name]!r} replaces them"
        )
    hint = f"; the nearest name is {nearest_name(name, [*presets, *names])!r}" if names else ""
    listed = ", ".join(f"{preset} ({network})" for preset, network in presets.items())
    raise ValueError(
        f"the package has no weights of {name!r}{hint}. It has the presets {listed or 'none'} and the networks "
        f"{', '.join(names) or 'none'}"
    )


def is_beyond_paper(name: str) -> bool:
    """Returns whether a network or a backbone has a part that is not in the paper."""
    backbone, head = split_name(name)
    return backbone.removeprefix("dy_") not in _PAPER_BACKBONES or (
        head != "" and head.removeprefix("dy_") not in _PAPER_HEADS
    )


def is_dynamic(name: str) -> bool:
    """Returns whether a network, a backbone or a head has dynamic convolution, by its name."""
    return any(part.startswith("dy_") for part in split_name(name))


def list_options(name: str) -> list[str]:
    """Lists the names of the options of `create_model` that are specific to a network or a backbone.

    Raises:
        ValueError: if the name is unknown.
    """
    check_name(name, [*list_models(), *list_backbones()])
    names: set[str] = set()
    for part, factory in _parts(name):
        options = options_of(factory)
        if "num_classes" in options:  # arguments of `create_backbone`
            options -= {"num_classes", "dropout"}
        # options of dynamic convolution belong to the dynamic parts
        names |= {option for option in options if is_dynamic(part) or option not in DYNAMIC_OPTIONS}
        names |= {"attention"} if is_dynamic(part) else set()
    return sorted(names)


def list_own_options(name: str) -> set[str]:
    """Lists the options that a network or a backbone has of posedy's own parts, whose values are known."""
    return {option for _, factory in _parts(name) if _is_own(factory) for option in options_of(factory)}


def _is_own(factory: Callable[..., nn.Module]) -> bool:
    """Returns whether the parameters of a factory are defined in posedy, also if a class inherits them."""
    function = getattr(factory, "func", factory)  # of a functools.partial
    defined = inspect.getattr_static(function, "__init__") if isinstance(function, type) else function
    return str(getattr(defined, "__module__", "")).startswith(f"{_PACKAGE}.")


def _parts(name: str) -> list[tuple[str, Callable[..., nn.Module]]]:
    """Returns the names and the factories of the backbone and, if there is one, the head of a network."""
    backbone, head = split_name(name)
    return [(backbone, backbone_factory(backbone)), *([(head, head_factory(head))] if head else [])]


def _forms(name: str, factory: Callable[..., nn.Module]) -> list[str]:
    """Returns the static name of a backbone or a head and, if its factory takes `conv`, the dynamic one."""
    return [name, f"dy_{name}"] if takes_conv(factory) else [name]


def takes_conv(factory: Callable[..., nn.Module]) -> bool:
    """Returns whether a factory has a parameter `conv`, and so a dynamic form."""
    return "conv" in inspect.signature(factory).parameters


def takes_input_size(factory: Callable[..., nn.Module]) -> bool:
    """Returns whether the factory of a head has a parameter `input_size`."""
    return _INPUT_SIZE in inspect.signature(factory).parameters


def head_codec(head: str) -> str | None:
    """Returns the name of the codec that a head declares; None if it declares none or the head is unknown."""
    return getattr(_HEADS.get(head.removeprefix("dy_")), "codec", None)


def default_codec(name: str) -> str:
    """Returns the name of the default codec of a network: that of its head, or "msra"."""
    return head_codec(split_name(name)[1]) or _DEFAULT_CODEC


def split_name(name: str) -> tuple[str, str]:
    """Splits a name into backbone and head; the head of a backbone's name is empty."""
    backbone, separator, head = name.rpartition("-")
    return (backbone, head) if separator else (name, "")


def head_factory(name: str) -> Callable[..., nn.Module]:
    """Returns the factory of a head, static or dynamic, by its name."""
    return _HEADS[name.removeprefix("dy_")]


def backbone_factory(name: str) -> Callable[..., nn.Module]:
    """Returns the factory of a backbone, static or dynamic, by its name."""
    static_name = name.removeprefix("dy_")
    if static_name.startswith(_TIMM):
        from posedy.models.backbones.timm import TimmBackbone  # timm is optional

        return partial(TimmBackbone, static_name.removeprefix(_TIMM))
    return _BACKBONES[static_name]


def options_of(factory: Callable[..., nn.Module]) -> set[str]:
    """Returns the options of a factory: its keyword-only parameters."""
    parameters = inspect.signature(factory).parameters.values()
    return {item.name for item in parameters if item.kind is item.KEYWORD_ONLY} - {_INPUT_SIZE}


def check_is_string(name: Any) -> None:
    """Raises TypeError if the name of a model is not a string."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a model must be a string, one of posedy.list_models(), got {name!r}")


def check_name(name: str, names: list[str]) -> None:
    """Checks a name against valid names; names of timm are checked by timm.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is unknown; the message has the nearest name.
    """
    check_is_string(name)
    backbone, head = split_name(name)
    if backbone.removeprefix("dy_").startswith(_TIMM):
        from posedy.models.backbones.timm import check_timm_name  # timm is optional

        check_timm_name(backbone.removeprefix("dy_").removeprefix(_TIMM))
        if head and head not in list_heads():
            raise ValueError(f"unknown head {head!r}; the nearest name is {nearest_name(head, list_heads())!r}")
        return
    if name not in names:
        raise ValueError(
            f"unknown model {name!r}; the nearest name is {nearest_name(name.lower(), names)!r}. Networks are "
            f"[dy_]BACKBONE-[dy_]HEAD with the backbones {', '.join(_BACKBONES)} and the heads "
            f"{', '.join(list_heads())} (mobilenetv2_175 takes the heads {', '.join(_HEADS_OF_175)} only); "
            "posedy.list_models() lists them. Custom backbones and heads must be imported first: imports: [MODULE] in "
            "the configuration, --import MODULE on the command line"
        )

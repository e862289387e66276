"""Networks by name: `[dy_]BACKBONE-[dy_]HEAD`."""

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from torch import nn

from posedy.codec import HeatmapCodec
from posedy.models.blocks import ConvFactory, DynamicConvFactory, static_conv
from posedy.models.heads import BneckHead, DeconvHead
from posedy.models.mobilenetv2 import MobileNetV2
from posedy.models.pose_net import HeatmapOutput, PoseNet
from posedy.skeleton import COCO17, Skeleton

_BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mobilenetv2_035": partial(MobileNetV2, 0.35),
    "mobilenetv2_050": partial(MobileNetV2, 0.5),
    "mobilenetv2_075": partial(MobileNetV2, 0.75),
    "mobilenetv2_100": partial(MobileNetV2, 1.0),
}


def _deconv_head(in_channels: int, num_keypoints: int, conv: ConvFactory) -> nn.Module:
    """The deconvolution head, which exists in its static form only."""
    return DeconvHead(in_channels, num_keypoints)


# head name -> constructor and whether it has a dynamic form
_HEADS: dict[str, tuple[Callable[[int, int, ConvFactory], nn.Module], bool]] = {
    "deconv": (_deconv_head, False),
    "bneck": (BneckHead, True),
}


def list_models() -> list[str]:
    """The names of all networks."""
    heads = [
        name for head, (_, has_dynamic) in _HEADS.items() for name in ([head, f"dy_{head}"] if has_dynamic else [head])
    ]
    return [f"{prefix}{backbone}-{head}" for backbone in _BACKBONES for prefix in ("", "dy_") for head in heads]


def create_model(
    name: str,
    num_keypoints: int = 17,
    num_kernels: int = 4,
    *,
    temperature: float = 30.0,
    output: HeatmapOutput = "linear",
    input_size: tuple[int, int] = (192, 256),
    skeleton: Skeleton | None = None,
) -> PoseNet:
    """Builds a network with fresh weights.

    Args:
        name: one of `list_models()`.
        num_keypoints: heatmaps of the output.
        num_kernels: K of each dynamic convolution.
        temperature: tau of the attention's softmax.
        output: "linear", the paper's, or "softmax": each heatmap a distribution over its cells, for cross-entropy.
        input_size: (width, height) of the crops; kept with the network for those who use it.
        skeleton: the meaning of the keypoints; COCO's when there are 17.

    Raises:
        ValueError: if the name is unknown or another argument does not fit.
    """
    if not isinstance(name, str):
        raise TypeError(f"a model's name is text, one of posedy.list_models(), got {name!r}")
    if name not in list_models():
        nearest = difflib.get_close_matches(name.lower(), list_models(), n=1, cutoff=0)
        raise ValueError(
            f"unknown model {name!r}; the nearest name is {nearest[0]!r}; posedy.list_models() has them all"
        )
    for what, number in (("num_keypoints", num_keypoints), ("num_kernels", num_kernels)):
        if number < 1:
            raise ValueError(f"{what} must be at least 1, got {number}")
    HeatmapCodec(input_size)  # refuses sizes that do not divide by 32
    if output not in get_args(HeatmapOutput):
        raise ValueError(f"output is one of {list(get_args(HeatmapOutput))}, got {output!r}")
    if skeleton is None and num_keypoints == COCO17.num_keypoints:
        skeleton = COCO17
    if skeleton is not None and skeleton.num_keypoints != num_keypoints:
        raise ValueError(f"the skeleton has {skeleton.num_keypoints} keypoints, num_keypoints is {num_keypoints}")
    dynamic = DynamicConvFactory(num_kernels, temperature)
    backbone_name, head_name = name.split("-")
    make_backbone = _BACKBONES[backbone_name.removeprefix("dy_")]
    make_head, _ = _HEADS[head_name.removeprefix("dy_")]
    backbone = make_backbone(conv=dynamic if backbone_name.startswith("dy_") else static_conv)
    head = make_head(_out_channels(backbone), num_keypoints, dynamic if head_name.startswith("dy_") else static_conv)
    options: dict[str, Any] = {"num_keypoints": num_keypoints, "num_kernels": num_kernels, "output": output}
    return PoseNet(backbone, head, name=name, skeleton=skeleton, input_size=input_size, options=options)


def _out_channels(backbone: nn.Module) -> int:
    channels = backbone.out_channels
    assert isinstance(channels, int)
    return channels

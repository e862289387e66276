"""Starting a network from existing weights: a network file of posedy's, or a backbone trained on ImageNet.

Files of ImageNet weights are torchvision's and timm's MobileNetV2, and ResNets of basic blocks. Tensors are found by
name, never by place: .safetensors files are in the order of the alphabet. Their images are normalized as posedy's crops
are, and strides, padding, epsilons and rounding of channels are the same: the backbone's output is that of the model
the file is of.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posedy.models.backbones.mobilenetv2 import MobileNetV2
from posedy.models.backbones.resnet import ResNet
from posedy.models.blocks import BNECK_LAYERS
from posedy.models.conversion import DEFAULT_NOISE, convert_weights, is_attention, static_name, static_shape
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import find_weights, read_weights, restore_network

_COUNTER = "num_batches_tracked"  # of batch norms; old files have none, and nothing reads it


@dataclass(frozen=True)
class _Origin:
    """Whose naming a file follows.

    Attributes:
        title: in words.
        marks: names that files of this origin have.
        backbone: what they are weights of.
        classifier: how the names begin that a pose network has no use for.
        modules: (names of the file, backbone) -> module of the backbone: module in the file.
    """

    title: str
    marks: tuple[str, ...]
    backbone: type[nn.Module]
    classifier: str
    modules: Callable[[Iterable[str], Any], dict[str, str]]


def load_backbone(contents: Any, net: PoseNet, noise: float = DEFAULT_NOISE) -> str:
    """Fills the backbone of a network with what a file of ImageNet weights holds; the head stays as it is.

    A dynamic backbone gets K kernels around each static one, see `convert_weights`.

    Args:
        contents: a state dict, or one under "state_dict" or "model"; names may begin with "module.".
        net: its backbone is filled whole or not at all.
        noise: of the kernels of dynamic layers.

    Returns:
        What was used, in words.

    Raises:
        ValueError: if the names are of no origin known here, or tensors are missing, too many or of other shapes.
    """
    given = _state_dict(contents)
    backbone_name = net.name.split("-")[0]
    origin = next((item for item in _ORIGINS if all(mark in given for mark in item.marks)), None)
    if origin is None:
        raise ValueError(
            f"its tensors ({', '.join(list(given)[:3])}, ...) are neither of a network of posedy's nor "
            f"of an ImageNet model that has a backbone here: {', '.join(item.title for item in _ORIGINS)}"
        )
    if not isinstance(net.backbone, origin.backbone):
        raise ValueError(f"it holds a {origin.title}, and the network's backbone is {backbone_name}")
    modules = origin.modules(given, net.backbone)
    state = net.backbone.state_dict()
    sources = {name: _renamed(name, modules) for name in state if not is_attention(name)}
    used = {source for source in sources.values() if source in given}
    unused = [name for name in given if name not in used]
    problems = list(_misfits(given, state, sources))
    problems += [f"{name} has no place" for name in unused if not name.startswith(origin.classifier)]
    if problems:
        more = f" ({len(problems) - 1} more tensors do not fit)" if len(problems) > 1 else ""
        raise ValueError(f"it holds a {origin.title} that is not the backbone {backbone_name}: {problems[0]}{more}")
    tensors = {name: given.get(source, torch.tensor(0)) for name, source in sources.items()}
    conversion = convert_weights(tensors, net.backbone, noise)
    return (
        f"{origin.title}, {len(used)} of {len(given)} tensors of the file used"
        + (f" (not {', '.join(unused)})" if unused else "")
        + (f"; {len(tensors) - len(used)} {_COUNTER} that it lacks are 0" if len(used) < len(tensors) else "")
        + f"; all {len(tensors)} tensors of the backbone {backbone_name} filled: {conversion}; the head is fresh"
    )


def to_torchvision(backbone: MobileNetV2) -> dict[str, Tensor]:
    """The tensors of a static MobileNetV2 under torchvision's names, which `load_backbone` reads."""
    modules = _torchvision_mobilenetv2((), backbone)
    return {_renamed(name, modules): tensor for name, tensor in backbone.state_dict().items()}


def _state_dict(contents: Any) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(contents, Mapping) and isinstance(contents.get(key), Mapping):
            contents = contents[key]
    if not (isinstance(contents, Mapping) and contents):
        raise ValueError(f"it holds no tensors by name but a {type(contents).__name__}: save a model's state_dict()")
    for name, tensor in contents.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise ValueError(
                f"it holds more than tensors by name: {name!r} is a {type(tensor).__name__}; a model's state_dict() "
                'is looked for in the file itself and in its entries "state_dict" and "model"'
            )
    prefix = "module." if all(name.startswith("module.") for name in contents) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in contents.items()}


def _misfits(given: Mapping[str, Tensor], state: Mapping[str, Tensor], sources: Mapping[str, str]) -> Iterator[str]:
    """What tensors of the backbone lack in the file, in words with the names of the file."""
    for name, source in sources.items():
        shape = static_shape(name, state)
        if source in given and given[source].shape != shape:
            yield f"{source} has the shape {tuple(given[source].shape)} in it, {tuple(shape)} is expected"
        elif source not in given and not source.endswith(_COUNTER):
            yield f"it has no {source}"


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{modules[module]}.{leaf}"


def _torchvision_mobilenetv2(names: Iterable[str], backbone: MobileNetV2) -> dict[str, str]:
    modules = {"stem.0": "features.0.0", "stem.1": "features.0.1"}
    for index, block in enumerate(backbone.blocks):
        ours, theirs = f"blocks.{index}", f"features.{index + 1}.conv"
        layers = ("depthwise",) if isinstance(block.expand, nn.Identity) else ("expand", "depthwise")
        for place, layer in enumerate(layers):
            modules[f"{ours}.{layer}.0"] = f"{theirs}.{place}.0"
            modules[f"{ours}.{layer}.1"] = f"{theirs}.{place}.1"
        modules[f"{ours}.project.0"] = f"{theirs}.{len(layers)}"
        modules[f"{ours}.project.1"] = f"{theirs}.{len(layers) + 1}"
    last = f"features.{len(backbone.blocks) + 1}"
    return modules | {"last.0": f"{last}.0", "last.1": f"{last}.1"}


def _flat_mobilenetv2(names: Iterable[str], backbone: MobileNetV2) -> dict[str, str]:
    modules = _torchvision_mobilenetv2(names, backbone)
    for index, block in enumerate(backbone.blocks):
        # a block is one sequence of conv, norm, activation and so on; the last has no activation
        layers = ("depthwise", "project") if isinstance(block.expand, nn.Identity) else BNECK_LAYERS
        for place, layer in enumerate(layers):
            modules[f"blocks.{index}.{layer}.0"] = f"features.{index + 1}.conv.{3 * place}"
            modules[f"blocks.{index}.{layer}.1"] = f"features.{index + 1}.conv.{3 * place + 1}"
    return modules


def _timm_mobilenetv2(names: Iterable[str], backbone: MobileNetV2) -> dict[str, str]:
    modules = {"stem.0": "conv_stem", "stem.1": "bn1", "last.0": "conv_head", "last.1": "bn2"}
    blocks = _blocks(names, r"blocks\.(\d+)\.(\d+)\.", "blocks.{}.{}", len(backbone.blocks))
    for index, (block, theirs) in enumerate(zip(backbone.blocks, blocks, strict=True)):
        if isinstance(block.expand, nn.Identity):
            convs = {"depthwise": "conv_dw", "project": "conv_pw"}
        else:
            convs = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        for place, (layer, conv) in enumerate(convs.items(), start=1):
            modules[f"blocks.{index}.{layer}.0"] = f"{theirs}.{conv}"
            modules[f"blocks.{index}.{layer}.1"] = f"{theirs}.bn{place}"
    return modules


def _resnet(names: Iterable[str], backbone: ResNet) -> dict[str, str]:
    modules = {"stem.0": "conv1", "stem.1": "bn1"}
    blocks = _blocks(names, r"layer(\d+)\.(\d+)\.", "layer{}.{}", len(backbone.blocks))
    for index, theirs in enumerate(blocks):
        ours = f"blocks.{index}"
        for layer in (1, 2):
            modules[f"{ours}.conv{layer}.0"] = f"{theirs}.conv{layer}"
            modules[f"{ours}.conv{layer}.1"] = f"{theirs}.bn{layer}"
        modules[f"{ours}.shortcut.0"] = f"{theirs}.downsample.0"
        modules[f"{ours}.shortcut.1"] = f"{theirs}.downsample.1"
    return modules


def _blocks(names: Iterable[str], pattern: str, template: str, count: int) -> list[str]:
    """The names of a file's blocks in the order of their numbers (stage, place in the stage)."""
    found = {(int(match[1]), int(match[2])) for name in names if (match := re.match(pattern, name))}
    if len(found) != count:
        raise ValueError(f"it holds a model of {len(found)} blocks, and the network's backbone has {count}")
    return [template.format(*numbers) for numbers in sorted(found)]


_ORIGINS = (
    _Origin(
        "MobileNetV2 of torchvision's",
        ("features.0.0.weight", "features.1.conv.0.0.weight"),
        MobileNetV2,
        "classifier.",
        _torchvision_mobilenetv2,
    ),
    _Origin(
        "MobileNetV2 in torchvision's naming of 2018",
        ("features.0.0.weight", "features.1.conv.0.weight"),
        MobileNetV2,
        "classifier.",
        _flat_mobilenetv2,
    ),
    _Origin(
        "MobileNetV2 of timm's",
        ("conv_stem.weight", "blocks.0.0.conv_dw.weight"),
        MobileNetV2,
        "classifier.",
        _timm_mobilenetv2,
    ),
    _Origin("ResNet of torchvision's or timm's", ("conv1.weight", "layer1.0.conv1.weight"), ResNet, "fc.", _resnet),
)


def load_pretrained(net: PoseNet, path: str | Path) -> str:
    """Fills a network with the weights of a file, whole or not at all.

    The file, or the shipped network of that name, holds either a network of posedy's (.pt, .safetensors), the same as
    `net` or its static, dynamic or partly dynamic twin, see `convert_weights`; or an ImageNet model that fits the
    backbone, see `load_backbone`, and the head stays fresh. The last layer, which makes the heatmaps, stays fresh too
    where the keypoints or the kind of output differ. Noise is drawn from torch's generator.

    Returns:
        What the file holds and what of it was used, in words.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it fits neither way; the message names what differs.
    """
    path = find_weights(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path.resolve()}")
    record, tensors = read_weights(path)
    start = restore_network(record, tensors, path) if record is not None else None
    try:
        _check_finite(tensors)
        return f"{path}: {load_backbone(tensors, net) if start is None else _load_twin(start, net)}"
    except ValueError as error:
        raise ValueError(f"{path} cannot start {net.name}: {error}") from error


def _check_finite(contents: Any) -> None:
    """Refuses numbers that would make the first loss NaN; what is no mapping of tensors is refused by others."""
    if isinstance(contents, Mapping):
        for name, tensor in contents.items():
            if isinstance(tensor, Tensor) and not tensor.isfinite().all():
                raise ValueError(f"{name} holds numbers that are not finite: the file is of a training that broke down")


def _load_twin(start: PoseNet, net: PoseNet) -> str:
    if static_name(start.name) != static_name(net.name):
        raise ValueError(
            f"it holds {start.name}; besides ImageNet models for the backbone, weights of the same network do, static "
            "or dynamic"
        )
    differences = _of_the_heatmaps(start, net)
    fresh = _heatmap_layer(net) if differences else {}
    try:
        conversion = convert_weights({**start.state_dict(), **fresh}, net)
    except ValueError as error:
        before, now = start.options, net.options
        differing = [
            f"{name} {before.get(name, 'default')} in the file, {now.get(name, 'default')} in the network"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        raise ValueError(f"it holds {start.name}; {', '.join([*differing, str(error)])}") from error
    report = f"{start.name}, {replace(conversion, copied=conversion.copied - len(fresh))}"
    return f"{report}; the layer of the heatmaps is fresh: {', '.join(differences)}" if differences else report


def _heatmap_layer(net: PoseNet) -> dict[str, Tensor]:
    """The tensors of the last convolution."""
    *_, layer = (name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    return {name: tensor for name, tensor in net.state_dict().items() if name.startswith(f"{layer}.")}


def _of_the_heatmaps(start: PoseNet, net: PoseNet) -> list[str]:
    """What the heatmaps of two networks differ in, in words."""
    differences = []
    before, now = start.skeleton, net.skeleton
    if before is not None and now is not None and before.keypoints != now.keypoints:
        differences.append(f"the file's keypoints are {list(before.keypoints)}, the network's {list(now.keypoints)}")
    elif start.num_keypoints != net.num_keypoints:
        differences.append(f"the file has {start.num_keypoints} keypoints, the network {net.num_keypoints}")
    if start.options["output"] != net.options["output"]:
        differences.append(f"the file's output is {start.options['output']}, the network's {net.options['output']}")
    return differences

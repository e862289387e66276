"""Loading of pretrained weights into a network: posedy network files and ImageNet backbones.

Supported ImageNet weights are MobileNetV2 of torchvision and timm, and their ResNets with basic blocks. Tensors are
matched by name, never by position: .safetensors files are in alphabetical order. Image normalization, strides, padding,
epsilons and the rounding of channels equal posedy's, so the backbone computes the same as the original model.
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
from posedy.models.classifier import Classifier
from posedy.models.conversion import DEFAULT_NOISE, convert_weights, is_attention, static_name, static_shape
from posedy.models.network_file import read_weights
from posedy.models.pose_net import PoseNet, last_layer
from posedy.models.pretrained import find_weights, load_classifier, restore_classifier, restore_network

_COUNTER = "num_batches_tracked"  # of batch norms; missing in old files, and not used


@dataclass(frozen=True)
class _SourceFormat:
    """A naming scheme of files with ImageNet weights.

    Attributes:
        title: description for messages.
        signature: tensor names that identify the scheme.
        backbone: class of the backbone.
        classifier_prefix: prefix of the classifier's tensors, which are not used.
        map_modules: (tensor names of the file, backbone) -> {module of the backbone: module in the file}.
    """

    title: str
    signature: tuple[str, ...]
    backbone: type[nn.Module]
    classifier_prefix: str
    map_modules: Callable[[Iterable[str], Any], dict[str, str]]


def load_backbone(contents: Any, net: PoseNet, noise: float = DEFAULT_NOISE) -> str:
    """Loads ImageNet weights into the backbone of a network; the head is not changed.

    Each kernel becomes K kernels of a dynamic backbone, see `convert_weights`.

    Args:
        contents: a state dict, or one under "state_dict" or "model"; names may start with "module.".
        net: network whose backbone is loaded completely or, on an error, not changed.
        noise: noise of the kernels of dynamic layers, see `convert_weights`.

    Returns:
        A log message that lists the tensors used.

    Raises:
        ValueError: if the naming scheme is unknown, or tensors are missing, unexpected or of the wrong shape.
    """
    given = _extract_state_dict(contents)
    backbone_name = net.name.split("-")[0]
    source_format = next((item for item in _SOURCE_FORMATS if all(name in given for name in item.signature)), None)
    if source_format is None:
        raise ValueError(
            f"expected a posedy network or one of {', '.join(item.title for item in _SOURCE_FORMATS)}, got the tensors "
            f"{', '.join(list(given)[:3])}, ..."
        )
    title = source_format.title
    if not isinstance(net.backbone, source_format.backbone):
        raise ValueError(f"expected weights of the backbone {backbone_name}, got {title}")
    modules = source_format.map_modules(given, net.backbone)
    state = net.backbone.state_dict()
    sources = {name: _rename(name, modules) for name in state if not is_attention(name)}
    used = {source for source in sources.values() if source in given}
    unused = [name for name in given if name not in used]
    problems = list(_mismatches(given, state, sources))
    problems += [f"unexpected {name}" for name in unused if not name.startswith(source_format.classifier_prefix)]
    if problems:
        more = f" (and {len(problems) - 1} more mismatches)" if len(problems) > 1 else ""
        raise ValueError(f"{title} does not match the backbone {backbone_name}: {problems[0]}{more}")
    tensors = {name: given.get(source, torch.tensor(0)) for name, source in sources.items()}
    conversion = convert_weights(tensors, net.backbone, noise)
    return (
        f"{title}: used {len(used)} of {len(given)} tensors of the file"
        + (f" (not {', '.join(unused)})" if unused else "")
        + (f"; set {len(tensors) - len(used)} missing {_COUNTER} to 0" if len(used) < len(tensors) else "")
        + f"; loaded all {len(tensors)} tensors of the backbone {backbone_name}: {conversion}; did not load the head"
    )


def to_torchvision(backbone: MobileNetV2) -> dict[str, Tensor]:
    """Returns the tensors of a static MobileNetV2 under torchvision's names, which `load_backbone` reads."""
    modules = _map_torchvision_mobilenetv2((), backbone)
    return {_rename(name, modules): tensor for name, tensor in backbone.state_dict().items()}


def _extract_state_dict(contents: Any) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(contents, Mapping) and isinstance(contents.get(key), Mapping):
            contents = contents[key]
    if not (isinstance(contents, Mapping) and contents):
        raise ValueError(f"expected a non-empty state_dict() of a model, got {type(contents).__name__}")
    for name, tensor in contents.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise ValueError(
                f"expected only tensors, got {name!r} of type {type(tensor).__name__}; a state_dict() is read from the "
                'file itself or from its entries "state_dict" and "model"'
            )
    prefix = "module." if all(name.startswith("module.") for name in contents) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in contents.items()}


def _mismatches(given: Mapping[str, Tensor], state: Mapping[str, Tensor], sources: Mapping[str, str]) -> Iterator[str]:
    """Yields the missing tensors and the tensors of the wrong shape, by their names in the file."""
    for name, source in sources.items():
        shape = static_shape(name, state)
        if source in given and given[source].shape != shape:
            yield f"expected {source} of shape {tuple(shape)}, got {tuple(given[source].shape)}"
        elif source not in given and not source.endswith(_COUNTER):
            yield f"missing {source}"


def _rename(name: str, modules: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{modules[module]}.{leaf}"


def _map_torchvision_mobilenetv2(names: Iterable[str], backbone: MobileNetV2) -> dict[str, str]:
    modules = {"stem.0": "features.0.0", "stem.1": "features.0.1"}
    for index, block in enumerate(backbone.blocks):
        ours, theirs = f"blocks.{index}", f"features.{index + 1}.conv"
        layers = ("depthwise",) if isinstance(block.expand, nn.Identity) else ("expand", "depthwise")
        for position, layer in enumerate(layers):
            modules[f"{ours}.{layer}.0"] = f"{theirs}.{position}.0"
            modules[f"{ours}.{layer}.1"] = f"{theirs}.{position}.1"
        modules[f"{ours}.project.0"] = f"{theirs}.{len(layers)}"
        modules[f"{ours}.project.1"] = f"{theirs}.{len(layers) + 1}"
    last = f"features.{len(backbone.blocks) + 1}"
    return modules | {"last.0": f"{last}.0", "last.1": f"{last}.1"}


def _map_flat_mobilenetv2(names: Iterable[str], backbone: MobileNetV2) -> dict[str, str]:
    modules = _map_torchvision_mobilenetv2(names, backbone)
    for index, block in enumerate(backbone.blocks):
        # a block is a flat sequence of conv, norm and activation; the projection has no activation
        layers = ("depthwise", "project") if isinstance(block.expand, nn.Identity) else BNECK_LAYERS
        for position, layer in enumerate(layers):
            modules[f"blocks.{index}.{layer}.0"] = f"features.{index + 1}.conv.{3 * position}"
            modules[f"blocks.{index}.{layer}.1"] = f"features.{index + 1}.conv.{3 * position + 1}"
    return modules


def _map_timm_mobilenetv2(names: Iterable[str], backbone: MobileNetV2) -> dict[str, str]:
    modules = {"stem.0": "conv_stem", "stem.1": "bn1", "last.0": "conv_head", "last.1": "bn2"}
    blocks = _list_blocks(names, r"blocks\.(\d+)\.(\d+)\.", "blocks.{}.{}", len(backbone.blocks))
    for index, (block, theirs) in enumerate(zip(backbone.blocks, blocks, strict=True)):
        if isinstance(block.expand, nn.Identity):
            convs = {"depthwise": "conv_dw", "project": "conv_pw"}
        else:
            convs = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        for position, (layer, conv) in enumerate(convs.items(), start=1):
            modules[f"blocks.{index}.{layer}.0"] = f"{theirs}.{conv}"
            modules[f"blocks.{index}.{layer}.1"] = f"{theirs}.bn{position}"
    return modules


def _map_resnet(names: Iterable[str], backbone: ResNet) -> dict[str, str]:
    modules = {"stem.0": "conv1", "stem.1": "bn1"}
    blocks = _list_blocks(names, r"layer(\d+)\.(\d+)\.", "layer{}.{}", len(backbone.blocks))
    for index, theirs in enumerate(blocks):
        ours = f"blocks.{index}"
        for layer in (1, 2):
            modules[f"{ours}.conv{layer}.0"] = f"{theirs}.conv{layer}"
            modules[f"{ours}.conv{layer}.1"] = f"{theirs}.bn{layer}"
        modules[f"{ours}.shortcut.0"] = f"{theirs}.downsample.0"
        modules[f"{ours}.shortcut.1"] = f"{theirs}.downsample.1"
    return modules


def _list_blocks(names: Iterable[str], pattern: str, template: str, count: int) -> list[str]:
    """Lists the names of a file's blocks, sorted by stage and position in the stage."""
    found = {(int(match[1]), int(match[2])) for name in names if (match := re.match(pattern, name))}
    if len(found) != count:
        raise ValueError(f"expected a model of {count} blocks, as in the network's backbone, got {len(found)}")
    return [template.format(*numbers) for numbers in sorted(found)]


_SOURCE_FORMATS = (
    _SourceFormat(
        "torchvision MobileNetV2",
        ("features.0.0.weight", "features.1.conv.0.0.weight"),
        MobileNetV2,
        "classifier.",
        _map_torchvision_mobilenetv2,
    ),
    _SourceFormat(
        "torchvision MobileNetV2 (2018 names)",
        ("features.0.0.weight", "features.1.conv.0.weight"),
        MobileNetV2,
        "classifier.",
        _map_flat_mobilenetv2,
    ),
    _SourceFormat(
        "timm MobileNetV2",
        ("conv_stem.weight", "blocks.0.0.conv_dw.weight"),
        MobileNetV2,
        "classifier.",
        _map_timm_mobilenetv2,
    ),
    _SourceFormat("torchvision or timm ResNet", ("conv1.weight", "layer1.0.conv1.weight"), ResNet, "fc.", _map_resnet),
)


def load_pretrained(net: PoseNet, path: str | Path) -> str:
    """Loads pretrained weights into a network, completely or, on an error, not at all.

    The weights are those of a posedy network (.pt, .safetensors), either the same as `net` or its static, dynamic or
    partly dynamic counterpart, see `convert_weights`; or of an ImageNet model for the backbone, see `load_backbone`,
    which leaves the head unchanged. The last convolution, which predicts a map for each keypoint, is left unchanged if
    the keypoints or the output type differ. Noise is sampled from torch's global generator.

    Args:
        net: the network to load.
        path: a file, or the name of a pretrained network.

    Returns:
        A log message that describes the file and lists the tensors used.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the weights do not match the network; the message names the differences.
    """
    path = find_weights(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path.resolve()}")
    record, tensors = read_weights(path)
    try:
        _check_finite(tensors)
        if record is None:
            return f"{path}: {load_backbone(tensors, net)}"
        if isinstance(record, Mapping) and "classes" in record:
            return f"{path}: {_load_classifier(restore_classifier(record, tensors, path), net)}"
    except ValueError as error:
        raise ValueError(f"cannot load {path} into {net.name}: {error}") from error
    source = restore_network(record, tensors, path)
    try:
        return f"{path}: {_load_counterpart(source, net)}"
    except ValueError as error:
        raise ValueError(f"cannot load {path} into {net.name}: {error}") from error


def load_pretrained_classifier(net: Classifier, path: Path) -> str:
    """Loads the weights of a classifier, or of its static or dynamic counterpart, completely or not at all.

    The last layer is left unchanged if the classes differ.

    Args:
        net: the network to load.
        path: a checkpoint of a classifier.

    Returns:
        A log message that describes the file and lists the tensors used.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the weights do not match the network.
    """
    source = load_classifier(path)
    if static_name(source.name) != static_name(net.name):
        raise ValueError(f"cannot load {path} into {net.name}: expected {static_name(net.name)}, got {source.name}")
    tensors = source.state_dict()
    _check_finite(tensors)
    is_same = source.classes == net.classes
    not_loaded = [] if is_same else [name for name in tensors if name.startswith("backbone.classifier.")][-2:]
    conversion = convert_weights(tensors | {name: net.state_dict()[name] for name in not_loaded}, net)
    message = f"{path}: {source.name}: {replace(conversion, copied=conversion.copied - len(not_loaded))}"
    return message if is_same else f"{message}; did not load the last layer: other classes"


def _check_finite(contents: Any) -> None:
    """Raises ValueError for tensors that are not finite, which would make the first loss NaN."""
    if isinstance(contents, Mapping):
        for name, tensor in contents.items():
            if isinstance(tensor, Tensor) and not tensor.isfinite().all():
                raise ValueError(f"{name} is not finite: the file is from a training run that diverged")


def _load_classifier(source: Classifier, net: PoseNet) -> str:
    """Loads the backbone of a classifier, or of its static or dynamic counterpart."""
    backbone = net.name.split("-")[0]
    if static_name(source.name) != static_name(backbone):
        raise ValueError(f"expected a classifier with the backbone {static_name(backbone)}, got {source.name}")
    tensors = {
        name: tensor for name, tensor in source.backbone.state_dict().items() if not name.startswith("classifier.")
    }
    conversion = convert_weights(tensors, net.backbone)
    return f"the backbone of the classifier {source.name}: {conversion}; did not load the head"


def _load_counterpart(source: PoseNet, net: PoseNet) -> str:
    if static_name(source.name) != static_name(net.name):
        raise ValueError(
            f"expected weights of {static_name(net.name)}, static or dynamic, or ImageNet weights for the backbone, "
            f"got {source.name}"
        )
    if source.fixed_input_size is not None:
        net.check_input_size(source.input_size)
    differences = _heatmap_differences(source, net)
    not_loaded = last_layer(net) if differences else {}
    try:
        conversion = convert_weights({**source.state_dict(), **not_loaded}, net)
    except ValueError as error:
        before, now = source.options, net.options
        differing = [
            f"{name} {before.get(name, 'default')} in the file, {now.get(name, 'default')} in the network"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        raise ValueError(f"{source.name}: {', '.join([*differing, str(error)])}") from error
    message = f"{source.name}: {replace(conversion, copied=conversion.copied - len(not_loaded))}"
    return f"{message}; did not load the last layer: {', '.join(differences)}" if differences else message


def _heatmap_differences(source: PoseNet, net: PoseNet) -> list[str]:
    """Describes the differences between the keypoint maps of two networks."""
    differences = []
    before, now = source.skeleton, net.skeleton
    if before is not None and now is not None and before.keypoints != now.keypoints:
        differences.append(f"the file's keypoints are {list(before.keypoints)}, the network's {list(now.keypoints)}")
    elif source.num_keypoints != net.num_keypoints:
        differences.append(f"the file has {source.num_keypoints} keypoints, the network {net.num_keypoints}")
    if source.options["output"] != net.options["output"]:
        differences.append(f"the file's output is {source.options['output']}, the network's {net.options['output']}")
    return differences

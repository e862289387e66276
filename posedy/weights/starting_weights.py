"""Networks that start from weights in a file: of the same network, of its twin, or of a model trained on ImageNet."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from posedy.models.pose_net import PoseNet
from posedy.weights.conversion import convert_weights, static_name
from posedy.weights.network_file import read_weights, restore_network
from posedy.weights.pretrained import load_backbone
from posedy.weights.shipped import find_weights


def start_from(net: PoseNet, path: str | Path) -> str:
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

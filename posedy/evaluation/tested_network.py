"""What is tested: a network from a checkpoint, or a graph that was exported of one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from posedy.codec import HeatmapCodec, make_codec
from posedy.config import Config
from posedy.device import choose_device
from posedy.models.pose_net import PoseNet
from posedy.models.zoo import is_dynamic
from posedy.skeleton import Skeleton
from posedy.weights.network_file import load_checkpoint


class TestedNetwork(Protocol):
    """A network, or what computes the same: normalised crops (N, C, H, W) -> heatmaps (N, K, h, w)."""

    @property
    def name(self) -> str:
        """Its name in `list_models`."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What it was made with."""

    @property
    def num_keypoints(self) -> int:
        """The number K of keypoints."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the crops that it was trained on."""

    @property
    def skeleton(self) -> Skeleton | None:
        """The meaning of the keypoints, if it is known."""

    @property
    def codec(self) -> HeatmapCodec:
        """The codec of its heatmaps."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Heatmaps."""


def load_configured_network(config: Config, checkpoint: Path) -> PoseNet:
    """Loads a checkpoint of the configured network, in evaluation mode, on the CPU.

    Raises:
        OSError, ValueError: if the file is missing, is not a checkpoint, or holds another network.
    """
    net = load_checkpoint(checkpoint)
    _check_configured(config, net, checkpoint)
    return net


def load_tested_network(config: Config, checkpoint: Path, device: str) -> tuple[TestedNetwork, torch.device]:
    """The configured network, or an exported graph of it, and the device on which it computes.

    Raises:
        OSError, ValueError: if the file is missing, is neither, holds another network, or the device is absent.
    """
    if checkpoint.suffix != ".onnx":
        chosen = choose_device(device)
        return load_configured_network(config, checkpoint).to(chosen), chosen
    from posedy.deploy.graph_file import load_graph
    from posedy.deploy.heatmap_graph import HeatmapGraph

    runner, info, chosen = load_graph(checkpoint, device)
    if info.decodes:
        raise ValueError(f"{checkpoint} gives keypoints, heatmaps are wanted: export it without --decode")
    graph = HeatmapGraph(runner, info)
    _check_configured(config, graph, checkpoint)
    if graph.input_size != config.model.input_size:
        raise ValueError(
            f"{checkpoint} takes crops of {graph.input_size} and no others, the configuration's are "
            f"{config.model.input_size}: test it with model.input_size={list(graph.input_size)}"
        )
    return graph, chosen


def _check_configured(config: Config, net: TestedNetwork, checkpoint: Path) -> None:
    """Makes sure that a network is the configured one.

    Raises:
        ValueError: if it is another.
    """
    if net.name != config.model.name:
        raise ValueError(f"{checkpoint} holds {net.name}, the configuration names {config.model.name}: use its own")
    model = config.model
    asked = {"num_kernels": model.num_kernels, "output": model.output, "coding": model.coding, **model.options}
    held = {name: value for name, value in net.options.items() if name != "num_keypoints"}
    if not is_dynamic(net.name):
        held["num_kernels"] = model.num_kernels  # older files record any number, which static networks do not use
    # a sigma that is not given equals the default of the configured input size
    asked["sigma"] = make_codec(model.coding, model.input_size, model.sigma).target_sigma
    held["sigma"] = dataclasses.replace(net.codec, input_size=model.input_size).target_sigma
    for name in sorted(asked.keys() | held.keys()):
        if asked.get(name) != held.get(name):
            raise ValueError(
                f"{checkpoint} holds a network of {name}={held.get(name, 'default')}, the configuration says "
                f"{asked.get(name, 'default')}: use its own configuration"
            )

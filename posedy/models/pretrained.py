"""Loading and saving of networks, and the pretrained networks in the package."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posedy.models.classifier import Classifier
from posedy.models.factory import create_classifier, create_model
from posedy.models.network_file import (
    network_state,
    read_weights,
    recorded_options,
    recorded_skeleton,
    save_weights,
    write_checkpoint,
)
from posedy.models.pose_net import PoseNet
from posedy.models.registry import list_models, list_presets, weights_path

DEFAULT = "balanced"
"""The preset of the default network."""


def load_checkpoint(path: str | os.PathLike[str], model_class: type[PoseNet] = PoseNet) -> PoseNet:
    """Loads the network of a checkpoint (.pt) or a .safetensors file, in evaluation mode, on the CPU.

    Args:
        path: the file, a preset such as "balanced", or the name of a pretrained network, see
            `list_models(pretrained=True)`.
        model_class: the class of the network: `PoseNet`, or a subclass that overrides `forward`.

    Raises:
        OSError: if the file is missing.
        ValueError: if no pretrained network has the name, posedy did not write the file, or its tensors do not fit the
            network that it names.
    """
    path = find_weights(path)
    if not path.is_file():
        names = ", ".join(list_presets())
        raise FileNotFoundError(f"no checkpoint at {path.resolve()}: give the path of a file, or one of {names}")
    if path.suffix.lower() == ".onnx":
        raise ValueError(f"{path} is an exported file: expected the checkpoint that it was exported from")
    record, tensors = read_weights(path)
    if record is None:
        raise ValueError(f"{path} is not a file of posedy: it does not record which network its weights belong to")
    return restore_network(record, tensors, path, model_class)


def is_classifier(path: Path) -> bool:
    """Returns whether a file contains a classifier; False for a missing and for an exported file.

    Raises:
        OSError, ValueError: if the file cannot be read as tensors and plain types.
    """
    if not path.is_file() or path.suffix.lower() == ".onnx":
        return False
    record, _ = read_weights(path)
    return isinstance(record, Mapping) and "classes" in record


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """Loads the classifier of a checkpoint, in evaluation mode, on the CPU.

    Raises:
        OSError: if the file is missing.
        ValueError: if it contains no classifier.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path.resolve()}")
    record, tensors = read_weights(path)
    if record is None or "classes" not in record:
        raise ValueError(f"{path} contains no classifier" + (f" but {record['name']}" if record else ""))
    return restore_classifier(record, tensors, path)


def restore_classifier(record: Any, tensors: Any, path: Path) -> Classifier:
    """Creates the classifier of a record and loads its tensors, in evaluation mode.

    Raises:
        ValueError: if the tensors do not fit the network that the record names; the message names `path`.
    """
    try:
        width, height = record["input_size"]
        options = recorded_options(record)
        net = create_classifier(record["name"], record["classes"], input_size=(width, height), **options)
        net.load_state_dict(tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} contains no classifier that this version of posedy can build: {error}") from error
    return net.eval()


def save_checkpoint(net: PoseNet, path: str | os.PathLike[str]) -> None:
    """Saves a network to a .pt or .safetensors file atomically; `load_checkpoint` loads it.

    Args:
        net: the network.
        path: NAME.pt or NAME.safetensors.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if it is not a PoseNet.
        ValueError: if the file name has the wrong suffix.
    """
    if not isinstance(net, PoseNet):
        raise TypeError(f"expected a PoseNet and a path, got {type(net).__name__}: other modules have torch.save")
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        save_weights(net, path)
    elif path.suffix.lower() == ".pt":
        write_checkpoint({"network": network_state(net)}, path)
    else:
        raise ValueError(f"expected a file name NAME.pt or NAME.safetensors, got {path}")


def restore_network(record: Any, tensors: Any, path: Path, model_class: type[PoseNet] = PoseNet) -> PoseNet:
    """Creates the network of a record and loads its tensors, in evaluation mode.

    Raises:
        ValueError: if the tensors do not fit the network that the record names; the message names `path`.
    """
    if isinstance(record, Mapping) and "classes" in record:
        raise ValueError(
            f"{path} contains the classifier {record['name']}, no pose network: train one that starts from it "
            f"(model.weights={path})"
        )
    try:
        net = _create(record, model_class)
        net.load_state_dict(tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"its record has no entry {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} contains no network that this version of posedy can build: {reason}") from error
    return net.eval()


def _create(record: Mapping[str, Any], model_class: type[PoseNet]) -> PoseNet:
    width, height = record["input_size"]
    return create_model(
        record["name"],
        **recorded_options(record),
        input_size=(width, height),
        skeleton=recorded_skeleton(record),
        model_class=model_class,
    )


def find_weights(model: str | os.PathLike[str]) -> Path:
    """Finds the file of a path, a preset or the name of a pretrained network.

    A name without a suffix and a folder is a preset or a pretrained network, unless a file has this name.

    Raises:
        ValueError: if it is a name of which the package has no weights.
    """
    path = Path(model)
    if path.name != str(model) or path.suffix or path.is_file():
        return path
    try:
        return weights_path(path.name)
    except ValueError as error:
        hint = f" {path} is an architecture: posedy.create_model creates it" if str(path) in list_models() else ""
        raise ValueError(f"{error}. Or give the path of a .pt, .safetensors or .onnx file.{hint}") from None

"""Network files, checkpoints (.pt) and released files (.safetensors), and the pretrained networks in the package.

Both carry the model's name and options, its skeleton and its input size beside the tensors, so that a file is enough to
build the network again; the temperature is among the tensors. Checkpoints hold tensors and plain types only.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from posedy.files import atomic_write
from posedy.models.pose_net import PoseNet
from posedy.models.registry import create_model, is_dynamic
from posedy.skeleton import Skeleton

_SAFETENSORS_KEY = "posedy"


def network_record(net: PoseNet) -> dict[str, Any]:
    """What is needed beside the tensors to build the network again, in plain types."""
    return {
        "name": net.name,
        "options": dict(net.options),
        "input_size": list(net.input_size),
        "skeleton": dataclasses.asdict(net.skeleton) if net.skeleton is not None else None,
    }


def recorded_skeleton(record: Mapping[str, Any]) -> Skeleton | None:
    """The skeleton of a record, if it is known.

    Raises:
        KeyError, TypeError, ValueError: if it is none.
    """
    fields = record["skeleton"]
    if fields is None:
        return None
    return Skeleton(
        keypoints=tuple(fields["keypoints"]),
        flip_pairs=tuple((int(a), int(b)) for a, b in fields["flip_pairs"]),
        limbs=tuple((int(a), int(b)) for a, b in fields["limbs"]),
        sigmas=tuple(fields["sigmas"]),
        upper_body=tuple(fields["upper_body"]) if fields["upper_body"] is not None else None,
    )


def network_state(net: PoseNet) -> dict[str, Any]:
    """A checkpoint's entry for a network: its record and its tensors."""
    return {"record": network_record(net), "tensors": net.state_dict()}


def save_weights(net: PoseNet, path: str | Path, half: bool = False) -> None:
    """Writes a network to a .safetensors file, whole or not at all.

    Args:
        net: the network.
        path: NAME.safetensors.
        half: write parameters as float16, at half the size. What is no parameter stays as it is: running variances
            leave float16's range and temperatures must be exact.

    Raises:
        ValueError: if the file's name does not end in .safetensors, or a parameter is too large for float16.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"weights are written as NAME.safetensors, got {path}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    if half:
        for name, _ in net.named_parameters():
            if tensors[name].abs().max() > torch.finfo(torch.float16).max:
                raise ValueError(f"{name} has values that float16 does not hold: write {path} without half")
            tensors[name] = tensors[name].half()
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={_SAFETENSORS_KEY: json.dumps(network_record(net))})


def load_checkpoint(path: str | os.PathLike[str]) -> PoseNet:
    """Builds the network that a checkpoint (.pt) or a .safetensors file holds, in evaluation mode, on the CPU.

    Args:
        path: of the file, or the name of a shipped network, see `list_pretrained`.

    Raises:
        OSError: if the file is missing.
        ValueError: if no shipped network has the name, it is not a file of posedy's, or its tensors do not fit the
            network it names.
    """
    path = find_weights(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path.resolve()}")
    record, tensors = read_weights(path)
    if record is None:
        raise ValueError(f"{path} is not a file of posedy's: it does not say which network its weights are of")
    return restore_network(record, tensors, path)


def read_weights(path: Path) -> tuple[Any, Any]:
    """What a .safetensors file or one of torch's holds: the record of a network, and its tensors, neither checked yet.

    A file that is not posedy's has no record (None), and all that it holds comes in the place of the tensors.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it cannot be read as tensors and plain types.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    state = _read_plain(path)
    network = _network_of(state)
    return (network["record"], network["tensors"]) if network is not None else (None, state)


def restore_network(record: Any, tensors: Any, path: Path) -> PoseNet:
    """Builds the network of a record and fills it, in evaluation mode.

    Raises:
        ValueError: if the tensors do not fit the network that the record names; the message names `path`.
    """
    try:
        net = _build(record)
        net.load_state_dict(tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold a network that this version of posedy can build: {error}") from error
    return net.eval()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of posedy's as tensors and plain types, on the CPU.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not a checkpoint of posedy's.
    """
    state = _read_plain(path)
    if _network_of(state) is None:
        raise ValueError(f"{path} is not a checkpoint of posedy's: it has no network with a record and tensors")
    return dict(state)


def _read_plain(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises whatever a spoiled file runs into: struct.error, KeyError, AssertionError
        raise ValueError(
            f"{path} is not a checkpoint that holds tensors and plain types only (it is damaged, of another kind, or a "
            "whole model saved as an object, where its state_dict() is wanted)"
        ) from error


def _network_of(state: Any) -> Mapping[str, Any] | None:
    network = state.get("network") if isinstance(state, Mapping) else None
    return network if isinstance(network, Mapping) and {"record", "tensors"} <= network.keys() else None


def _read_safetensors(path: Path) -> tuple[Any, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if _SAFETENSORS_KEY not in metadata:
        return None, tensors
    try:
        return json.loads(metadata[_SAFETENSORS_KEY]), tensors
    except ValueError as error:
        raise ValueError(f"{path}: the {_SAFETENSORS_KEY!r} entry of its metadata is not JSON: {error}") from error


def _build(record: Mapping[str, Any]) -> PoseNet:
    width, height = record["input_size"]
    skeleton = recorded_skeleton(record)
    options = dict(record["options"])
    if not is_dynamic(record["name"]):
        options.pop("num_kernels", None)  # older files record any number, which static networks do not use
    return create_model(record["name"], **options, input_size=(width, height), skeleton=skeleton)


FOLDER = Path(__file__).parents[1] / "weights"
DEFAULT = "dy_mobilenetv2_050-dy_bneck"
"""The network that is used where none is named."""


def list_pretrained() -> list[str]:
    """The names of the shipped networks, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def find_weights(model: str | os.PathLike[str]) -> Path:
    """The file that a path or the name of a shipped network means.

    A word without a suffix is a name, unless a file is called so.

    Raises:
        ValueError: if it is a name that no shipped network has.
    """
    path = Path(model)
    if path.name != str(model) or path.suffix or path.exists():
        return path
    from posedy.models.registry import list_models  # imports torch, which a command's --help does without

    shipped = list_pretrained()
    if path.name in shipped:
        return FOLDER / f"{path.name}.safetensors"
    hint = (
        f" ({path} is an architecture: posedy.create_model builds it, untrained)" if str(path) in list_models() else ""
    )
    raise ValueError(
        f"no shipped model is named {str(path)!r}{hint}; shipped are: {', '.join(shipped) or 'none'}. "
        "Or give the path of a .pt or .safetensors file"
    )

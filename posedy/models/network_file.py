"""Network files: checkpoints (.pt) and weights (.safetensors).

Both record the name and the options of the network, its skeleton and its input size besides the tensors, so that a file
is sufficient to rebuild the network; the temperature is one of the tensors. Checkpoints contain tensors and plain types
only.
"""

import dataclasses
import errno
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from posedy.files import atomic_write
from posedy.models.classifier import Classifier
from posedy.models.pose_net import PoseNet
from posedy.skeleton import Skeleton

Network = PoseNet | Classifier
_SAFETENSORS_KEY = "posedy"
# names of codecs in files of posedy 0.1
_EARLIER_CODECS = {"paper": "msra"}


def network_record(net: Network) -> dict[str, Any]:
    """Returns the record of a network in plain types: what is needed besides its tensors to rebuild it."""
    record: dict[str, Any] = {"name": net.name, "options": dict(net.options), "input_size": list(net.input_size)}
    if isinstance(net, Classifier):
        record["classes"] = list(net.classes)
    else:
        record["skeleton"] = dataclasses.asdict(net.skeleton) if net.skeleton is not None else None
    return {key: _to_plain(value) for key, value in record.items()}


def _to_plain(value: Any) -> Any:
    """Returns an option, or a part of a skeleton, in the types that checkpoints may have."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, str):  # also a member of an enumeration
        return str.__str__(value)
    if value is None or isinstance(value, bool | int | float):
        return value if value is None or isinstance(value, bool | float) else int(value)
    if isinstance(value, Mapping):
        return {key: _to_plain(each) for key, each in value.items()}
    if isinstance(value, Collection):
        return [_to_plain(each) for each in value]
    raise TypeError(f"expected options and a skeleton of numbers, texts and collections of them, got {value!r}")


def recorded_skeleton(record: Mapping[str, Any]) -> Skeleton | None:
    """Returns the skeleton of a record; None if it is unknown.

    Raises:
        KeyError, TypeError, ValueError: if the record has no valid skeleton.
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


def recorded_options(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a record, also of an earlier version's file, as arguments of `create_model`.

    Earlier files call the codec `coding` and the paper's codec "paper"; files of static networks may record any number
    of kernels, which they do not use.
    """
    options = dict(record["options"])
    if "coding" in options:
        coding = options.pop("coding")
        options["codec"] = _EARLIER_CODECS.get(coding, coding)
    if not any(part.startswith("dy_") for part in record["name"].split("-")):
        options.pop("num_kernels", None)
    return options


def network_state(net: Network) -> dict[str, Any]:
    """Returns the entry of a checkpoint for a network: its record and its tensors."""
    return {"record": network_record(net), "tensors": net.state_dict()}


def save_weights(net: PoseNet, path: str | Path, half: bool = False) -> None:
    """Writes a network to a .safetensors file atomically.

    Args:
        net: the network.
        path: NAME.safetensors.
        half: whether to write parameters as float16, in half the file size. Buffers keep their type: running variances
            exceed the range of float16, and temperatures must be exact.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if the file's name does not end in .safetensors, or a parameter is too large for float16.
    """
    if Path(path).suffix.lower() != ".safetensors":
        raise ValueError(f"expected a file name NAME.safetensors, got {path}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    if half:
        for name, _ in net.named_parameters():
            if tensors[name].abs().max() > torch.finfo(torch.float16).max:
                raise ValueError(f"{name} has values outside the range of float16: write {path} without half")
            tensors[name] = tensors[name].half()
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_SAFETENSORS_KEY: json.dumps(network_record(net))})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written ({error}): check the free disk space") from error


def read_weights(path: Path) -> tuple[Any, Any]:
    """Reads the record of a network and its tensors from a .safetensors or a torch file; neither is checked.

    For a file that posedy did not write, the record is None and the second value is the content of the file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it cannot be read as tensors and plain types.
    """
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    state = _read_plain(path)
    network = _network_of(state)
    return (network["record"], network["tensors"]) if network is not None else (None, state)


def write_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint atomically; `read_checkpoint` reads it.

    Raises:
        OSError: if it cannot be written, such as on a full disk.
    """
    with atomic_write(path) as temporary:
        try:
            torch.save(dict(state), temporary)
        except RuntimeError as error:  # torch's error of a full disk
            if "DataLoader worker" in str(error):  # was killed: torch's signal handler raises in any code
                raise
            reason = str(error).splitlines()[0]
            raise OSError(
                f"{path} cannot be written, is the disk full? The previous file is unchanged. ({reason})"
            ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint as tensors and plain types, on the CPU.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if posedy did not write it.
    """
    state = _read_plain(path)
    if _network_of(state) is None:
        raise ValueError(f"{path} is not a checkpoint of posedy: it contains no network with a record and tensors")
    return dict(state)


def _read_plain(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise any error: struct.error, KeyError, OSError (invalid argument)
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ValueError(
            f"{path} is not a checkpoint of tensors and plain types (it is damaged, of another kind, or a pickled "
            "model instead of its state_dict())"
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

"""Reading of exported ONNX files and their metadata."""

import dataclasses
import importlib.metadata
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posedy.codecs import Codec, create_codec
from posedy.export.onnx_layers import Batch
from posedy.export.onnx_weights import WEIGHTS, Weights
from posedy.export.runtimes import RUNTIMES, GraphRunner, Runtime, graph_device, make_runner, require
from posedy.files import read_bytes
from posedy.models.dynamic_conv import temperatures
from posedy.models.network_file import network_record, recorded_options, recorded_skeleton
from posedy.models.pose_net import PoseNet
from posedy.skeleton import Skeleton

_LOGGER = logging.getLogger("posedy")

METADATA_KEY = "posedy"
DETECTOR_KEY = "posedy-detector"
"""The key of the metadata of a person detector, see `posedy.export.onnx_detector`."""


@dataclass(frozen=True)
class GraphInfo:
    """The metadata of an exported file, JSON under the key "posedy".

    Attributes:
        record: record of the network, `posedy.models.network_file.network_record`.
        version: version of posedy.
        batch: "free" or 1.
        runtime: runtime that the graph was created for.
        decodes: whether the graph maps uint8 crops to keypoints; otherwise normalized crops to heatmaps.
        flip: whether a graph that decodes averages with the flipped crop.
        weights: the type in which large weights are stored.
        temperature: temperature of the softmax attention, already folded into the weights; None without one.
        float_layers: if convolutions compute in int8, the names of those that stay in float32; None if all are float32.
    """

    record: dict[str, Any]
    version: str
    batch: Batch
    runtime: Runtime
    decodes: bool
    flip: bool
    weights: Weights
    temperature: float | None
    float_layers: tuple[str, ...] | None = None

    @classmethod
    def from_network(
        cls,
        net: PoseNet,
        *,
        batch: Batch,
        runtime: Runtime,
        decodes: bool = False,
        flip: bool = False,
        weights: Weights = "float32",
    ) -> "GraphInfo":
        """Creates the metadata of a graph of a network."""
        return cls(
            record=network_record(net),
            version=importlib.metadata.version("posedy"),
            batch=batch,
            runtime=runtime,
            decodes=decodes,
            flip=decodes and flip,
            weights=weights,
            temperature=min(temperatures(net), default=None),
        )

    @property
    def input_size(self) -> tuple[int, int]:
        """The size (width, height) of the crops."""
        width, height = self.record["input_size"]
        return int(width), int(height)

    @property
    def codec(self) -> Codec:
        """The codec of the heatmaps; its sigma is the default if the file has none."""
        options = recorded_options(self.record)
        return create_codec(options.get("codec", "msra"), self.input_size, options.get("sigma"))

    @property
    def num_keypoints(self) -> int:
        """The number of keypoints K."""
        return int(self.record["options"]["num_keypoints"])

    @property
    def skeleton(self) -> Skeleton | None:
        """The skeleton of the keypoints, if known."""
        return recorded_skeleton(self.record)

    def to_json(self) -> str:
        """Returns the metadata as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "GraphInfo":
        """Creates the metadata of an exported file from the JSON text of `to_json`; further keys are ignored.

        Raises:
            KeyError, TypeError, ValueError: if the JSON is invalid.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise TypeError(f"expected an object, got {type(fields).__name__}")
        if "half" in fields:  # files written before weights in int8
            fields["weights"] = "float16" if fields.pop("half") else "float32"
        if fields.get("float_layers") is not None:
            fields["float_layers"] = tuple(fields["float_layers"])
        keys = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(cls)}
        if missing := [key for key, is_required in keys.items() if is_required and key not in fields]:
            raise ValueError(f"no {', '.join(missing)}")
        info = cls(**{key: value for key, value in fields.items() if key in keys})
        _ = info.codec  # raises if codec, input size or sigma are invalid
        skeleton = info.skeleton
        if skeleton is not None and skeleton.num_keypoints != info.num_keypoints:
            raise ValueError(f"expected a skeleton of {info.num_keypoints} keypoints, got {skeleton.num_keypoints}")
        if info.batch not in ("free", 1):
            raise ValueError(f"expected batch to be 'free' or 1, got {info.batch!r}")
        if info.weights not in WEIGHTS:
            raise ValueError(f"expected weights to be one of {list(WEIGHTS)}, got {info.weights!r}")
        if info.runtime not in RUNTIMES:
            raise ValueError(f"expected runtime to be one of {list(RUNTIMES)}, got {info.runtime!r}")
        return info


def read_metadata(path: str | os.PathLike[str]) -> tuple[Any, dict[str, str]]:
    """Reads an ONNX file: its onnx.ModelProto and its metadata by key.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is not a complete ONNX file, or onnx is not installed.
    """
    require("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(Path(path))
    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{path} is not a complete ONNX file: export it again ({_first_line(error)})") from error
    return model, {entry.key: entry.value for entry in model.metadata_props}


def read_graph(path: str | os.PathLike[str]) -> tuple[Any, GraphInfo]:
    """Reads an exported file: its onnx.ModelProto and its metadata.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is not a complete ONNX file or no pose network that posedy exported, or onnx is not
            installed.
    """
    model, entries = read_metadata(path)
    if DETECTOR_KEY in entries:
        raise ValueError(
            f"{path} is a person detector, not a pose network: give it as --detector-weights, or to "
            "PersonDetector(weights=...)"
        )
    if METADATA_KEY not in entries:
        raise ValueError(
            f"{path} was not exported by posedy: it has no metadata. Export a network "
            "with posedy export NAME|CHECKPOINT --out x.onnx"
        )
    try:
        return model, GraphInfo.from_json(entries[METADATA_KEY])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        version, current = _written_version(entries[METADATA_KEY]), importlib.metadata.version("posedy")
        raise ValueError(
            f"{path} has invalid metadata: {reason}. It was written by posedy {version}, this is posedy {current}: "
            "update posedy, or export the network again"
        ) from error


def _written_version(text: str) -> str:
    """Returns the version of posedy in metadata that may be invalid."""
    try:
        return str(json.loads(text)["version"])
    except (KeyError, TypeError, ValueError):
        return "of an unknown version"


def load_graph(
    path: str | os.PathLike[str], device: str, runtime: Runtime | None = None
) -> tuple[GraphRunner, GraphInfo, torch.device, Runtime]:
    """Loads an exported file: its runner, its metadata, its device and its runtime.

    On a CPU it runs with torch's number of threads, as networks in PyTorch do.

    Args:
        path: NAME.onnx.
        device: name of the device, see `graph_device`. With "auto" a file runs on the CPU, with a warning, if ONNX
            Runtime supports CUDA, but cannot start it.
        runtime: None is the runtime that the file was exported for.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file was not exported by posedy, or the runtime or the device is not available.
    """
    model, info = read_graph(path)
    runtime = info.runtime if runtime is None else runtime
    chosen = graph_device(device, runtime)
    content = model.SerializeToString()
    if device == "auto" and chosen.type != "cpu":
        try:
            return make_runner(content, info.batch, runtime, chosen), info, chosen, runtime
        except ValueError as error:
            _LOGGER.warning("%s runs on the CPU: %s", path, error)
        chosen = torch.device("cpu")
    threads = torch.get_num_threads() if chosen.type == "cpu" else 0
    return make_runner(content, info.batch, runtime, chosen, threads), info, chosen, runtime


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

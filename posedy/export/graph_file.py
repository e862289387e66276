"""What an exported ONNX file says about itself: its network, its batch and what comes out of it."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posedy.codecs import Coding, HeatmapCodec, make_codec
from posedy.export.onnx_layers import Batch
from posedy.export.runtimes import RUNTIMES, GraphRunner, Runtime, graph_device, make_runner, require
from posedy.files import read_bytes
from posedy.models.pretrained import recorded_skeleton
from posedy.skeleton import Skeleton

METADATA_KEY = "posedy"


@dataclass(frozen=True)
class GraphInfo:
    """The metadata of a file, JSON under the key "posedy".

    Attributes:
        record: the network's, `posedy.models.pretrained.network_record`.
        version: of posedy.
        batch: "free" or 1.
        runtime: that the form of the graph was chosen for.
        decodes: whether uint8 crops go in and keypoints come out; else normalized crops and heatmaps.
        flip: whether a graph that decodes averages with the mirrored crop.
        half: whether weights are stored in float16.
        temperature: of the network's attention; None for static networks and the sigmoid. It is in the weights too.
    """

    record: dict[str, Any]
    version: str
    batch: Batch
    runtime: Runtime
    decodes: bool
    flip: bool
    half: bool
    temperature: float | None

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the crops."""
        width, height = self.record["input_size"]
        return int(width), int(height)

    @property
    def coding(self) -> Coding:
        """How heatmaps are decoded."""
        return self.record["options"].get("coding", "paper")

    @property
    def codec(self) -> HeatmapCodec:
        """The codec of its heatmaps; files without a sigma have the default."""
        return make_codec(self.coding, self.input_size, self.record["options"].get("sigma"))

    @property
    def num_keypoints(self) -> int:
        """The number K of keypoints."""
        return int(self.record["options"]["num_keypoints"])

    @property
    def skeleton(self) -> Skeleton | None:
        """The meaning of the keypoints, if it is known."""
        return recorded_skeleton(self.record)

    def to_json(self) -> str:
        """The metadata's text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "GraphInfo":
        """Reads the metadata's text.

        Raises:
            KeyError, TypeError, ValueError: if it is not what `to_json` writes.
        """
        info = cls(**json.loads(text))
        _ = info.codec  # raises if coding, input size or sigma are invalid
        skeleton = info.skeleton
        if skeleton is not None and skeleton.num_keypoints != info.num_keypoints:
            raise ValueError(f"{info.num_keypoints} keypoints, but a skeleton of {skeleton.num_keypoints}")
        if info.batch not in ("free", 1):
            raise ValueError(f"batch is 'free' or 1, got {info.batch!r}")
        if info.runtime not in RUNTIMES:
            raise ValueError(f"a runtime is one of {list(RUNTIMES)}, got {info.runtime!r}")
        return info


def read_graph(path: str | os.PathLike[str]) -> tuple[Any, GraphInfo]:
    """The onnx.ModelProto of an exported file and what it says about itself.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no ONNX file, was not exported by posedy, or onnx is missing.
    """
    require("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(Path(path))
    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{path} is not a whole ONNX file: export it again ({_first_line(error)})") from error
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in entries:
        raise ValueError(
            f"{path} was not exported by posedy: it does not say which keypoints, input size and coding it has. Write "
            "one with posedy export NAME|CHECKPOINT --out x.onnx"
        )
    try:
        return model, GraphInfo.from_json(entries[METADATA_KEY])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has metadata that this version of posedy does not know: {error}") from error


def load_graph(
    path: str | os.PathLike[str], device: str, runtime: Runtime | None = None
) -> tuple[GraphRunner, GraphInfo, torch.device]:
    """What runs an exported file, what the file says about itself, and the device on which it computes.

    Args:
        path: NAME.onnx.
        device: see `graph_device`.
        runtime: None is the one that the file was exported for.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it was not exported by posedy, or the runtime or the device is absent.
    """
    model, info = read_graph(path)
    runtime = info.runtime if runtime is None else runtime
    chosen = graph_device(device, runtime)
    return make_runner(model.SerializeToString(), info.batch, runtime, chosen), info, chosen


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

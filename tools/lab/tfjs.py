"""Reading the weights of TensorFlow.js graph models (`NAME.json` with its binary shards)."""

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}


def read_weights(model: Path) -> dict[str, NDArray[np.generic]]:
    """The tensors of a graph model by the names of their nodes, in float32 where they are stored in float16.

    Args:
        model: the JSON file; its shards lie beside it.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if it is no graph model, a type is not supported, or shards are too short or too long.
    """
    content = json.loads(model.read_bytes())
    if not isinstance(content, dict) or "weightsManifest" not in content:
        raise ValueError(f"{model} is not a TensorFlow.js graph model: it has no weightsManifest")
    tensors: dict[str, NDArray[np.generic]] = {}
    for group in content["weightsManifest"]:
        data = b"".join((model.parent / path).read_bytes() for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            stored = entry.get("quantization", entry)["dtype"]
            if stored not in _DTYPES:
                raise ValueError(f"{model}: {entry['name']} is stored as {stored}, expected one of {list(_DTYPES)}")
            dtype, count = np.dtype(_DTYPES[stored]), math.prod(entry["shape"])
            if offset + count * dtype.itemsize > len(data):
                raise ValueError(f"{model}: the shards {group['paths']} end within {entry['name']}")
            values = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
            tensors[entry["name"]] = values.astype(np.float32) if stored == "float16" else values
            offset += count * dtype.itemsize
        if offset != len(data):
            raise ValueError(f"{model}: the shards {group['paths']} have {len(data)} bytes, expected {offset}")
    return tensors

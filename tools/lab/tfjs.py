"""Reader of the weights of TensorFlow.js graph models (`NAME.json` with binary shards)."""

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}


def read_weights(model: Path) -> dict[str, NDArray[np.generic]]:
    """Reads the tensors of a graph model by node name; float16 tensors are converted to float32.

    Args:
        model: the JSON file, in the folder of its shards.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if the file is not a graph model, a data type is unsupported, or the shards have the wrong size.
    """
    content = json.loads(model.read_bytes())
    if not isinstance(content, dict) or "weightsManifest" not in content:
        raise ValueError(f"{model}: expected a TensorFlow.js graph model, got a file without weightsManifest")
    tensors: dict[str, NDArray[np.generic]] = {}
    for group in content["weightsManifest"]:
        data = b"".join((model.parent / path).read_bytes() for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            stored = entry.get("quantization", entry)["dtype"]
            if stored not in _DTYPES:
                raise ValueError(f"{model}: expected {entry['name']} in one of {list(_DTYPES)}, got {stored}")
            dtype, count = np.dtype(_DTYPES[stored]), math.prod(entry["shape"])
            if offset + count * dtype.itemsize > len(data):
                raise ValueError(f"{model}: the shards {group['paths']} end before the end of tensor {entry['name']}")
            values = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
            tensors[entry["name"]] = values.astype(np.float32) if stored == "float16" else values
            offset += count * dtype.itemsize
        if offset != len(data):
            raise ValueError(f"{model}: expected {offset} bytes in the shards {group['paths']}, got {len(data)}")
    return tensors

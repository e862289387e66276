"""The reader of TensorFlow.js graph models."""

import json
from pathlib import Path

import numpy as np
import pytest

from tools.lab.tfjs import read_weights

KERNEL = np.arange(6, dtype=np.float32).reshape(1, 2, 3) / 7
SHAPE = np.array([3, -1], dtype=np.int32)


def write_model(folder: Path, data: bytes | None = None, kind: str = "float16") -> Path:
    """Write a model with a float16 and an int32 tensor in two shards."""
    data = KERNEL.astype(np.float16).tobytes() + SHAPE.tobytes() if data is None else data
    (folder / "a.bin").write_bytes(data[:7])
    (folder / "b.bin").write_bytes(data[7:])
    weights = [
        {"name": "kernel", "shape": [1, 2, 3], "dtype": "float32", "quantization": {"dtype": kind}},
        {"name": "shape", "shape": [2], "dtype": "int32"},
    ]
    path = folder / "model.json"
    path.write_text(json.dumps({"weightsManifest": [{"paths": ["a.bin", "b.bin"], "weights": weights}]}))
    return path


def test_tensors_are_read(tmp_path: Path) -> None:
    tensors = read_weights(write_model(tmp_path))
    assert list(tensors) == ["kernel", "shape"]
    assert tensors["kernel"].dtype == np.float32
    np.testing.assert_array_equal(tensors["kernel"], KERNEL.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(tensors["shape"], SHAPE)


@pytest.mark.parametrize(("size", "message"), [(19, "shape"), (24, r"20 bytes.*24")])
def test_shards_of_wrong_size_are_rejected(tmp_path: Path, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_weights(write_model(tmp_path, bytes(size)))


def test_unknown_types_and_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kernel.*uint8"):
        read_weights(write_model(tmp_path, kind="uint8"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other\.json"):
        read_weights(tmp_path / "other.json")

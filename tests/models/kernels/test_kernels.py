"""Triton kernels equal torch, without a GPU in Triton's interpreter.

The interpreter must be enabled before Triton is imported. Therefore a script in another process measures all kernels.
"""

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from . import batch_norm_errors, depthwise_errors

pytestmark = pytest.mark.slow  # the interpreter takes 15 seconds


@pytest.fixture(scope="module")
def measured() -> dict[str, list[Any]]:
    """The output of measure.py."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    environment = os.environ if torch.cuda.is_available() else os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, str(Path(__file__).with_name("measure.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_depthwise_output_and_gradients_equal_torch(measured: dict[str, list[Any]]) -> None:
    assert len(measured["depthwise"]) >= len(depthwise_errors.CASES)
    for sizes, dtype, errors in measured["depthwise"]:
        assert len(errors) == 3
        for value in errors:
            assert math.isfinite(value), (sizes, dtype)
            assert value < depthwise_errors.TOLERANCES[dtype], (sizes, dtype, errors)


def test_batch_norm_output_gradients_and_statistics_equal_torch(measured: dict[str, list[Any]]) -> None:
    assert len(measured["batch norm"]) > len(batch_norm_errors.CASES)
    for *case, errors in measured["batch norm"]:
        _, mean, _, dtype = case
        tolerance = batch_norm_errors.TOLERANCES[dtype] if mean == 1 else batch_norm_errors.LARGE_MEAN_TOLERANCE
        assert len(errors) == 6
        for name, value in errors.items():
            assert math.isfinite(value), (case, name)
            assert value < tolerance, (case, name, value)


def test_nan_stays_nan(measured: dict[str, list[Any]]) -> None:
    assert measured["nan"] == [True]


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton's interpreter is not available with a GPU")
def test_blocks_with_and_without_kernels_are_equal(measured: dict[str, list[Any]]) -> None:
    blocks = {name: (difference, used) for name, difference, used in measured["blocks"]}
    for name, (difference, _) in blocks.items():
        assert difference < 1e-5, name
    assert [used for _, used in blocks.values()] == [
        ["norm relu6", "depthwise 1", "norm relu6", "norm none"],
        ["norm relu", "depthwise 2", "norm relu", "norm none"],
        ["depthwise 1", "norm none"],
    ]

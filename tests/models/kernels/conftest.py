"""Tests of Triton kernels without a GPU.

Triton's interpreter must be enabled before Triton is imported. Therefore these test files are also scripts: run as a
script, a file prints its measurements as JSON, which its tests check.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch


@pytest.fixture
def run_script() -> Callable[[str], list[Any]]:
    """`run_script(path)`: runs a test file as a script and returns its output; skips the test without Triton."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    environment = os.environ if torch.cuda.is_available() else os.environ | {"TRITON_INTERPRET": "1"}

    def run(path: str) -> list[Any]:
        command = [sys.executable, path]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run

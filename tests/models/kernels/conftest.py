"""Running kernels where there is no GPU.

Triton must be told to interpret them before anything imports it. The tests that need them are programs too: run as one,
a test file measures and prints, and its tests look at the numbers.
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
def printed_by() -> Callable[[str], list[Any]]:
    """The list that a test file prints as a program; the test is skipped where Triton is not installed."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    environment = os.environ if torch.cuda.is_available() else os.environ | {"TRITON_INTERPRET": "1"}

    def run(path: str) -> list[Any]:
        command = [sys.executable, path]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run

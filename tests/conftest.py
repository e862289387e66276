"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch

# Tests use small networks, which threads slow down, above all where several processes share the cores.
torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real photos that POSEDY_REAL_DATA names; the test is skipped without it."""
    folder = os.environ.get("POSEDY_REAL_DATA")
    if not folder:
        pytest.skip("needs real photos: set POSEDY_REAL_DATA to their folder")
    if not Path(folder).is_dir():
        pytest.fail(f"POSEDY_REAL_DATA names {folder}, which is not a folder")
    return Path(folder)

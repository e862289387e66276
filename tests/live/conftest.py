"""A folder in the form of the package onnxruntime-web, with empty files."""

import json
from pathlib import Path

import pytest

from tools.live.build import RUNTIME_FILES


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An unpacked package, of version 9.9.9."""
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": "9.9.9"}))
    for name in RUNTIME_FILES:
        (folder / "dist" / name).write_text(name)
    return folder

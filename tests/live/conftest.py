"""A folder in the form of the package onnxruntime-web, with empty files, and a server in the background."""

import json
import threading
from collections.abc import Iterator
from http.server import HTTPServer
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


def serve(server: HTTPServer) -> Iterator[str]:
    """Serves in the background and yields the address."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()

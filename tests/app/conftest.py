"""A small network file, and a page that serves it."""

import socket
from collections.abc import Iterator

import pytest
import torch

from posedy.app.service import PoseService
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.skeleton import COCO17


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    save_weights(create_model("mobilenetv2_035-bneck", input_size=(32, 64), skeleton=COCO17), path)
    return str(path)


@pytest.fixture(scope="module")
def served(model: str) -> PoseService:
    """The service of the page."""
    return PoseService((model,), device="cpu")


@pytest.fixture(scope="module")
def address(served: PoseService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a page that this process serves."""
    from posedy.app.server import serve  # gradio is optional

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        page = serve(served, "127.0.0.1", port)
        yield f"http://127.0.0.1:{port}"
        page.close()

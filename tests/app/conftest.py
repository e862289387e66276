"""A small network in a file, for the page to show."""

import pytest
import torch

from posedy.models.zoo import create_model
from posedy.skeleton import COCO17
from posedy.weights.network_file import save_weights


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    save_weights(create_model("mobilenetv2_035-bneck", input_size=(32, 64), skeleton=COCO17), path)
    return str(path)

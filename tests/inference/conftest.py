"""Networks and an image for the tests of inference."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet
from posedy.skeleton import Skeleton

DOTS = Skeleton(("red", "green", "blue"), (), ((0, 1), (1, 2)), (0.05,) * 3)
DOT_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch on one thread: small networks are slower with several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class DotHead(nn.Module):
    """Returns a heatmap per color, high where the crop has that color."""

    def forward(self, x: Tensor) -> Tensor:
        rgb = (
            x * x.new_tensor([0.229, 0.224, 0.225])[:, None, None] + x.new_tensor([0.485, 0.456, 0.406])[:, None, None]
        )
        colors = x.new_tensor(DOT_COLORS)[None, :, :, None, None] / 255
        similarity = torch.exp(-4 * ((rgb[:, None] - colors) ** 2).sum(dim=2))
        distance = torch.arange(-8, 9, device=x.device, dtype=torch.float32)
        profile = torch.exp(-(distance**2) / (2 * 4.0**2))
        kernel = (profile[:, None] * profile / profile.sum() ** 2)[None, None].expand(3, 1, 17, 17)
        # heatmap pixel x is centered on crop pixel 4 x
        return nn.functional.conv2d(similarity, kernel, stride=4, padding=8, groups=3)


@pytest.fixture
def dot_net() -> PoseNet:
    """A network whose keypoints are the centers of a red, a green and a blue dot."""
    options = {"num_keypoints": 3, "output": "linear"}
    return PoseNet(nn.Identity(), DotHead(), name="dots", skeleton=DOTS, input_size=(96, 128), options=options)


@pytest.fixture(scope="session")
def net() -> PoseNet:
    """A small dynamic network with perturbed weights and statistics: a fresh network hides bugs."""
    torch.manual_seed(0)
    network = create_model("dy_mobilenetv2_035-dy_fpn", input_size=(64, 96), temperature=5.0, depth=0.34)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
        # batch norm statistics of varied inputs keep the outputs of all layers varied
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        coarse = torch.randn(8, 3, 6, 4)
        network.train()(nn.functional.interpolate(coarse, size=(96, 64), mode="bicubic"))
        for norm in norms:
            norm.weight += 0.2 * torch.randn(norm.weight.shape)
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.weight.shape)
    return network.eval()


@pytest.fixture
def image() -> np.ndarray:
    """A smooth random image (150, 200, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 12, 16)))
    fine = nn.functional.interpolate(coarse, size=(150, 200), mode="bicubic").clamp(0, 255)
    return fine[0].permute(1, 2, 0).numpy().astype(np.uint8)

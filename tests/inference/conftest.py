"""Networks for the tests of inference."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posedy.models.pose_net import PoseNet
from posedy.models.registry import create_model
from posedy.skeleton import Skeleton

DOTS = Skeleton(("red", "green", "blue"), (), ((0, 1), (1, 2)), (0.05,) * 3)
DOT_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """On networks this small, threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class DotHead(nn.Module):
    """A heatmap for each of the three colors, high where the crop has that color."""

    def forward(self, x: Tensor) -> Tensor:
        rgb = (
            x * x.new_tensor([0.229, 0.224, 0.225])[:, None, None] + x.new_tensor([0.485, 0.456, 0.406])[:, None, None]
        )
        colors = x.new_tensor(DOT_COLORS)[None, :, :, None, None] / 255
        likeness = torch.exp(-4 * ((rgb[:, None] - colors) ** 2).sum(dim=2))
        distance = torch.arange(-8, 9, device=x.device, dtype=torch.float32)
        profile = torch.exp(-(distance**2) / (2 * 4.0**2))
        kernel = (profile[:, None] * profile / profile.sum() ** 2)[None, None].expand(3, 1, 17, 17)
        # cell c looks at crop pixel 4 c
        return nn.functional.conv2d(likeness, kernel, stride=4, padding=8, groups=3)


@pytest.fixture
def dot_net() -> PoseNet:
    """A network that finds the centers of a red, a green and a blue dot, as a trained network finds keypoints."""
    options = {"num_keypoints": 3, "output": "linear"}
    return PoseNet(nn.Identity(), DotHead(), name="dots", skeleton=DOTS, input_size=(96, 128), options=options)


@pytest.fixture(scope="session")
def net() -> PoseNet:
    """A small dynamic network whose output depends on its input: a freshly built one hides bugs."""
    torch.manual_seed(0)
    network = create_model("dy_mobilenetv2_035-dy_bneck", input_size=(64, 96), temperature=5.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
        # statistics of varied input keep every layer's output spread
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
def photo() -> np.ndarray:
    """A smooth random picture (150, 200, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 12, 16)))
    fine = nn.functional.interpolate(coarse, size=(150, 200), mode="bicubic").clamp(0, 255)
    return fine[0].permute(1, 2, 0).numpy().astype(np.uint8)

"""Fixtures that several test files share."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from posedy.data.coco import CocoPersons, read_coco
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from tools.lab.synthetic import draw_dataset

# How long an example takes says something about the machine, not about the code.
settings.register_profile("posedy", deadline=None)
settings.load_profile("posedy")

# Tests use small networks, which threads slow down, above all where several processes share the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image checks that found nothing are kept in a temporary folder, not in the user's."""
    folder = tmp_path_factory.getbasetemp() / "image-checks"
    monkeypatch.setattr("posedy.data.image_check.cache_folder", lambda: folder)


@pytest.fixture
def real_data() -> Path:
    """The folder of real photos that POSEDY_REAL_DATA names; the test is skipped without it."""
    folder = os.environ.get("POSEDY_REAL_DATA")
    if not folder:
        pytest.skip("needs real photos: set POSEDY_REAL_DATA to their folder")
    if not Path(folder).is_dir():
        pytest.fail(f"POSEDY_REAL_DATA names {folder}, which is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set of a few photos."""
    root = tmp_path_factory.mktemp("drawn") / "set"
    draw_dataset(root, 10, 12, seed=3, processes=1)
    return root


@pytest.fixture(scope="session")
def persons(drawn: Path) -> CocoPersons:
    """Its val set."""
    return read_coco(drawn / "annotations/person_keypoints_val2017.json", drawn / "val2017")


@torch.no_grad()
def _sharpen(attention: KernelAttention, x: Tensor) -> None:
    """Rescales the two layers so that for half of the images of x or more the largest weight is over 0.8.

    Half of the hidden units or more are on for some images and off for others, and the logits are centered over the
    images, so that no kernel wins for all of them.
    """
    pooled = x.double().mean(dim=(2, 3))
    before = pooled @ attention.fc1.weight.double().T
    bias = -before.quantile(0.3, dim=0)
    attention.fc1.bias.copy_(bias)
    z = (before + bias).clamp(min=0) @ attention.fc2.weight.double().T
    if attention.fc2.out_features == 1 or len(x) == 1:
        return
    mean = z.mean(dim=0)
    best = (z - mean).topk(2, dim=1).values
    scale = 4 * attention.temperature.double() / (best[:, 0] - best[:, 1]).median().clamp(min=1e-9)
    attention.fc2.weight.mul_(scale)
    attention.fc2.bias.copy_(-mean * scale)


@torch.no_grad()
def _perturb(net: nn.Module, x: Tensor, training: bool = False) -> nn.Module:
    generator = torch.Generator().manual_seed(0)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.copy_(1 + 0.2 * normal(layer.weight))
            layer.bias.copy_(0.2 * normal(layer.bias))
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.copy_(0.2 * normal(layer.running_mean))
            layer.running_var.copy_((0.2 * normal(layer.running_var)).exp())
            continue
        for name, parameter in layer.named_parameters(recurse=False):
            if name == "bias":
                parameter.copy_(0.2 * normal(parameter))
                continue
            fan = parameter[0, 0] if isinstance(layer, DynamicConv2d) else parameter[0]
            parameter.copy_(normal(parameter) * math.sqrt(2 / fan.numel()))
    hooks = [
        layer.register_forward_pre_hook(lambda attention, inputs: _sharpen(attention, inputs[0]))
        for layer in net.modules()
        if isinstance(layer, KernelAttention)
    ]
    net.train(training)(x)
    for hook in hooks:
        hook.remove()
    return net


@pytest.fixture(scope="session")
def perturb() -> Callable[..., nn.Module]:
    """Networks whose errors show: perturbed weights and statistics, attention that is sharp and differs per image.

    `perturb(net, x, training=False)` moves all weights and statistics, sharpens every attention on images x.

    The network is changed in place, set to evaluation or training, and returned.
    """
    return _perturb

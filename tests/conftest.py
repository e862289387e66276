"""Fixtures shared by several test files."""

import gc
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from posedy.data.coco import CocoPersons, read_coco
from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from tools.lab.synthetic import generate_dataset

# The duration of an example depends on the machine.
settings.register_profile("posedy", deadline=None)
settings.load_profile("posedy")

# The tests' networks are small, and threads slow them down, mostly if several processes share the cores.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Spares garbage collections from going through the imported modules and the collected tests each time."""
    gc.collect()
    gc.freeze()


# Conversion to OpenVINO takes seconds; the tests of `runtime="auto"` delete the variable.
os.environ["POSEDY_RUNTIME"] = "torch"


@pytest.fixture(autouse=True)
def temporary_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records passed image checks in a temporary folder, not in the user's."""
    folder = tmp_path_factory.getbasetemp() / "image-checks"
    monkeypatch.setattr("posedy.data.image_check.cache_folder", lambda: folder)


@pytest.fixture
def real_data() -> Path:
    """The folder of real images from POSEDY_REAL_DATA; the test is skipped without it."""
    folder = os.environ.get("POSEDY_REAL_DATA")
    if not folder:
        pytest.skip("needs real images: set POSEDY_REAL_DATA to their folder")
    if not Path(folder).is_dir():
        pytest.fail(f"POSEDY_REAL_DATA: expected a folder, got {folder}")
    return Path(folder)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic dataset of a few images."""
    root = tmp_path_factory.mktemp("synthetic") / "set"
    generate_dataset(root, 10, 12, seed=3, processes=1)
    return root


@pytest.fixture(scope="session")
def persons(synthetic: Path) -> CocoPersons:
    """The persons of its validation set."""
    return read_coco(synthetic / "annotations/person_keypoints_val2017.json", synthetic / "val2017")


@torch.no_grad()
def _sharpen(attention: KernelAttention, x: Tensor) -> None:
    """Rescales the two layers so that the largest weight exceeds 0.8 for at least half of the images of x.

    At least half of the hidden units are active for some images only, and the logits are centered over the images, so
    that no kernel has the largest weight for all of them.
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
    """Perturbs networks such that errors are visible: random weights and statistics, sharp attention per image.

    `perturb(net, x, training=False)` randomizes all weights and statistics and sharpens every attention on images x. It
    changes the network in place, sets it to training or evaluation mode, and returns it.
    """
    return _perturb


@pytest.fixture
def restored_registries() -> Iterator[None]:
    """Backbones, heads, codecs and detectors that a test registers are unknown again after it."""
    from posedy.codecs import base as codecs
    from posedy.inference.detectors import base as detectors
    from posedy.models import registry

    registries = (registry._BACKBONES, registry._HEADS, codecs._CODECS, detectors._DETECTORS)
    before = [dict(entries) for entries in registries]
    yield
    for entries, kept in zip(registries, before, strict=True):
        entries.clear()
        entries.update(kept)

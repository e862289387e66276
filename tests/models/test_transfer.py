import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet
from posedy.models.transfer import load_backbone, load_pretrained, to_torchvision

X = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0)).double()
# names and shapes of timm's mobilenetv2_035 (1.0.31) in the order of its layers, which equals torchvision's
TIMM_NAMES = Path(__file__).parent / "timm_mobilenetv2_035.txt"


def randomize(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.normal_(0, 0.3, generator=generator)
            layer.num_batches_tracked.fill_(7)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.data.normal_(0, math.sqrt(2 / layer.weight[0].numel()), generator=generator)
    return model.double().eval()


def extract_features(model: nn.Module) -> Tensor:
    """Computes the last feature map of a torchvision model."""
    if isinstance(model, torchvision.models.MobileNetV2):
        return model.features(X)
    children = dict(model.named_children())
    y = X
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        y = children[name](y)
    return y


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mobilenetv2_035": lambda: torchvision.models.mobilenet_v2(weights=None, width_mult=0.35),
    "mobilenetv2_050": lambda: torchvision.models.mobilenet_v2(weights=None, width_mult=0.5),
    "mobilenetv2_100": lambda: torchvision.models.mobilenet_v2(weights=None),
    "resnet18": lambda: torchvision.models.resnet18(weights=None),
}


@pytest.fixture(scope="module")
def model() -> Callable[[str], nn.Module]:
    """`model(name)`: the torchvision model of a backbone, with random weights and statistics."""
    models: dict[str, nn.Module] = {}

    def model(name: str) -> nn.Module:
        if name not in models:
            models[name] = randomize(MODELS[name]())
        return models[name]

    return model


def create_net(name: str) -> PoseNet:
    return create_model(name, num_keypoints=3).double().eval()


def change_detector(net: PoseNet) -> Callable[[], bool]:
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    return lambda: not all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@torch.no_grad()
def assert_backbone_output(net: PoseNet, expected: Tensor) -> None:
    torch.testing.assert_close(net.backbone(X), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *(("mobilenetv2_035", ".pth"), ("resnet18", ".pth")),
        pytest.param("mobilenetv2_035", ".safetensors", marks=pytest.mark.slow),
        pytest.param("mobilenetv2_050", ".pth", marks=pytest.mark.slow),
        pytest.param("mobilenetv2_100", ".pth", marks=pytest.mark.slow),
    ],
)
def test_torchvision_files_are_loaded(model, name, suffix, tmp_path):
    path = tmp_path / f"file{suffix}"
    tensors = model(name).state_dict()
    (save_file if suffix == ".safetensors" else torch.save)(tensors, path)
    net = create_net(f"{name}-fpn")
    is_head_changed = change_detector(net.head)
    message = load_pretrained(net, path)
    assert_backbone_output(net, extract_features(model(name)))
    assert not is_head_changed()
    classifier = "fc.weight, fc.bias" if name == "resnet18" else "classifier.1.weight, classifier.1.bias"
    for text in (
        f"{path}: ",
        f"{len(tensors) - 2} of {len(tensors)} tensors",
        f"{len(net.backbone.state_dict())} tensors of the backbone {name}",
        *classifier.split(", "),
    ):
        assert text in message


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2_035", "resnet18"])
def test_dynamic_backbone_output_equals_the_static_model(model, name):
    tensors = model(name).state_dict()
    net = create_net(f"dy_{name}-fpn")
    message = load_backbone(tensors, net, noise=0)
    assert_backbone_output(net, extract_features(model(name)))
    assert f" {50 if 'mobile' in name else 16} static kernels" in message


def with_names_of_2018(model: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors of torchvision's MobileNetV2 under its names of 2018, where each block is one sequence."""
    named = {}
    for name, tensor in model.state_dict().items():
        match = re.fullmatch(r"features\.(\d+)\.conv\.([\d.]+)\.(\w+)", name)
        if match:
            block, position, leaf = match.groups()
            layers = ("0.0", "0.1", "", "1", "2") if block == "1" else ("0.0", "0.1", "", "1.0", "1.1", "", "2", "3")
            name = f"features.{block}.conv.{layers.index(position)}.{leaf}"
        named[name] = tensor
    return named


@pytest.mark.parametrize("form", ["", "dy_"])
def test_torchvision_names_of_2018_are_loaded(model, form):
    reference = model("mobilenetv2_035")
    net = create_net(f"{form}mobilenetv2_035-fpn")
    message = load_backbone(with_names_of_2018(reference), net, noise=0)
    assert_backbone_output(net, extract_features(reference))
    assert "(2018 names): used 312 of 314 tensors" in message


def test_to_torchvision_inverts_load_backbone(model):
    reference = model("mobilenetv2_035")
    net = create_net("mobilenetv2_035-fpn")
    load_backbone(reference.state_dict(), net)
    written = to_torchvision(net.backbone)
    expected = {name: tensor for name, tensor in reference.state_dict().items() if not name.startswith("classifier.")}
    assert written.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())


def with_timm_names(model: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors of torchvision's MobileNetV2 under timm's names."""
    named = {}
    lines = TIMM_NAMES.read_text().splitlines()
    for line, tensor in zip(lines, model.state_dict().values(), strict=True):
        name, _, shape = line.partition(" ")
        assert shape == "x".join(str(size) for size in tensor.shape)
        named[name] = tensor
    return named


@pytest.mark.parametrize("form", ["", "dy_"])
def test_timm_names_are_loaded_in_any_order(model, form):
    reference = model("mobilenetv2_035")
    net = create_net(f"{form}mobilenetv2_035-fpn")
    message = load_backbone(dict(sorted(with_timm_names(reference).items())), net, noise=0)
    assert_backbone_output(net, extract_features(reference))
    assert "timm MobileNetV2: used 312 of 314 tensors" in message


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_035",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenetv2_050", "mobilenetv2_100", "resnet18")),
    ],
)
def test_timm_models_are_loaded(name):
    timm = pytest.importorskip("timm")
    reference = randomize(timm.create_model(name))
    net = create_net(f"{name}-fpn")
    load_backbone(reference.state_dict(), net)
    with torch.no_grad():
        assert_backbone_output(net, reference.forward_features(X))


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_110d",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("resnet10t", "resnet18d", "seresnet18", "tf_efficientnet_lite0")
        ),
    ],
)
def test_unsupported_timm_models_are_rejected(name):
    timm = pytest.importorskip("timm")
    tensors = timm.create_model(name).state_dict()
    for target in ("mobilenetv2_100", "resnet18", "resnet10"):
        net = create_net(f"{target}-fpn")
        with pytest.raises(ValueError, match=r"^expected|does not match"):
            load_backbone(tensors, net)


@pytest.mark.parametrize(
    ("prefix", "wrap"),
    [
        ("module.", lambda s: {"state_dict": s, "epoch": 3}),
        ("", lambda s: {"model": s}),
        pytest.param("", lambda s: {"state_dict": s, "epoch": 3}, marks=pytest.mark.slow),
        pytest.param("module.", lambda s: {"model": s}, marks=pytest.mark.slow),
        pytest.param("module.", dict, marks=pytest.mark.slow),
        pytest.param("", dict, marks=pytest.mark.slow),
    ],
)
def test_state_dict_of_checkpoints_is_found(model, wrap, prefix):
    reference = model("mobilenetv2_035")
    net = create_net("mobilenetv2_035-fpn")
    load_backbone(wrap({f"{prefix}{name}": tensor for name, tensor in reference.state_dict().items()}), net)
    assert_backbone_output(net, extract_features(reference))


def test_counters_and_classifier_are_optional(model):
    tensors = {
        name: tensor
        for name, tensor in model("mobilenetv2_035").state_dict().items()
        if "num_batches" not in name and "classifier" not in name
    }
    net = create_net("mobilenetv2_035-fpn")
    message = load_backbone(tensors, net)
    assert_backbone_output(net, extract_features(model("mobilenetv2_035")))
    assert "260 of 260 tensors" in message
    assert "52 missing num_batches_tracked" in message


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("file", "change", "target", "problem"),
    [
        (
            *("mobilenetv2_100", dict, "dy_mobilenetv2_035-bneck"),
            r"backbone dy_mobilenetv2_035: expected features\.0\.0\.weight of shape \(16, 3, 3, 3\), "
            r"got \(32, 3, 3, 3\) \(and \d+ more",
        ),
        (
            *("mobilenetv2_035", lambda s: without(s, "features.3.conv.1.1.running_var"), "mobilenetv2_035-bneck"),
            r"missing features\.3\.conv\.1\.1\.running_var$",
        ),
        (
            *("mobilenetv2_035", lambda s: s | {"features.3.se.weight": X}, "mobilenetv2_035-bneck"),
            r"unexpected features\.3\.se\.weight$",
        ),
        ("mobilenetv2_035", dict, "resnet18-fpn", "backbone resnet18, got torchvision MobileNetV2"),
        ("mobilenetv2_035", dict, "mobilenetv3_small-fpn", "backbone mobilenetv3_small"),
        ("resnet18", dict, "mobilenetv2_035-fpn", "got torchvision or timm ResNet"),
        ("resnet18", dict, "resnet10-fpn", "4 blocks.*got 8"),
        (
            "mobilenetv2_035",
            lambda s: {"x.y": X, "stem": X},
            "mobilenetv2_035-fpn",
            r"got the tensors x\.y, stem",
        ),
        ("mobilenetv2_035", lambda s: s | {"epoch": 3}, "mobilenetv2_035-fpn", "'epoch' of type int"),
        ("mobilenetv2_035", lambda s: {}, "mobilenetv2_035-fpn", "got dict"),
        ("mobilenetv2_035", lambda s: [X], "mobilenetv2_035-fpn", "got list"),
    ],
)
def test_mismatch_is_rejected_without_changes(model, file, change, target, problem):
    net = create_net(target)
    is_changed = change_detector(net)
    contents: Any = change(copy.copy(dict(model(file).state_dict())))
    with pytest.raises(ValueError, match=problem):
        load_backbone(contents, net)
    assert not is_changed()

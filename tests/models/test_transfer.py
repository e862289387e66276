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

from posedy.models.pose_net import PoseNet
from posedy.models.registry import create_model
from posedy.models.transfer import load_backbone, load_pretrained, to_torchvision

X = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0)).double()
# names and shapes of timm's mobilenetv2_035 (1.0.31) in the order of its layers, which is torchvision's too
TIMM_NAMES = Path(__file__).parent / "timm_mobilenetv2_035.txt"


def randomized(model: nn.Module) -> nn.Module:
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


def maps_of(model: nn.Module) -> Tensor:
    """The last maps of one of torchvision's models."""
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
    """`model(name)`: torchvision's model of a backbone, with weights and statistics of its own."""
    made: dict[str, nn.Module] = {}

    def model(name: str) -> nn.Module:
        if name not in made:
            made[name] = randomized(MODELS[name]())
        return made[name]

    return model


def make(name: str) -> PoseNet:
    return create_model(name, 3).double().eval()


def unchanged(net: PoseNet) -> Callable[[], bool]:
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    return lambda: all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@torch.no_grad()
def assert_same_maps(net: PoseNet, expected: Tensor) -> None:
    torch.testing.assert_close(net.backbone(X), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *(("mobilenetv2_035", ".pth"), ("mobilenetv2_035", ".safetensors"), ("resnet18", ".pth")),
        pytest.param("mobilenetv2_050", ".pth", marks=pytest.mark.slow),
        pytest.param("mobilenetv2_100", ".pth", marks=pytest.mark.slow),
    ],
)
def test_files_of_torchvision(model, name, suffix, tmp_path):
    path = tmp_path / f"file{suffix}"
    theirs = model(name).state_dict()
    (save_file if suffix == ".safetensors" else torch.save)(theirs, path)
    net = make(f"{name}-deconv")
    head = unchanged(net.head)
    report = load_pretrained(net, path)
    assert_same_maps(net, maps_of(model(name)))
    assert head()
    classifier = "fc.weight, fc.bias" if name == "resnet18" else "classifier.1.weight, classifier.1.bias"
    for words in (
        f"{path}: ",
        f"{len(theirs) - 2} of {len(theirs)} tensors of the file used",
        f"all {len(net.backbone.state_dict())} tensors of the backbone {name} filled",
        "head is fresh",
        *classifier.split(", "),
    ):
        assert words in report


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2_035", "resnet18"])
def test_dynamic_backbones(model, name):
    given = model(name).state_dict()
    net = make(f"dy_{name}-deconv")
    report = load_backbone(given, net, noise=0)
    assert_same_maps(net, maps_of(model(name)))
    assert f"{50 if 'mobile' in name else 16} static kernels made dynamic (their attention is fresh)" in report


def flat_named(theirs: nn.Module) -> dict[str, Tensor]:
    """The tensors of torchvision's MobileNetV2 as it named them in 2018: each block is one sequence."""
    named = {}
    for name, tensor in theirs.state_dict().items():
        match = re.fullmatch(r"features\.(\d+)\.conv\.([\d.]+)\.(\w+)", name)
        if match:
            block, place, leaf = match.groups()
            layers = ("0.0", "0.1", "", "1", "2") if block == "1" else ("0.0", "0.1", "", "1.0", "1.1", "", "2", "3")
            name = f"features.{block}.conv.{layers.index(place)}.{leaf}"
        named[name] = tensor
    return named


@pytest.mark.parametrize("form", ["", "dy_"])
def test_names_of_torchvision_in_2018(model, form):
    theirs = model("mobilenetv2_035")
    net = make(f"{form}mobilenetv2_035-deconv")
    report = load_backbone(flat_named(theirs), net, noise=0)
    assert_same_maps(net, maps_of(theirs))
    assert "torchvision's naming of 2018, 312 of 314 tensors" in report


def test_written_for_torchvision(model):
    theirs = model("mobilenetv2_035")
    net = make("mobilenetv2_035-deconv")
    load_backbone(theirs.state_dict(), net)
    written = to_torchvision(net.backbone)
    expected = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("classifier.")}
    assert written.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())


def timm_named(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of torchvision's MobileNetV2 under timm's names, layer by layer."""
    named = {}
    lines = TIMM_NAMES.read_text().splitlines()
    for line, tensor in zip(lines, model.state_dict().values(), strict=True):
        name, _, shape = line.partition(" ")
        assert shape == "x".join(str(size) for size in tensor.shape)
        named[name] = tensor
    return named


@pytest.mark.parametrize("form", ["", "dy_"])
def test_names_of_timm_in_any_order(model, form):
    theirs = model("mobilenetv2_035")
    net = make(f"{form}mobilenetv2_035-deconv")
    report = load_backbone(dict(sorted(timm_named(theirs).items())), net, noise=0)
    assert_same_maps(net, maps_of(theirs))
    assert "MobileNetV2 of timm's, 312 of 314 tensors" in report


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_035",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenetv2_050", "mobilenetv2_100", "resnet18")),
    ],
)
def test_models_of_timm(name):
    timm = pytest.importorskip("timm")
    theirs = randomized(timm.create_model(name))
    net = make(f"{name}-deconv")
    load_backbone(theirs.state_dict(), net)
    with torch.no_grad():
        assert_same_maps(net, theirs.forward_features(X))


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
def test_other_models_of_timm_are_refused(name):
    timm = pytest.importorskip("timm")
    given = timm.create_model(name).state_dict()
    for ours in ("mobilenetv2_100", "resnet18", "resnet10"):
        net = make(f"{ours}-deconv")
        with pytest.raises(ValueError, match=r"^it"):
            load_backbone(given, net)


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}, dict])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_wrappings_of_trainers(model, wrap, prefix):
    theirs = model("mobilenetv2_035")
    net = make("mobilenetv2_035-deconv")
    load_backbone(wrap({f"{prefix}{name}": tensor for name, tensor in theirs.state_dict().items()}), net)
    assert_same_maps(net, maps_of(theirs))


def test_files_without_counters_and_without_classifier(model):
    given = {
        name: tensor
        for name, tensor in model("mobilenetv2_035").state_dict().items()
        if "num_batches" not in name and "classifier" not in name
    }
    net = make("mobilenetv2_035-deconv")
    report = load_backbone(given, net)
    assert_same_maps(net, maps_of(model("mobilenetv2_035")))
    assert "260 of 260 tensors of the file used; 52 num_batches_tracked that it lacks are 0" in report


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("file", "change", "target", "problem"),
    [
        (
            *("mobilenetv2_100", dict, "dy_mobilenetv2_035-bneck"),
            r"not the backbone dy_mobilenetv2_035: features\.0\.0\.weight has the shape \(32, 3, 3, 3\) in it, "
            r"\(16, 3, 3, 3\) is expected \(\d+ more",
        ),
        (
            *("mobilenetv2_035", lambda s: without(s, "features.3.conv.1.1.running_var"), "mobilenetv2_035-bneck"),
            r"it has no features\.3\.conv\.1\.1\.running_var$",
        ),
        (
            *("mobilenetv2_035", lambda s: s | {"features.3.se.weight": X}, "mobilenetv2_035-bneck"),
            r"features\.3\.se\.weight has no place$",
        ),
        ("mobilenetv2_035", dict, "resnet18-deconv", r"it holds a MobileNetV2 of torchvision's, .* is resnet18"),
        ("mobilenetv2_035", dict, "mobilenetv3_small-deconv", r"backbone is mobilenetv3_small"),
        ("resnet18", dict, "mobilenetv2_035-deconv", r"it holds a ResNet"),
        ("resnet18", dict, "resnet10-deconv", r"a model of 8 blocks, and the network's backbone has 4"),
        (
            "mobilenetv2_035",
            lambda s: {"x.y": X, "stem": X},
            "mobilenetv2_035-deconv",
            r"tensors \(x\.y, stem, \.\.\.\) are neither",
        ),
        ("mobilenetv2_035", lambda s: s | {"epoch": 3}, "mobilenetv2_035-deconv", r"'epoch' is a int"),
        ("mobilenetv2_035", lambda s: {}, "mobilenetv2_035-deconv", r"no tensors by name but a dict"),
        ("mobilenetv2_035", lambda s: [X], "mobilenetv2_035-deconv", r"no tensors by name but a list"),
    ],
)
def test_what_does_not_fit_is_refused_whole(model, file, change, target, problem):
    net = make(target)
    same = unchanged(net)
    contents: Any = change(copy.copy(dict(model(file).state_dict())))
    with pytest.raises(ValueError, match=problem):
        load_backbone(contents, net)
    assert same()

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import network_state, save_weights
from posedy.models.registry import create_model
from posedy.models.transfer import load_pretrained
from posedy.skeleton import Skeleton

X = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
HAND = Skeleton(("wrist", "thumb", "little"), (), ((0, 1), (0, 2)), (0.1, 0.1, 0.1))
PAW = Skeleton(("wrist", "dewclaw", "little"), (), ((0, 1), (0, 2)), (0.1, 0.1, 0.1))


@pytest.fixture(scope="module")
def made(perturb: Callable[..., PoseNet], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`made(name)`: the file of a network of the hand's keypoints and K = 2."""
    folder = tmp_path_factory.mktemp("weights")

    def made(name: str) -> Path:
        path = folder / f"{name}.pt"
        if not path.exists():
            net = create_model(name, 3, kernels(name), skeleton=HAND)
            torch.save({"network": network_state(perturb(net, X))}, path)
        return path

    return made


def kernels(name: str) -> int:
    """K = 2, and the default for networks without dynamic convolution."""
    return 2 if "dy_" in name else 4


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["network"]["tensors"]


@pytest.mark.parametrize("name", ["dy_mobilenetv2_035-bneck", "mobilenetv2_035-deconv"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_same_network(made, name, suffix, tmp_path):
    path = made(name)
    net = create_model(name, 3, kernels(name), skeleton=HAND)
    if suffix == ".safetensors":
        load_pretrained(net, path)
        path = tmp_path / "model.safetensors"
        save_weights(net, path)
        net = create_model(name, 3, kernels(name), skeleton=HAND)
    tensors = tensors_of(made(name))
    assert load_pretrained(net, str(path)) == f"{path}: {name}, {len(tensors)} tensors copied"
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, tensors[key])


@pytest.mark.slow
def test_the_static_twin_with_noise_of_torchs_generator(made):
    path = made("mobilenetv2_035-bneck")
    fresh = create_model("dy_mobilenetv2_035-dy_bneck", 3, 2, skeleton=HAND)
    nets = []
    for seed in (0, 0, 1):
        net = copy.deepcopy(fresh)
        torch.manual_seed(seed)
        report = load_pretrained(net, path)
        nets.append(net.state_dict())
    assert "mobilenetv2_035-bneck, " in report
    assert "61 static kernels made dynamic (their attention is fresh)" in report
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])
    assert not torch.equal(
        nets[0]["backbone.blocks.0.depthwise.0.weight"], nets[2]["backbone.blocks.0.depthwise.0.weight"]
    )


def test_the_dynamic_twin(made):
    net = create_model("mobilenetv2_035-bneck", 3, skeleton=HAND)
    assert "50 dynamic kernels made static" in load_pretrained(net, made("dy_mobilenetv2_035-bneck"))
    tensors = tensors_of(made("dy_mobilenetv2_035-bneck"))
    name = "backbone.blocks.2.project.0.weight"
    torch.testing.assert_close(net.state_dict()[name], tensors[name].mean(dim=0))


@pytest.mark.parametrize("name", ["mobilenetv2_035-bneck", "mobilenetv2_035-deconv"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_keypoints": 4}, "the file has 3 keypoints, the network 4"),
        ({"num_keypoints": 3, "skeleton": PAW}, "the network's ['wrist', 'dewclaw', 'little']"),
        (
            {"num_keypoints": 3, "skeleton": HAND, "output": "softmax"},
            "the file's output is linear, the network's softmax",
        ),
    ],
    ids=["number", "names", "output"],
)
def test_the_layer_of_other_heatmaps_stays_fresh(made, name, options, words):
    net = create_model(f"dy_{name}", num_kernels=2, **options)
    fresh = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    report = load_pretrained(net, made(name))
    tensors = tensors_of(made(name))
    layer = {f"head.{'9' if 'deconv' in name else 'heatmap'}.{leaf}" for leaf in ("weight", "bias")}
    assert layer <= tensors.keys()
    for key, tensor in net.state_dict().items():
        if key in layer or "attention" in key:
            assert torch.equal(tensor, fresh[key])
        elif tensor.ndim == tensors[key].ndim:
            assert torch.equal(tensor, tensors[key])
    assert f"{len(tensors) - 50 - 2} tensors copied, 50 static" in report
    assert "the layer of the heatmaps is fresh: " in report
    assert words in report


@pytest.mark.parametrize(
    ("file", "target", "problem"),
    [
        ("mobilenetv2_035-bneck", "mobilenetv2_035-deconv", r"it holds mobilenetv2_035-bneck; .* static or dynamic"),
        ("mobilenetv2_035-bneck", "dy_mobilenetv2_050-bneck", r"it holds mobilenetv2_035-bneck; "),
        (
            "dy_mobilenetv2_035-bneck",
            "dy_mobilenetv2_035-bneck",
            "num_kernels 2 in the file, 4 in the network",
        ),
    ],
)
def test_other_networks_are_refused(made, file, target, problem):
    net = create_model(target, 3, 4, skeleton=HAND)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{re.escape(str(made(file)))} cannot start {target}: .*{problem}"):
        load_pretrained(net, made(file))
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_files_that_cannot_be_read(tmp_path):
    net = create_model("mobilenetv2_035-bneck", 3)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*missing\.pt"):
        load_pretrained(net, tmp_path / "missing.pt")
    for name in ("file.pt", "file.safetensors", "file.pth"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
            load_pretrained(net, tmp_path / name)
    torch.save({"state_dict": {"a": X}}, tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match=r"foreign\.pth cannot start mobilenetv2_035-bneck: its tensors \(a, "):
        load_pretrained(net, tmp_path / "foreign.pth")


def test_broken_numbers_are_refused(tmp_path: Path) -> None:
    net = create_model("mobilenetv2_035-bneck", input_size=(32, 64))
    net.backbone.stem[0].weight.data[0] = float("nan")
    save_weights(net, tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match=r"backbone\.stem\.0\.weight holds numbers that are not finite"):
        load_pretrained(create_model("mobilenetv2_035-bneck", input_size=(32, 64)), tmp_path / "broken.safetensors")

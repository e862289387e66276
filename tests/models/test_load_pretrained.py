import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from posedy.models import network_file
from posedy.models.factory import create_model
from posedy.models.network_file import network_state, save_weights
from posedy.models.pose_net import PoseNet
from posedy.models.transfer import load_pretrained
from posedy.skeleton import Skeleton

X = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
HAND = Skeleton(("wrist", "thumb", "little"), (), ((0, 1), (0, 2)), (0.1, 0.1, 0.1))
PAW = Skeleton(("wrist", "dewclaw", "little"), (), ((0, 1), (0, 2)), (0.1, 0.1, 0.1))


@pytest.fixture(scope="module")
def weights_file(perturb: Callable[..., PoseNet], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`weights_file(name)`: a file with the weights of a network with the keypoints of `HAND` and K = 2."""
    folder = tmp_path_factory.mktemp("weights")

    def write(name: str) -> Path:
        path = folder / f"{name}.pt"
        if not path.exists():
            net = create_model(name, num_keypoints=3, num_kernels=num_kernels_of(name), skeleton=HAND)
            torch.save({"network": network_state(perturb(net, X))}, path)
        return path

    return write


def num_kernels_of(name: str) -> int:
    """Returns K = 2, or the default for static networks."""
    return 2 if "dy_" in name else 4


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["network"]["tensors"]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("dy_mobilenetv2_035-fpn", ".safetensors"),
        pytest.param("mobilenetv2_035-deconv", ".pt", marks=pytest.mark.slow),
        pytest.param("dy_mobilenetv2_035-fpn", ".pt", marks=pytest.mark.slow),
        pytest.param("mobilenetv2_035-deconv", ".safetensors", marks=pytest.mark.slow),
    ],
)
def test_same_network_is_loaded_completely(weights_file, name, suffix, tmp_path):
    path = weights_file(name)
    net = create_model(name, num_keypoints=3, num_kernels=num_kernels_of(name), skeleton=HAND)
    if suffix == ".safetensors":
        load_pretrained(net, path)
        path = tmp_path / "model.safetensors"
        save_weights(net, path)
        net = create_model(name, num_keypoints=3, num_kernels=num_kernels_of(name), skeleton=HAND)
    tensors = tensors_of(weights_file(name))
    message = load_pretrained(net, str(path))
    assert message.startswith(f"{path}: {name}: {len(tensors)} ")
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, tensors[key])


@pytest.mark.slow
def test_static_weights_are_inflated_with_noise_of_torchs_generator(weights_file):
    path = weights_file("mobilenetv2_035-bneck")
    initial = create_model("dy_mobilenetv2_035-dy_bneck", num_keypoints=3, num_kernels=2, skeleton=HAND)
    nets = []
    for seed in (0, 0, 1):
        net = copy.deepcopy(initial)
        torch.manual_seed(seed)
        message = load_pretrained(net, path)
        nets.append(net.state_dict())
    assert " 61 static kernels" in message
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])
    assert not torch.equal(
        nets[0]["backbone.blocks.0.depthwise.0.weight"], nets[2]["backbone.blocks.0.depthwise.0.weight"]
    )


def test_dynamic_weights_are_averaged(weights_file):
    net = create_model("mobilenetv2_035-fpn", num_keypoints=3, skeleton=HAND)
    assert "50 dynamic kernels" in load_pretrained(net, weights_file("dy_mobilenetv2_035-fpn"))
    tensors = tensors_of(weights_file("dy_mobilenetv2_035-fpn"))
    name = "backbone.blocks.2.project.0.weight"
    torch.testing.assert_close(net.state_dict()[name], tensors[name].mean(dim=0))


@pytest.mark.parametrize(
    "name", ["mobilenetv2_035-fpn", pytest.param("mobilenetv2_035-deconv", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("options", "difference"),
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
def test_last_layer_is_not_loaded_for_other_heatmaps(weights_file, name, options, difference):
    net = create_model(f"dy_{name}", num_kernels=2, **options)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    message = load_pretrained(net, weights_file(name))
    tensors = tensors_of(weights_file(name))
    layer = {f"head.{'9' if 'deconv' in name else 'heatmap'}.{leaf}" for leaf in ("weight", "bias")}
    assert layer <= tensors.keys()
    for key, tensor in net.state_dict().items():
        if key in layer:
            assert torch.equal(tensor, before[key])
        elif "attention" not in key and tensor.ndim == tensors[key].ndim:
            assert torch.equal(tensor, tensors[key])
    assert f": {len(tensors) - 50 - 2} " in message
    assert " 50 static kernels" in message
    assert difference in message


@pytest.mark.parametrize(
    ("file", "target", "problem"),
    [
        (
            "mobilenetv2_035-fpn",
            "mobilenetv2_035-deconv",
            "expected weights of mobilenetv2_035-deconv.*got mobilenetv2_035-fpn",
        ),
        (
            "mobilenetv2_035-fpn",
            "dy_mobilenetv2_050-fpn",
            "expected weights of mobilenetv2_050-fpn.*got mobilenetv2_035-fpn",
        ),
        (
            "dy_mobilenetv2_035-fpn",
            "dy_mobilenetv2_035-fpn",
            "num_kernels 2 in the file, 4 in the network",
        ),
    ],
)
def test_other_networks_are_rejected_completely(weights_file, file, target, problem):
    net = create_model(target, num_keypoints=3, num_kernels=4, skeleton=HAND)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=f"{re.escape(str(weights_file(file)))} into {target}: .*{problem}"):
        load_pretrained(net, weights_file(file))
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_unreadable_files_are_rejected_by_name(tmp_path):
    net = create_model("mobilenetv2_035-fpn", num_keypoints=3)
    with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
        load_pretrained(net, tmp_path / "missing.pt")
    for name in ("file.pt", "file.safetensors", "file.pth"):
        (tmp_path / name).write_bytes(b"not a weights file")
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
            load_pretrained(net, tmp_path / name)
    torch.save({"state_dict": {"a": X}}, tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match=r"foreign\.pth into mobilenetv2_035-fpn: .*got the tensors a, "):
        load_pretrained(net, tmp_path / "foreign.pth")


def test_non_finite_weights_are_rejected(tmp_path: Path) -> None:
    net = create_model("mobilenetv2_035-fpn", input_size=(32, 64))
    net.backbone.stem[0].weight.data[0] = float("nan")
    save_weights(net, tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match=r"backbone\.stem\.0\.weight is not finite"):
        load_pretrained(create_model("mobilenetv2_035-fpn", input_size=(32, 64)), tmp_path / "broken.safetensors")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(network_file, "save_file", fill_disk)
    with pytest.raises(OSError, match=r"/x\.safetensors cannot be written \(.*No space left.*free disk space"):
        save_weights(create_model("mobilenetv2_035-fpn", input_size=(32, 64)), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())

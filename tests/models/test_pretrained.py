import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import posedy
from posedy.config import load_config
from posedy.models import registry
from posedy.models.dynamic_conv import temperatures
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import DEFAULT, find_weights, load_checkpoint, save_checkpoint
from posedy.models.registry import list_models, list_presets, list_pretrained
from posedy.prediction import load_model
from posedy.skeleton import COCO17, Skeleton
from posedy.training.optim import temperature


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_weights(create_model("mobilenetv2_035-fpn", input_size=(32, 64)), tmp_path / "small.safetensors")
    (tmp_path / "small.md").write_text("a model card")
    monkeypatch.setattr(registry, "WEIGHTS_FOLDER", tmp_path)
    return tmp_path


def test_pretrained_networks_are_named_by_their_files(folder: Path) -> None:
    assert list_pretrained() == list_models(pretrained=True) == ["small"]
    assert find_weights("small") == folder / "small.safetensors"
    assert load_checkpoint("small").input_size == (32, 64)


def test_a_folder_does_not_hide_a_preset(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert find_weights("small") == folder / "small.safetensors"


def test_suffixes_may_be_upper_case(tmp_path: Path) -> None:
    net = create_model("dy_mobilenetv2_035-bneck", num_kernels=2, depth=0.34)
    for name in ("a.PT", "a.SAFETENSORS"):
        save_checkpoint(net, tmp_path / name)
        assert load_checkpoint(tmp_path / name).name == net.name
    (tmp_path / "a.ONNX").touch()
    with pytest.raises(ValueError, match=r"a\.ONNX runs in onnxruntime"):
        load_model(tmp_path / "a.ONNX", runtime="torch")


def test_names_with_a_suffix_or_a_folder_are_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("runs/small", "small.pt", "./small", Path("a/b")):
        assert find_weights(path) == Path(path)
    monkeypatch.chdir(folder)
    Path("small").write_text("a file of this name has priority")
    assert find_weights("small") == Path("small")


def test_presets_name_pretrained_networks(pretrained: PoseNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PRESETS", {"small": NAME, "absent": "mobilenetv2_035-fpn"})
    assert list_presets() == {"small": NAME}
    assert find_weights("small") == find_weights(NAME)
    for net in (create_model("small", pretrained=True), load_checkpoint("small")):
        assert net.name == NAME
        assert torch.equal(net.head.heatmap.weight, pretrained.head.heatmap.weight)
    with pytest.raises(ValueError, match=rf"'small' is a preset.*'{NAME}'"):
        create_model("small")
    with pytest.raises(ValueError, match=rf"'absent'.*small \({NAME}\)"):
        find_weights("absent")


def test_the_default_is_a_preset_in_the_package() -> None:
    assert DEFAULT in list_presets()
    assert set(list_presets()) == set(registry.PRESETS)


def test_unknown_names_are_rejected_with_the_pretrained_ones(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"'large'.*small"):
        find_weights("large")
    with pytest.raises(ValueError, match=r"'resnet18-bneck'.*create_model"):
        find_weights("resnet18-bneck")


NAME = "dy_mobilenetv2_035-fpn"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[PoseNet, Path]:
    """A network with 3 keypoints, two kernels, temperature 5 and codec "unbiased", and the folder of its file."""
    folder = tmp_path_factory.mktemp("saved")
    skeleton = Skeleton(("a", "b", "c"), ((0, 1),), (), (0.1,) * 3)
    options = {"num_keypoints": 3, "num_kernels": 2, "temperature": 5.0, "codec": "unbiased", "output": "sigmoid"}
    net = create_model(NAME, **options, skeleton=skeleton, input_size=(64, 96))
    save_weights(net, folder / f"{NAME}.safetensors")
    return net.eval(), folder


@pytest.fixture
def pretrained(saved: tuple[PoseNet, Path], monkeypatch: pytest.MonkeyPatch) -> PoseNet:
    """The saved network as the only pretrained one."""
    net, folder = saved
    monkeypatch.setattr(registry, "WEIGHTS_FOLDER", folder)
    return net


def test_create_model_loads_pretrained_weights(pretrained: PoseNet) -> None:
    net = create_model(NAME, pretrained=True, num_keypoints=3, skeleton=pretrained.skeleton, input_size=(32, 64))
    assert not net.training
    assert (net.options, net.input_size) == (pretrained.options, (32, 64))
    expected = pretrained.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in net.state_dict().items())
    net = create_model(NAME, pretrained=True)
    assert (net.options, net.input_size, net.skeleton) == (pretrained.options, (64, 96), pretrained.skeleton)
    assert create_model(NAME, True, num_kernels=2, temperature=5.0, codec="unbiased").options["num_kernels"] == 2


def test_pretrained_weights_with_other_keypoints_have_a_fresh_last_layer(pretrained: PoseNet) -> None:
    net = create_model(NAME, pretrained=True, skeleton=COCO17)
    assert net.num_keypoints == 17
    assert net.skeleton == COCO17
    expected = pretrained.state_dict()
    different = {key for key, tensor in net.state_dict().items() if not torch.equal(tensor, expected[key])}
    assert different == {"head.heatmap.weight", "head.heatmap.bias"}
    assert net.eval()(torch.zeros(1, 3, 64, 32)).shape == (1, 17, 16, 8)
    renamed = Skeleton(("left_x", "right_x", "z"), ((0, 1),), (), (0.1, 0.1, 0.1))  # as many as in the file
    net = create_model(NAME, pretrained=True, num_keypoints=3, skeleton=renamed)
    assert not torch.equal(net.state_dict()["head.heatmap.weight"], expected["head.heatmap.weight"])
    assert net.skeleton == renamed


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_kernels": 3},
        {"codec": "msra2"},
        {"output": "softmax"},
        {"temperature": 7.0},
        {"depth": 0.5},
        {"sigma": 3.0},
        {"num_kernels": 4},  # the defaults of networks without weights
        {"output": "linear"},
        {"temperature": 30.0},
    ],
)
def test_arguments_that_differ_from_the_pretrained_network_are_rejected(
    pretrained: PoseNet, arguments: dict[str, Any]
) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        create_model(NAME, pretrained=True, **arguments)


def test_defaults_that_static_networks_ignore_are_no_differences() -> None:
    net = create_model("light", pretrained=True, num_kernels=4, temperature=30.0)
    assert net.options == create_model("light", pretrained=True).options
    with pytest.raises(ValueError, match="num_kernels=4, got 2"):
        create_model("light", pretrained=True, num_kernels=2)


def test_an_input_size_that_is_given_replaces_the_one_of_the_file(pretrained: PoseNet) -> None:
    for input_size in ((192, 256), (64, 96)):
        assert create_model(NAME, pretrained=True, input_size=input_size).input_size == input_size


def test_networks_without_weights_are_rejected_with_the_nearest_name(pretrained: PoseNet) -> None:
    with pytest.raises(ValueError, match=rf"'dy_mobilenetv2_035-fnp'.*'{NAME}'"):
        create_model("dy_mobilenetv2_035-fnp", pretrained=True)


def test_the_name_of_a_former_network_leads_to_the_preset_that_replaces_it() -> None:
    name = "dy_mobilenetv2_050-dy_bneck"
    for load in (find_weights, partial(create_model, pretrained=True)):
        with pytest.raises(ValueError, match=f"'{name}'") as caught:
            load(name)
        assert re.findall(r"preset '(\w+)'", str(caught.value)) == ["light"]
    assert create_model(name).name == name


def test_all_weights_of_the_package_are_small() -> None:
    assert sum(file.stat().st_size for file in registry.WEIGHTS_FOLDER.rglob("*.safetensors")) <= 48e6


@pytest.mark.parametrize("name", list_pretrained())
def test_each_pretrained_network_has_a_card(name: str) -> None:
    assert find_weights(name).with_suffix(".md").is_file()
    net = load_checkpoint(name)
    assert net.skeleton is not None
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())


def test_the_fine_tuning_configuration_has_the_size_and_temperature_of_the_pretrained_network() -> None:
    config = load_config(Path(__file__).parents[2] / "configs/real/fine_tune.yaml")
    net = load_checkpoint(str(config.model.weights))
    assert net.input_size == config.model.input_size
    expected = {temperature(config.train.temperature, epoch) for epoch in range(config.train.epochs)}
    assert temperatures(net) in (expected, set())  # a static network has none


def test_only_pose_networks_are_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Linear"):
        posedy.save_checkpoint(torch.nn.Linear(1, 1), tmp_path / "net.pt")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())

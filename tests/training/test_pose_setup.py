"""Setup of a training run: datasets and network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import posedy
from posedy.codecs import MSRACodec
from posedy.config import Config, load_config
from posedy.data.tables import load_json
from posedy.images import open_header
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.network_file import save_weights
from posedy.skeleton import COCO17
from posedy.training.distributed import DistributedContext
from posedy.training.pose_setup import build_network, read_training_data
from posedy.training.pose_task import PoseTask

NAME = "dy_mobilenetv2_035-fpn"


@pytest.mark.parametrize(("start", "warns"), [(30, True), (1, False)])
def test_build_network_warns_of_another_temperature(tmp_path: Path, start: float, warns: bool) -> None:
    net = posedy.create_model(NAME)
    posedy.set_temperature(net, 1)
    weights = tmp_path / "trained.safetensors"
    save_weights(net, weights)
    config = load_config(None, [f"model.name={NAME}", f"train.temperature.start={start}"])
    messages: list[str] = []
    build_network(config, COCO17, messages.append, weights)
    advice = "train.temperature.start=1 train.temperature.end=1"
    assert (advice in "\n".join(messages)) is warns


@pytest.mark.parametrize(("padding", "warns"), [(1.25, False), (1.5, True)])
def test_build_network_warns_of_a_padding_that_prediction_does_not_have(padding: float, warns: bool) -> None:
    messages: list[str] = []
    config = load_config(None, [f"model.name={NAME}", f"data.padding={padding}"])
    build_network(config, COCO17, messages.append, None)
    assert any("data.padding=1.5" in message for message in messages) is warns


@pytest.mark.parametrize("equal", [False, True])
def test_kernels_start_independent_or_equal(equal: bool) -> None:
    net = build_network(load_config(None, [f"model.name={NAME}", f"train.equal_kernels={equal}"]), COCO17, print, None)
    layers = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    assert layers
    assert all(torch.equal(layer.weight[0], layer.weight[1]) is equal for layer in layers)


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPUs support CUDA graphs")
def test_a_cuda_graph_needs_a_gpu(experiment: Callable[..., Config]) -> None:
    config = experiment("train.cuda_graph=true")
    with pytest.raises(ValueError, match=r"train.cuda_graph=true .* cpu"):
        PoseTask(config, DistributedContext(config.train))


def test_build_network_keeps_the_configured_sigma(tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    save_weights(posedy.create_model(NAME, sigma=1), weights)
    net = build_network(load_config(None, [f"model.name={NAME}", "model.sigma=3"]), COCO17, print, weights)
    assert net.codec.target_sigma == 3
    assert net.state_dict().keys() == posedy.create_model(NAME).state_dict().keys()


@pytest.mark.parametrize(
    ("is_main", "overrides", "expected"),
    [(True, [], 22), (False, [], 0), (True, ["data.check_images=false"], 0)],
)
def test_only_rank_0_opens_the_images(
    synthetic: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_main: bool, overrides: list[str], expected: int
) -> None:
    monkeypatch.setattr("posedy.data.image_check.cache_folder", lambda: tmp_path)
    opened: list[object] = []
    monkeypatch.setattr("posedy.data.image_check.open_header", lambda file: (opened.append(file), open_header(file))[1])
    config = load_config(None, [f"data.root={synthetic}", *overrides])
    data = read_training_data(config, print, is_main)
    assert len(opened) == expected
    assert len(data.train) > 0


def test_each_annotation_file_is_read_once(synthetic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr("posedy.data.coco_file.load_json", lambda path: (read.append(path), load_json(path))[1])
    data = read_training_data(load_config(None, [f"data.root={synthetic}"]), print)
    assert [path.name for path in read] == ["person_keypoints_train2017.json", "person_keypoints_val2017.json"]
    assert len(data.val_gt.labeled) == len(data.val)


def test_codecs_without_heatmaps_need_a_loss_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, [f"model.name={NAME}"])
    monkeypatch.setattr(MSRACodec, "output_names", ("coordinates",))
    with pytest.raises(ValueError, match=r"model\.codec.*msra.*coordinates"):
        build_network(config, COCO17, print, None)
    monkeypatch.setattr(MSRACodec, "loss", lambda codec, outputs, targets, weights: weights.sum())
    assert build_network(config, COCO17, print, None).codec.has_loss


def test_static_weights_give_no_temperature_warning(tmp_path: Path) -> None:
    weights = tmp_path / "static.safetensors"
    save_weights(posedy.create_model(NAME.removeprefix("dy_")), weights)
    messages: list[str] = []
    build_network(load_config(None, [f"model.name={NAME}"]), COCO17, messages.append, weights)
    assert "temperature" not in "\n".join(messages)

"""Checkpoints: atomic writing, and comparison with the config when a run resumes."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch

from posedy.config import load_config
from posedy.models.factory import create_model
from posedy.models.network_file import network_state, write_checkpoint
from posedy.models.pose_net import PoseNet
from posedy.training.checkpoint import LAST, RunState, read_run_state
from posedy.training.optim import make_optimizer


class Unpicklable:
    """Fails while being saved."""

    def __reduce__(self) -> str:
        raise RuntimeError("the disk is full")


def test_failed_write_keeps_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_checkpoint({"epoch": 1, "tensor": torch.ones(3)}, path)
    with pytest.raises(OSError, match=r"last\.pt.*the disk is full"):
        write_checkpoint({"epoch": 2, "tensor": torch.ones(1000), "bad": Unpicklable()}, path)
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


@cache
def make_net() -> tuple[PoseNet, torch.optim.Optimizer]:
    """A network and its optimizer, which the tests only save."""
    net = create_model("mobilenetv2_035-fpn", input_size=(32, 64), depth=0.34)
    return net, torch.optim.AdamW(net.parameters())


def save_run(run: Path, *overrides: str, step: int = 0) -> Path:
    """Writes the last checkpoint of a run with two processes and returns the run folder."""
    net, optimizer = make_net()
    state = RunState(epoch=7, step=step, best_metric=0.5)
    state.save(run / LAST, net, optimizer, None, load_config(None, overrides), "9 persons, ab12", 2)
    return run


def resume(
    run: Path, *overrides: str, data: str = "9 persons, ab12", world_size: int = 2, accept: bool = False
) -> RunState:
    return read_run_state(run, load_config(None, overrides), data, world_size, accept)


@pytest.mark.parametrize(
    "override",
    [
        *("data.root=/elsewhere", "data.train_annotations=/elsewhere/a.json", "data.boxes=b.json"),
        *("train.workers=3", "train.cuda_graph=true", "eval.every=1", "eval.batch_size=3"),
    ],
)
def test_settings_without_effect_on_results_may_differ(tmp_path: Path, override: str) -> None:
    state = resume(save_run(tmp_path), override)
    assert state.epoch == 7
    assert not state.changes


REJECTED = [
    ("train.seed=1", r"train\.seed: 0 in the run, 1 now"),
    ("train.epochs=100", r"train\.epochs: 210 in the run, 100 now"),
    ("train.epochs=420", r"train\.epochs: 210 in the run, 420 now.*epochs 1-170: 0\.001.*epochs 8-340: 0\.001"),
    ("train.lr_drops=[100]", r"train\.lr_drops: None in the run, \[100\] now"),
    ("train.ema_decay=0.99", r"train\.ema_decay: None in the run, 0\.99 now"),
    ("augment.flip_probability=0", r"augment\.flip_probability: 0\.5 in the run, 0\.0 now"),
    ("data.padding=1.5", r"data\.padding: 1\.25 in the run, 1\.5 now"),
    ("eval.flip=false", r"eval\.flip: True in the run, False now"),
    ("data.skeleton.sigmas=0.05", r"data\.skeleton\.sigmas: None in the run, 0\.05 now"),
    ("train.temperature.end=1", r"train\.temperature\.end: 30\.0 in the run, 1\.0 now"),
]


@pytest.mark.parametrize(
    ("override", "difference"), [*REJECTED, ("model.num_kernels=2", r"kernels: 4 in the run, 2 now")]
)
def test_changed_settings_are_rejected_and_listed(tmp_path: Path, override: str, difference: str) -> None:
    with pytest.raises(ValueError, match=difference):
        resume(save_run(tmp_path), override)


@pytest.mark.parametrize("earlier", [(), ("train.lr_drops=[170,200]",)])
def test_more_epochs_with_the_same_milestones_are_no_change(tmp_path: Path, earlier: tuple[str, ...]) -> None:
    state = resume(save_run(tmp_path, *earlier), "train.epochs=500", "train.lr_drops=[170,200]")
    assert not state.changes


@pytest.mark.parametrize(
    "settings",
    [
        ("train.schedule=cosine",),
        ("train.schedule=cosine", "train.lr_drops=[170,200]"),
        ("train.minutes=60", "train.lr_drops=[170,200]"),
    ],
)
def test_more_epochs_with_a_proportional_schedule_are_rejected(tmp_path: Path, settings: tuple[str, ...]) -> None:
    save_run(tmp_path, *settings)
    with pytest.raises(ValueError, match=r"train\.epochs: 210 in the run, 300 now"):
        resume(tmp_path, *settings, "train.epochs=300")
    assert resume(tmp_path, *settings, "train.epochs=300", accept=True).changes


def test_num_kernels_of_static_networks_is_ignored(tmp_path: Path) -> None:
    name = "model.name=mobilenetv2_035-bneck"
    save_run(tmp_path, name)
    state = torch.load(tmp_path / LAST, weights_only=True)
    state["config"]["model"]["num_kernels"] = 2
    torch.save(state, tmp_path / LAST)
    assert not resume(tmp_path, name).changes


def test_error_names_lr_drops_that_keep_the_learning_rates(tmp_path: Path) -> None:
    save_run(tmp_path)
    with pytest.raises(ValueError, match=r"train\.lr_drops=\[170,200\]"):
        resume(tmp_path, "train.epochs=300")
    resume(tmp_path, "train.epochs=300", "train.lr_drops=[170,200]")


def test_missing_keys_of_older_runs_have_their_defaults(tmp_path: Path) -> None:
    path = save_run(tmp_path) / LAST
    saved = torch.load(path, weights_only=True)
    saved["config"]["train"] |= {"shared_decoding": False, "shuffle_buffer": 2048}  # deleted since
    for section, key in (("train", "channels_last"), ("train", "lr_factors"), ("augment", "photometric")):
        del saved["config"][section][key]
    write_checkpoint(saved, path)
    assert not resume(tmp_path).changes
    with pytest.raises(ValueError, match=r"train\.channels_last: False in the run, True now"):
        resume(tmp_path, "train.channels_last=true")


def test_other_data_and_number_of_processes_are_rejected(tmp_path: Path) -> None:
    save_run(tmp_path)
    with pytest.raises(ValueError, match=r"datasets: 9 persons, ab12 in the run, 8 persons, cd34 now"):
        resume(tmp_path, data="8 persons, cd34")
    with pytest.raises(ValueError, match=r"number of processes: 2 in the run, 1 now"):
        resume(tmp_path, world_size=1)


@pytest.mark.parametrize(("override", "difference"), REJECTED)
def test_accept_changes_resumes_and_lists_the_changes(tmp_path: Path, override: str, difference: str) -> None:
    state = resume(save_run(tmp_path), override, accept=True)
    assert len(state.changes) == 1
    assert re.search(difference, state.changes[0])
    # the best AP is not comparable under another protocol or with other sigmas
    assert state.best_metric == (None if override.startswith(("eval.", "data.skeleton.", "data.padding")) else 0.5)


def test_impossible_changes_are_rejected_despite_accept_changes(tmp_path: Path) -> None:
    save_run(tmp_path)
    with pytest.raises(ValueError, match=r"cannot resume.*\n.*num_kernels"):
        resume(tmp_path, "model.num_kernels=2", accept=True)
    save_run(tmp_path, step=3)
    with pytest.raises(ValueError, match=r"cannot resume.*\n.*train\.batch_size"):
        resume(tmp_path, "train.batch_size=64", accept=True)
    assert resume(tmp_path, "train.lr=0.1", accept=True).step == 3
    with pytest.raises(ValueError, match=r"cannot resume.*\n.*train\.optimizer: 'adam' in the run, 'sgd' now"):
        resume(tmp_path, "train.optimizer=sgd", accept=True)


def test_learning_rate_factors_may_change_where_they_group_the_parameters_as_before(tmp_path: Path) -> None:
    net, _ = make_net()
    config = load_config(None, ["train.lr_factors={backbone: 0.1}"])
    RunState().save(tmp_path / LAST, net, make_optimizer(net, config.train), None, config, "9 persons, ab12", 2)
    for factors in ("{backbone: 0.2}", "{backbone.stem: 0.1}", "{head: 0.1}"):
        changed = load_config(None, [f"train.lr_factors={factors}"])
        state = read_run_state(tmp_path, changed, "9 persons, ab12", 2, accept_changes=True)
        optimizer = make_optimizer(net, changed.train)
        if factors == "{backbone: 0.2}":
            state.restore(net, optimizer, None)
            assert {group["lr_factor"] for group in optimizer.param_groups} == {0.2, 1}
        else:
            for groups in (state.groups, None):  # older checkpoints do not have them
                state.groups = groups
                with pytest.raises(ValueError, match=r"cannot resume: the learning rate factors.*lr_factors"):
                    state.restore(net, optimizer, None)


def test_moments_of_other_parameters_are_rejected(tmp_path: Path) -> None:
    net, _ = make_net()
    blocks = [f"backbone.blocks.{index}" for index in (1, 4)]
    assert len({len(list(net.get_submodule(block).parameters())) for block in blocks}) == 1
    first, second = (load_config(None, [f"train.lr_factors={{{block}: 0.1}}"]) for block in blocks)
    optimizer = make_optimizer(net, first.train)
    net(torch.rand(2, 3, 64, 32)).sum().backward()
    optimizer.step()
    RunState().save(tmp_path / LAST, net, optimizer, None, first, "9 persons, ab12", 2)
    for has_names in (True, False):
        state = read_run_state(tmp_path, second, "9 persons, ab12", 2, accept_changes=True)
        state.groups = state.groups if has_names else None
        with pytest.raises(ValueError, match="cannot resume: the learning rate factors"):
            state.restore(net, make_optimizer(net, second.train), None)


def test_checkpoint_without_run_state_is_rejected(tmp_path: Path) -> None:
    net = create_model("mobilenetv2_035-fpn", input_size=(32, 64), depth=0.34)
    write_checkpoint({"network": network_state(net), "epoch": 3}, tmp_path / LAST)
    with pytest.raises(ValueError, match=r"step.*optimizer.*model\.weights="):
        resume(tmp_path)

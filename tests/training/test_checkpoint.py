"""Checkpoints: whole or not at all, and only for the experiment that they are of."""

import re
from pathlib import Path

import pytest
import torch

from posedy.config import load_config
from posedy.models.pretrained import network_state
from posedy.models.registry import create_model
from posedy.training.checkpoint import LAST, RunState, read_run, save_checkpoint


class Unwritable:
    """Something that fails in the middle of being saved."""

    def __reduce__(self) -> str:
        raise RuntimeError("the disk is full")


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1, "tensor": torch.ones(3)})
    with pytest.raises(OSError, match=r"last.pt cannot be written, is the disk full\?.*the disk is full"):
        save_checkpoint(path, {"epoch": 2, "tensor": torch.ones(1000), "bad": Unwritable()})
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def saved_run(run: Path, *overrides: str, step: int = 0) -> Path:
    """The last checkpoint of a run, by default under the default configuration, of two processes."""
    net = create_model("mobilenetv2_035-bneck", input_size=(32, 64))
    optimizer = torch.optim.AdamW(net.parameters())
    state = RunState(epoch=7, step=step, best_ap=0.5)
    state.save(run / LAST, net, optimizer, None, load_config(None, overrides), "9 persons, ab12", 2)
    return run


def going_on(
    run: Path, *overrides: str, data: str = "9 persons, ab12", processes: int = 2, accept: bool = False
) -> RunState:
    return read_run(run, load_config(None, overrides), data, processes, accept)


@pytest.mark.parametrize(
    "override",
    [
        *("data.root=/elsewhere", "data.train_annotations=/elsewhere/a.json", "data.boxes=b.json"),
        *("train.workers=3", "train.cuda_graph=true", "eval.every=1", "eval.batch_size=3"),
    ],
)
def test_what_does_not_change_the_mathematics_may_differ(tmp_path: Path, override: str) -> None:
    state = going_on(saved_run(tmp_path), override)
    assert state.epoch == 7
    assert not state.changes


REFUSED = [
    ("train.seed=1", r"train\.seed: 0 in the run, 1 now"),
    ("train.epochs=100", r"train\.epochs: 210 in the run, 100 now"),
    ("train.epochs=420", r"train\.epochs: 210 in the run, 420 now.*epochs 1-170: 0\.001.*epochs 8-340: 0\.001"),
    ("train.lr_drops=[100]", r"train\.lr_drops: None in the run, \[100\] now"),
    ("train.ema_decay=0.99", r"train\.ema_decay: None in the run, 0\.99 now"),
    ("augment.flip=0", r"augment\.flip: 0\.5 in the run, 0\.0 now"),
    ("eval.padding=1.5", r"eval\.padding: 1\.25 in the run, 1\.5 now"),
    ("eval.flip=false", r"eval\.flip: True in the run, False now"),
    ("data.skeleton.sigmas=0.05", r"data\.skeleton\.sigmas: None in the run, 0\.05 now"),
    ("train.temperature.end=1", r"train\.temperature\.end: 30\.0 in the run, 1\.0 now"),
]


@pytest.mark.parametrize(("override", "words"), [*REFUSED, ("model.num_kernels=2", r"kernels: 4 in the run, 2 now")])
def test_what_does_is_refused_by_name(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        going_on(saved_run(tmp_path), override)


@pytest.mark.parametrize("earlier", [(), ("train.lr_drops=[170,200]",)])
def test_more_epochs_after_the_same_drops_are_no_change(tmp_path: Path, earlier: tuple[str, ...]) -> None:
    state = going_on(saved_run(tmp_path, *earlier), "train.epochs=500", "train.lr_drops=[170,200]")
    assert not state.changes


@pytest.mark.parametrize(
    "settings",
    [
        ("train.schedule=cosine",),
        ("train.schedule=cosine", "train.lr_drops=[170,200]"),
        ("train.minutes=60", "train.lr_drops=[170,200]"),
    ],
)
def test_more_epochs_of_a_schedule_in_proportion_are_refused(tmp_path: Path, settings: tuple[str, ...]) -> None:
    saved_run(tmp_path, *settings)
    with pytest.raises(ValueError, match=r"train\.epochs: 210 in the run, 300 now"):
        going_on(tmp_path, *settings, "train.epochs=300")
    assert going_on(tmp_path, *settings, "train.epochs=300", accept=True).changes


def test_runs_of_static_networks_may_record_any_number_of_kernels(tmp_path: Path) -> None:
    name = "model.name=mobilenetv2_035-bneck"
    saved_run(tmp_path, name)
    state = torch.load(tmp_path / LAST, weights_only=True)
    state["config"]["model"]["num_kernels"] = 2
    torch.save(state, tmp_path / LAST)
    assert not going_on(tmp_path, name).changes


def test_the_error_says_how_to_keep_the_step_schedule(tmp_path: Path) -> None:
    saved_run(tmp_path)
    with pytest.raises(ValueError, match=r"train\.lr_drops=\[170,200\]"):
        going_on(tmp_path, "train.epochs=300")
    going_on(tmp_path, "train.epochs=300", "train.lr_drops=[170,200]")


def test_a_run_of_before_a_setting_existed_had_its_default(tmp_path: Path) -> None:
    path = saved_run(tmp_path) / LAST
    saved = torch.load(path, weights_only=True)
    saved["config"]["train"] |= {"shared_decoding": False, "shuffle_buffer": 2048}  # deleted since
    for section, key in (("train", "channels_last"), ("train", "lr_factors"), ("augment", "photometric")):
        del saved["config"][section][key]
    save_checkpoint(path, saved)
    assert not going_on(tmp_path).changes
    with pytest.raises(ValueError, match=r"train\.channels_last: False in the run, True now"):
        going_on(tmp_path, "train.channels_last=true")


def test_other_persons_and_another_number_of_processes_are_refused(tmp_path: Path) -> None:
    saved_run(tmp_path)
    with pytest.raises(ValueError, match=r"persons of the data sets: 9 persons, ab12 in the run, 8 persons, cd34 now"):
        going_on(tmp_path, data="8 persons, cd34")
    with pytest.raises(ValueError, match=r"the number of processes: 2 in the run, 1 now"):
        going_on(tmp_path, processes=1)


@pytest.mark.parametrize(("override", "words"), REFUSED)
def test_changes_are_accepted_when_told_so_and_shown(tmp_path: Path, override: str, words: str) -> None:
    state = going_on(saved_run(tmp_path), override, accept=True)
    assert len(state.changes) == 1
    assert re.search(words, state.changes[0])
    # an AP of another protocol or of other sigmas is no score to beat
    assert state.best_ap == (None if override.startswith(("eval.", "data.skeleton.")) else 0.5)


def test_changes_that_cannot_work_are_refused_even_then(tmp_path: Path) -> None:
    saved_run(tmp_path)
    with pytest.raises(ValueError, match=r"cannot go on with these changes.*\n.*num_kernels"):
        going_on(tmp_path, "model.num_kernels=2", accept=True)
    saved_run(tmp_path, step=3)
    with pytest.raises(ValueError, match=r"middle of an epoch.*\n.*train\.batch_size"):
        going_on(tmp_path, "train.batch_size=64", accept=True)
    assert going_on(tmp_path, "train.lr=0.1", accept=True).step == 3


def test_a_checkpoint_of_weights_alone_is_not_a_run(tmp_path: Path) -> None:
    net = create_model("mobilenetv2_035-bneck", input_size=(32, 64))
    save_checkpoint(tmp_path / LAST, {"network": network_state(net), "epoch": 3})
    with pytest.raises(ValueError, match=r"it has no step.*optimizer.*model\.weights="):
        going_on(tmp_path)

"""Checkpoints: whole or not at all, and only for the experiment that they are of."""

from pathlib import Path

import pytest
import torch

from posedy.config import load_config
from posedy.models.zoo import create_model
from posedy.training.checkpoint import LAST, read_run, save_checkpoint
from posedy.weights.network_file import network_state


class Unwritable:
    """Something that fails in the middle of being saved."""

    def __reduce__(self) -> str:
        raise RuntimeError("the disk is full")


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1, "tensor": torch.ones(3)})
    with pytest.raises(RuntimeError, match="disk is full"):
        save_checkpoint(path, {"epoch": 2, "tensor": torch.ones(1000), "bad": Unwritable()})
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def saved_run(run: Path) -> Path:
    """The last checkpoint of a run under the default configuration."""
    net = create_model("mobilenetv2_035-bneck", input_size=(32, 64))
    state = dict.fromkeys(
        ("optimizer", "scaler", "step", "num_crops", "loss_sum", "seconds", "numbers", "evaluated_epoch", "best_ap"), 0
    )
    state |= {"metrics": {}, "protocol": "", "random": torch.get_rng_state(), "epoch": 7, "network": network_state(net)}
    save_checkpoint(run / LAST, state | {"config": load_config(None).model_dump(mode="json")})
    return run


@pytest.mark.parametrize(
    "override",
    ["data.root=/elsewhere", "train.epochs=500", "train.workers=3", "eval.every=1", "eval.flip=false", "eval.nms=null"],
)
def test_what_does_not_change_the_mathematics_may_differ(tmp_path: Path, override: str) -> None:
    assert read_run(saved_run(tmp_path), load_config(None, [override]))["epoch"] == 7


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.seed=1", r"train\.seed: 0 in the run, 1 now"),
        ("model.num_kernels=2", r"model\.num_kernels: 4 in the run, 2 now"),
        ("augment.flip=0", r"augment\.flip: 0\.5 in the run, 0\.0 now"),
        ("eval.padding=1.5", r"eval\.padding: 1\.25 in the run, 1\.5 now"),
        ("train.temperature.end=1", r"train\.temperature\.end: 30\.0 in the run, 1\.0 now"),
    ],
)
def test_what_does_is_refused_by_name(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_run(saved_run(tmp_path), load_config(None, [override]))


def test_a_checkpoint_of_weights_alone_is_not_a_run(tmp_path: Path) -> None:
    net = create_model("mobilenetv2_035-bneck", input_size=(32, 64))
    save_checkpoint(tmp_path / LAST, {"network": network_state(net), "epoch": 3})
    with pytest.raises(ValueError, match=r"has no optimizer.*model\.weights="):
        read_run(tmp_path, load_config(None))

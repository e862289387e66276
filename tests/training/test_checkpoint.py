"""Checkpoints: whole or not at all, and only for the experiment that they are of."""

from pathlib import Path

import pytest
import torch

from posedy.config import load_config
from posedy.training.checkpoint import check_same_experiment, save_checkpoint


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


@pytest.mark.parametrize(
    "override",
    ["data.root=/elsewhere", "train.epochs=500", "train.workers=3", "eval.every=1", "eval.flip=false"],
)
def test_what_does_not_change_the_mathematics_may_differ(override: str) -> None:
    check_same_experiment(load_config(None).model_dump(mode="json"), load_config(None, [override]), Path("run"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.seed=1", r"train\.seed: 0 in the run, 1 now"),
        ("model.num_kernels=2", r"model\.num_kernels: 4 in the run, 2 now"),
        ("augment.flip=0", r"augment\.flip: 0\.5 in the run, 0\.0 now"),
        ("train.temperature.end=1", r"train\.temperature\.end: 30\.0 in the run, 1\.0 now"),
    ],
)
def test_what_does_is_refused_by_name(override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_same_experiment(load_config(None).model_dump(mode="json"), load_config(None, [override]), Path("run"))

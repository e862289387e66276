"""The initial network is the one that a training run starts with."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from posedy.config import load_config
from posedy.models.pretrained import load_checkpoint
from posedy.training.trainer import Trainer
from tools.lab.initial_network import main


def test_it_equals_the_network_of_training_before_the_first_step(synthetic: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    overrides = [f"data.root={synthetic}", "model.name=mobilenetv2_035-fpn", "model.input_size=[32,64]", "train.seed=7"]
    main(["--out", str(tmp_path / "initial.pt"), str(write_config(tmp_path)), *overrides])
    net = load_checkpoint(tmp_path / "initial.pt")
    trainer = Trainer(load_config(None, [*overrides, "train.workers=0"]), tmp_path / "run", progress=False)
    expected = trainer.net.state_dict()
    assert net.skeleton == trainer.net.skeleton
    assert net.state_dict().keys() == expected.keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, expected[name].cpu()), name


def test_a_missing_training_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        main([str(write_config(tmp_path)), "data.root=nowhere", "--out", str(tmp_path / "initial.pt")])


def write_config(folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text("train: {epochs: 1}\n")
    return path

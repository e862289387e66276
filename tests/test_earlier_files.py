"""Compatibility with files of version 0.1.0: config, checkpoint and ONNX metadata as it wrote them."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from posedy.config import load_config
from posedy.export.graph_file import GraphInfo
from posedy.models.factory import create_model
from posedy.models.pretrained import load_checkpoint
from posedy.training.checkpoint import LAST, read_run_state
from posedy.training.optim import make_optimizer

SKELETON = {
    "keypoints": ["nose", "left_wrist", "right_wrist"],
    "flip_pairs": [[1, 2]],
    "limbs": [[0, 1], [0, 2]],
    "sigmas": [0.026, 0.062, 0.062],
    "upper_body": None,
}
OPTIONS = {"num_keypoints": 3, "num_kernels": 4, "output": "softmax", "coding": "paper"}
RECORD = {"name": "dy_mobilenetv2_035-bneck", "options": OPTIONS, "input_size": [32, 64], "skeleton": SKELETON}
CONFIG = """
data: {root: drawn, train_annotations: null, train_images: null, val_annotations: null, val_images: null, extra: [],
       boxes: null, skeleton: {flip_pairs: null, limbs: null, sigmas: null, upper_body: null}}
model: {name: dy_mobilenetv2_035-bneck, input_size: [32, 64], num_kernels: 4, options: {}, output: softmax,
        coding: paper, sigma: null, weights: null}
augment: {flip: 0.5, scale_std: 0.0, scale_range: [0.65, 1.35], rotation_std: 45.0, rotation_max: 45.0,
          rotation_probability: 0.0, half_body_probability: 0.0, photometric: []}
train: {epochs: 2, minutes: null, batch_size: 8, accumulation: 1, lr: 0.003, schedule: step, lr_drops: [1],
        warmup_steps: 100, loss: cross_entropy, temperature: {start: 30.0, end: 30.0, epochs: 10}, workers: 0, seed: 0,
        save_every: 1, precision: fp32, ema_decay: null, weight_decay: 0.0, clip_gradients: null,
        freeze_batch_norm: false, teacher: null, teacher_weight: 0.5, cuda_graph: false, sync_batch_norm: false,
        shared_decoding: false, shuffle_buffer: 2048}
eval: {every: 2, flip: true, batch_size: 64, padding: 1.25, box_threshold: 0.0, keypoint_threshold: 0.2, nms: 0.9,
       backend: pycocotools}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with its config and its last checkpoint."""
    net = create_model(RECORD["name"], num_keypoints=3, output="softmax", input_size=(32, 64))
    optimizer = torch.optim.AdamW(
        [{"params": list(net.parameters())[:5], "weight_decay": 0.0}, {"params": list(net.parameters())[5:]}],
        fused=True,
    )
    (tmp_path / "config.yaml").write_text(CONFIG)
    state = {
        **{"epoch": 1, "step": 0, "loss_sum": 0.0, "seconds": 0.0, "seconds_before": 0.9, "numbers": {}, "metrics": {}},
        **{"protocol": "", "evaluated_epoch": 0, "best_ap": None, "scaler": None, "average_steps": 0, "trained": None},
        "network": {"record": RECORD, "tensors": net.state_dict()},
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "config": yaml.safe_load(CONFIG),
        "data": "13 persons, 74ac/11 persons, 8036",
        "processes": 1,
    }
    torch.save(state, tmp_path / LAST)
    return tmp_path


def test_checkpoint_loads_as_a_network(run: Path) -> None:
    net = load_checkpoint(run / LAST)
    assert (net.name, net.input_size, net.codec.name, net.num_keypoints) == (RECORD["name"], (32, 64), "msra", 3)
    assert net.skeleton is not None
    assert net.skeleton.keypoints == ("nose", "left_wrist", "right_wrist")
    assert net.codec.target_sigma == 0.5  # the default at this size, since the file has no sigma


def test_run_resumes_with_its_own_config(run: Path) -> None:
    config = load_config(run / "config.yaml")
    state = read_run_state(run, config, "13 persons, 74ac/11 persons, 8036", 1)
    assert state.epoch == 1
    assert not state.changes
    net = load_checkpoint(run / LAST)
    optimizer = make_optimizer(net, config.train)
    # parameter indices follow the order of the two groups
    state.optimizer["param_groups"] = [
        group | {"params": list(range(begin, begin + len(new["params"])))}
        for group, new, begin in zip(
            state.optimizer["param_groups"],
            optimizer.param_groups,
            (0, len(optimizer.param_groups[0]["params"])),
            strict=True,
        )
    ]
    state.restore(net, optimizer, None)
    assert [group["lr_factor"] for group in optimizer.param_groups] == [1, 1]


def test_onnx_metadata_is_read() -> None:
    metadata = {
        "record": RECORD,
        "version": "0.1.0",
        "batch": 1,
        "runtime": "onnxruntime",
        "decodes": False,
        "flip": False,
    }
    info = GraphInfo.from_json(json.dumps(metadata | {"half": False, "temperature": 30.0}))
    assert (info.input_size, info.num_keypoints, info.codec.name) == ((32, 64), 3, "msra")
    assert info.codec.target_sigma == 0.5

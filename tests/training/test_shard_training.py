"""Training from shards: exact resuming within an epoch, and errors about the configuration."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from posedy.config import Config, ConfigError, load_config
from posedy.data.coco import read_coco
from posedy.data.loaders import SHUFFLED_SHARDS, SampleLoader
from posedy.files import read_csv
from posedy.models.network_file import read_checkpoint
from posedy.training.checkpoint import LAST
from posedy.training.pose_setup import make_batch_sampler, read_training_data
from posedy.training.trainer import Trainer
from tools.lab.person_shards import write_shards

pytest.importorskip("webdataset", reason="writing shards needs webdataset (extra wds)")

Experiment = Callable[..., Config]


@pytest.fixture(scope="module")
def shards(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training set in more shards than the shuffle buffer has."""
    out = tmp_path_factory.mktemp("shards")
    annotations = synthetic / "annotations/person_keypoints_train2017.json"
    write_shards(read_coco(annotations, synthetic / "train2017"), out, per_shard=1, input_size=(32, 64))
    assert len(list(out.glob("*.tar"))) > SHUFFLED_SHARDS
    return out


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_run_resumed_within_an_epoch_equals_an_uninterrupted_run(
    experiment: Experiment, shards: Path, tmp_path: Path, kill_in_epoch_2: Callable[[Trainer], None], workers: int
) -> None:
    """The number of workers may change."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = experiment(f"data.shards={shards}")
    Trainer(config, whole, progress=False).fit()
    trainer = Trainer(experiment(f"data.shards={shards}", "train.save_minutes=0"), killed, progress=False)
    kill_in_epoch_2(trainer)
    Trainer(experiment(f"data.shards={shards}", f"train.workers={workers}"), killed, progress=False).fit()
    expected, resumed = read_checkpoint(whole / LAST), read_checkpoint(killed / LAST)
    for name, tensor in expected["network"]["tensors"].items():
        assert torch.equal(tensor, resumed["network"]["tensors"][name]), name
    assert [row["loss"] for row in read_csv(whole / "metrics.csv")] == [
        row["loss"] for row in read_csv(killed / "metrics.csv")
    ]


def test_shards_of_other_keypoints_are_rejected(experiment: Experiment, synthetic: Path, tmp_path: Path) -> None:
    annotations = synthetic / "annotations/person_keypoints_val2017.json"
    content = json.loads(annotations.read_bytes())
    content["categories"][0]["keypoints"][5:7] = ["right_shoulder", "left_shoulder"]
    renamed = tmp_path / "renamed.json"
    renamed.write_text(json.dumps(content))
    write_shards(read_coco(renamed, synthetic / "val2017"), tmp_path / "shards")
    with pytest.raises(ValueError, match=r"shards/index\.json differ in their keypoints.*right_shoulder"):
        read_training_data(experiment(f"data.shards={tmp_path / 'shards'}"), print)


def test_summary_and_warnings_are_logged(experiment: Experiment, shards: Path) -> None:
    messages: list[str] = []
    data = read_training_data(experiment(f"data.shards={shards}", "model.input_size=[96, 128]"), messages.append)
    assert f"{len(data.train)} persons in {len(data.train)} shards\n  warning:" in messages[0]
    assert "64x32" in messages[0]


def test_shards_are_combined_with_persons_without_keypoints(
    experiment: Experiment, synthetic: Path, shards: Path
) -> None:
    boxes = f"{{annotations: {synthetic}/annotations/person_keypoints_val2017.json, images: {synthetic}/val2017}}"
    config = experiment(f"data.shards={shards}", f"data.unlabeled=[{boxes}]")
    data = read_training_data(config, print)
    batches = list(SampleLoader(data.samples, make_batch_sampler(config, data, 0, 1)).epoch(0))
    assert len({int(number) for batch in batches for number in batch["annotation_id"]}) == len(data.train)
    assert all(len(batch["easy_crop"]) == config.train.batch_size for batch in batches)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("data.train_annotations=a.json", r"data\.train_annotations=null"),
        ("data.extra=[{annotations: a.json, images: a}]", r"data\.extra=\[\]"),
    ],
)
def test_shards_and_coco_files_exclude_each_other(override: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"data.*shards.*{text}"):
        load_config(None, ["data.shards=folder", override])

"""Training of classifiers: loss, metrics, exact resuming, bad folders, and a pose network that starts from one."""

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from posedy.cli.main import main
from posedy.config import ClassifierConfig, ClassifierEvalConfig, ConfigError, load_classifier_config
from posedy.data.datasets import SampleIndex
from posedy.data.image_folder import ClassifierEvalDataset, ClassifierTrainDataset, LabeledImages
from posedy.evaluation.classifier_eval import ClassifierTest, _ranks
from posedy.models.dynamic_conv import DynamicConv2d
from posedy.models.factory import create_classifier, create_model
from posedy.models.network_file import network_state, read_checkpoint, write_checkpoint
from posedy.models.pretrained import load_checkpoint, load_classifier
from posedy.models.registry import list_backbones
from posedy.models.transfer import load_pretrained
from posedy.training.checkpoint import BEST, LAST
from posedy.training.classifier_task import ClassifierStep, ClassifierTask
from posedy.training.distributed import DistributedContext
from posedy.training.interrupt import TrainingInterruptedError
from posedy.training.optim import learning_rate, lr_milestones, make_optimizer
from posedy.training.trainer import Trainer
from tests.training.test_distributed import launch

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "imagenet").glob("*.yaml"))
PAPER_NAMES = {
    f"{prefix}{name}"
    for prefix in ("", "dy_")
    for name in (
        *(f"mobilenetv2_{width}" for width in ("100", "075", "050", "035")),
        *("mobilenetv3_small", "resnet18", "resnet10"),
    )
}
QUICK = ("model.input_size=32", "model.options={depth: 0.34}", "train.batch_size=8", "train.workers=0")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 images of two classes: red and blue noise of different sizes."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for channel, name in ((0, "blue"), (2, "red")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 100, (40 + index, 60 - index, 3), dtype=np.uint8)
                image[..., channel] += 120
                cv2.imwrite(str(root / split / name / f"{index}.png"), image)
    return root


@pytest.fixture
def classifier(folder: Path) -> Callable[..., ClassifierConfig]:
    """Returns a function that makes configurations of a quick experiment."""

    def make(*overrides: str) -> ClassifierConfig:
        base = [f"data.root={folder}", "model.name=dy_mobilenetv2_035", "train.epochs=2", *QUICK]
        return load_classifier_config(None, [*base, *overrides])

    return make


def fit(config: ClassifierConfig, run: Path, **options: int) -> dict[str, float]:
    return Trainer(config, run, progress=False, make_task=ClassifierTask).fit(**options)


def test_kernels_may_start_equal(classifier: Callable[..., ClassifierConfig]) -> None:
    config = classifier("train.equal_kernels=true")
    net = ClassifierTask(config, DistributedContext(config.train)).build_network(None)
    layers = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    assert layers
    assert all(torch.equal(layer.weight[0], kernel) for layer in layers for kernel in layer.weight)


# section 5.1: epochs, lr, weight decay, dropout, label smoothing, mixup
RECIPES = {
    "resnet10": (100, 0.1, 1e-4, 0, 0, 0),
    "resnet18": (100, 0.1, 1e-4, 0.1, 0, 0),
    "mobilenetv2_035": (300, 0.05, 4e-5, 0, 0, 0),
    "mobilenetv2_050": (300, 0.05, 4e-5, 0, 0, 0),
    "mobilenetv2_075": (300, 0.05, 4e-5, 0.1, 0.1, 0),
    "mobilenetv2_100": (300, 0.05, 4e-5, 0.2, 0.1, 0.2),
    "mobilenetv3_small": (300, 0.1, 3e-5, 0.2, 0, 0),
}


@pytest.mark.slow
def test_recipes_are_those_of_section_5_1() -> None:
    for path in CONFIGS:
        config = load_classifier_config(path)
        train = config.train
        regularization = (config.model.dropout, train.label_smoothing, config.augment.mixup)
        assert (train.epochs, train.lr, train.weight_decay, *regularization) == RECIPES[path.stem.removeprefix("dy_")]
        rates = [learning_rate(train, epoch, steps_per_epoch=1) / train.lr for epoch in range(train.epochs)]
        if "resnet" in path.stem:
            expected = [0.1 ** sum(epoch >= drop for drop in (30, 60, 90)) for epoch in range(100)]
        else:
            expected = [(1 + math.cos(math.pi * epoch / 300)) / 2 for epoch in range(300)]
        assert rates == pytest.approx(expected)
        assert (train.warmup_steps, train.clip_gradients, train.ema_decay, train.lr_factors) == (0, None, None, {})


@pytest.mark.slow
def test_configurations_are_those_of_table_8() -> None:
    assert {path.stem for path in CONFIGS} == PAPER_NAMES <= set(list_backbones())
    for path in CONFIGS:
        config = load_classifier_config(path)
        assert config.model.name == path.stem
        assert (config.train.batch_size, config.train.optimizer, config.model.input_size) == (256, "sgd", 224)
        assert config.train.temperature.model_dump() == {"start": 30, "end": 1, "epochs": 10}


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_epoch_of_each_configuration_runs(path: Path, folder: Path, tmp_path: Path) -> None:
    small = ["model.input_size=64", "train.batch_size=16", "train.workers=0", "train.epochs=1"]
    metrics = fit(load_classifier_config(path, [f"data.root={folder}", *small]), tmp_path)
    assert 0 <= metrics["top1"] <= metrics["top5"] == 1
    assert load_classifier(tmp_path / BEST).name == path.stem


@pytest.mark.slow
def test_a_network_learns_two_colors(classifier: Callable[..., ClassifierConfig], tmp_path: Path) -> None:
    config = classifier("train.epochs=6", "train.optimizer=adam", "train.lr=0.003", "train.schedule=cosine")
    assert fit(config, tmp_path)["top1"] > 0.9  # of 16 images
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {"images_per_second", "top1", "top5", "attention_entropy"} <= set(header.split(","))
    assert len(rows) == 6
    net = load_classifier(tmp_path / BEST)
    assert net.classes == ("blue", "red")
    assert not net.training


RANDOM = ("model.dropout=0.2", "augment.mixup=0.2", "train.label_smoothing=0.1")


@pytest.mark.slow
def test_an_interrupted_run_resumes_bit_exactly(
    classifier: Callable[..., ClassifierConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = classifier(*RANDOM, "train.ema_decay=0.9", "train.batch_size=12")
    fit(config, tmp_path / "whole")
    trainer = Trainer(config, tmp_path / "parts", progress=False, make_task=ClassifierTask)
    step = Trainer._should_stop
    monkeypatch.setattr(Trainer, "_should_stop", lambda self, signal: self.state.step == 2 or step(self, signal))
    with pytest.raises(TrainingInterruptedError):
        trainer.fit()
    monkeypatch.undo()
    fit(config, tmp_path / "parts")
    whole, parts = (read_checkpoint(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert whole["metrics"] == parts["metrics"]
    for key in ("trained", "network"):
        ours, theirs = (entry[key] if key == "trained" else entry[key]["tensors"] for entry in (parts, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


TRAIN = "import sys; from posedy.cli.main import main; sys.exit(main(['train-classifier', *sys.argv[1:]]))"


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one(classifier: Callable[..., ClassifierConfig], tmp_path: Path) -> None:
    config = classifier("train.freeze_batch_norm=true", "train.epochs=1")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    (tmp_path / "train.py").write_text(TRAIN)
    for processes in (1, 2):
        arguments = (tmp_path / "config.yaml", "--out", tmp_path / str(processes))
        done: subprocess.CompletedProcess[str] = launch(tmp_path / "train.py", *arguments, processes=processes)
        assert done.returncode == 0, done.stderr
    one, two = (read_checkpoint(tmp_path / str(processes) / LAST) for processes in (1, 2))
    assert one["metrics"] == two["metrics"]
    for name, tensor in one["network"]["tensors"].items():
        torch.testing.assert_close(two["network"]["tensors"][name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_is_smoothed_cross_entropy(classifier: Callable[..., ClassifierConfig], accumulation: int) -> None:
    config = classifier("train.label_smoothing=0.1", f"train.accumulation={accumulation}")
    net = create_classifier("mobilenetv2_035", ["a", "b", "c"], depth=0.34).eval()
    step = ClassifierStep(net, make_optimizer(net, config.train), None, config, DistributedContext(config.train), 3)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    labels, weights = torch.tensor([0, 2, 1, 0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    losses = step.losses({"image": images, "label": labels, "weight": weights}, num_samples=3)
    assert len(losses) == accumulation
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = net((images[:3] / 255 - mean[:, None, None]) / std[:, None, None])
    expected = F.cross_entropy(logits, labels[:3], label_smoothing=0.1)
    torch.testing.assert_close(sum(loss() for loss in losses), expected)


def test_mixup_mixes_images_and_targets_in_equal_parts(
    classifier: Callable[..., ClassifierConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = classifier("augment.mixup=1")
    net = create_classifier("mobilenetv2_035", ["a", "b"], depth=0.34).eval()
    step = ClassifierStep(net, make_optimizer(net, config.train), None, config, DistributedContext(config.train), 2)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(step, "wrapped_net", lambda images: seen.append(images) or torch.zeros(len(images), 2))
    images = torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 255)]).to(torch.uint8).repeat(8, 1, 1, 1)
    batch = {"image": images, "label": torch.tensor([0, 1] * 8), "weight": torch.ones(16)}
    (loss,) = step.losses(batch, num_samples=16)
    (_, targets), _ = loss.args
    loss()
    share = seen[0][:, 0, 0, 0] * 0.229 + 0.485  # from 0, black, to 1, white
    torch.testing.assert_close(targets[:, 1], share, atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(16))
    assert len(share.round(decimals=4).unique()) > 2


def test_samples_depend_on_seed_epoch_and_index_alone(
    folder: Path, classifier: Callable[..., ClassifierConfig]
) -> None:
    images, augment = LabeledImages.read(folder, "train"), classifier().augment
    one, two = (ClassifierTrainDataset(images, 32, augment, seed=3) for _ in range(2))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sample = one[SampleIndex(1, 7)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(sample["image"], two[SampleIndex(1, 7)]["image"])
    assert not torch.equal(sample["image"], one[SampleIndex(2, 7)]["image"])
    assert sample["image"].shape == (3, 32, 32)
    assert one[SampleIndex(0, 7, is_padding=True)]["weight"] == 0


def test_top_5_counts_ties_and_nan_against_the_network() -> None:
    logits = torch.randn(200, 11, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 11
    expected = np.array([(row > row[label]).sum() for row, label in zip(logits.numpy(), labels, strict=True)])
    np.testing.assert_array_equal(_ranks(logits, labels).numpy(), expected)
    assert _ranks(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([0])).tolist() == [1]
    assert _ranks(torch.full((1, 7), torch.nan), torch.tensor([0])).tolist() == [7]


def test_the_command_writes_metrics_with_their_protocol(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = create_classifier("mobilenetv2_035", ["blue", "red"], depth=0.34, input_size=(32, 32))
    write_checkpoint({"network": {"record": {}, "tensors": {}}}, tmp_path / "empty.pt")
    write_checkpoint({"network": network_state(net)}, tmp_path / "net.pt")
    assert main(["test-classifier", str(tmp_path / "net.pt"), str(folder), "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["images"] == 16
    assert "central crop of 32x32 of images resized to 37" in record["protocol"]
    assert f"top1 {record['top1']:.4f}" in capsys.readouterr().out
    assert main(["test-classifier", str(tmp_path / "net.pt"), str(folder), "--resize", "1.5"]) == 0
    assert "resized to 48" in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert main(["test-classifier", str(tmp_path / "net.pt"), str(folder), "--out", str(tmp_path / "file")]) == 1
    assert "top1" not in capsys.readouterr().out  # the error comes before the test
    assert main(["test-classifier", str(tmp_path / "empty.pt"), str(folder)]) == 1
    assert "contains no classifier" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "val").rename(root / "valid"),
            "expected folders of classes in .*/val .*ROOT has train, valid",
        ),
        (lambda root: (root / "train/green").mkdir(), "the class 'green' has no images"),
        (lambda root: (root / "val/red").rename(root / "val/rot"), "train has no class 'rot', which .*val has"),
        (lambda root: (root / "train/red/3.png").write_bytes(b"no image"), "3.png"),
        (lambda root: shutil.rmtree(root / "train/red"), "train: .*at least two classes, got 'blue'"),
        (lambda root: [shutil.rmtree(root / "val" / name) for name in ("red", "blue")], "val: .*two classes, got none"),
    ],
)
def test_a_bad_folder_gives_one_clear_message(
    damage: Callable[[Path], object], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(folder, root)
    damage(root)
    overrides = [f"data.root={root}", "model.name=mobilenetv2_035", *QUICK]
    assert main(["train-classifier", str(CONFIGS[0]), *overrides, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert re.search(message, error)


def test_hidden_files_and_folders_are_no_images(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(folder, root)
    expected = LabeledImages.read(root, "val")
    image = (root / "val/red/0.png").read_bytes()
    for name in (".ipynb_checkpoints/0.png", "red/.thumbnails/0.png", "red/._0.png"):
        (root / "val" / name).parent.mkdir(exist_ok=True)
        (root / "val" / name).write_bytes(image)
    (root / "val/red/notes.txt").touch()
    read = LabeledImages.read(root, "val")
    assert (read.classes, read.paths, read.labels) == (expected.classes, expected.paths, expected.labels)
    (root / "val/red/0.png").rename(root / "val/red/0.jfif")
    assert len(LabeledImages.read(root, "val")) == len(expected)


def test_names_that_are_not_utf8_have_a_fingerprint(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(folder, root)
    before = LabeledImages.read(root, "val").fingerprint
    try:
        (root / "val/red/0.png").rename(root / "val/red" / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("the file system takes names in UTF-8 only")
    assert LabeledImages.read(root, "val").fingerprint not in (before, "")


def test_labels_are_in_the_order_of_the_networks_outputs(folder: Path, tmp_path: Path) -> None:
    (folder_copy := tmp_path / "root").mkdir()
    for name, count in (("a", 1), ("b", 4)):
        (folder_copy / "val" / name).mkdir(parents=True)
        for index in range(count):
            shutil.copy(folder / "val/red/0.png", folder_copy / "val" / name / f"{index}.png")
    net = create_classifier("mobilenetv2_035", ["b", "a"], depth=0.34, input_size=(32, 32))
    torch.nn.init.constant_(net.backbone.classifier[-1].bias, 0)
    net.backbone.classifier[-1].bias.data[0] = 100  # always "b"
    write_checkpoint({"network": network_state(net)}, tmp_path / "net.pt")
    out = tmp_path / "metrics.json"
    assert main(["test-classifier", str(tmp_path / "net.pt"), str(folder_copy), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["top1"] == 0.8


def test_shuffled_images_keep_their_labels(folder: Path) -> None:
    images = LabeledImages.read(folder, "train")
    shuffled = images.shuffled()
    pairs, expected = (list(zip(split.paths, split.labels, strict=True)) for split in (shuffled, images))
    assert sorted(pairs) == sorted(expected)
    changes = sum(a != b for a, b in zip(shuffled.labels, shuffled.labels[1:], strict=False))
    assert changes > len(images) / 4  # 1 in the order of the classes
    assert shuffled.paths == images.shuffled().paths


@pytest.fixture
def gradients(tmp_path: Path) -> LabeledImages:
    """A wide and a tall image whose red is the row, whose green is the column, and whose blue is constant."""
    for name, shape in (("tall", (48, 37)), ("wide", (37, 50))):
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        (tmp_path / "val" / name).mkdir(parents=True)
        image = np.stack([np.full(shape, 200), columns, rows], axis=-1).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "val" / name / "0.png"), image)
    return LabeledImages.read(tmp_path, "val")


def test_evaluated_crops_are_central(gradients: LabeledImages) -> None:
    """Also if the margins are odd; the images have the size to which they are resized."""
    dataset = ClassifierEvalDataset(gradients, 32, 37 / 32)
    assert [dataset[index]["label"] for index in range(2)] == [0, 1]
    for index, (height, width) in enumerate([(48, 37), (37, 50)]):
        red, green, blue = dataset[index]["image"].int()
        top, left = int(red[0, 0]), int(green[0, 0])
        assert abs(2 * top - (height - 32)) <= 1
        assert abs(2 * left - (width - 32)) <= 1
        rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        assert torch.equal(red, (top + rows).int())
        assert torch.equal(green, (left + columns).int())
        assert (blue == 200).all()


class MeanColor(torch.nn.Module):
    """A classifier with 3 logits, the means of the channels of a crop, which records its crops."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(3))
        self.crops: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.crops.append(x)
        return x.mean(dim=(2, 3)) + self.bias


def test_classifiers_are_evaluated_on_normalized_rgb(gradients: LabeledImages) -> None:
    net = MeanColor()
    config = ClassifierEvalConfig(resize=37 / 32, batch_size=2)
    test = ClassifierTest(gradients, 32, config, DistributedContext(load_classifier_config(None).train).accelerator)
    ranks = test.predict_ranks(net)
    dataset = ClassifierEvalDataset(gradients, 32, 37 / 32)
    rgb = torch.stack([dataset[index]["image"] for index in range(2)]).double() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (rgb - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(torch.cat(net.crops).double(), expected, rtol=0, atol=1e-5)
    own = expected.mean(dim=(2, 3))
    assert ranks.tolist() == [int((own[index] > own[index, index]).sum()) for index in range(2)]


def test_the_default_schedule_scales_with_the_epochs(classifier: Callable[..., ClassifierConfig]) -> None:
    assert lr_milestones(load_classifier_config(None).train) == [30, 60, 90]
    assert lr_milestones(classifier("train.epochs=10").train) == [3, 6, 9]
    assert lr_milestones(classifier("train.epochs=10", "train.lr_drops=[8]").train) == [8]


@pytest.mark.parametrize("name", [pytest.param("mobilenetv2_035", marks=pytest.mark.slow), "dy_mobilenetv2_035"])
def test_a_classifier_is_a_start_for_pose_training(name: str, tmp_path: Path) -> None:
    source = create_classifier("mobilenetv2_035", ["a", "b"], depth=0.34)
    write_checkpoint({"network": network_state(source)}, tmp_path / "net.pt")
    net = create_model(f"{name}-bneck", depth=0.34)
    assert "the backbone of the classifier mobilenetv2_035" in load_pretrained(net, tmp_path / "net.pt")
    x = torch.randn(2, 3, 64, 64)
    features = [backbone.eval().features(x)[-1] for backbone in (source.backbone, net.backbone)]
    torch.testing.assert_close(features[1], features[0], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="expected a classifier with the backbone resnet18, got mobilenetv2_035"):
        load_pretrained(create_model("resnet18-bneck"), tmp_path / "net.pt")
    with pytest.raises(ValueError, match="contains the classifier mobilenetv2_035, no pose network"):
        load_checkpoint(tmp_path / "net.pt")


def test_training_starts_from_a_classifier_of_other_classes(
    classifier: Callable[..., ClassifierConfig], tmp_path: Path
) -> None:
    source = create_classifier("mobilenetv2_035", ["a", "b", "c"], depth=0.34)
    write_checkpoint({"network": network_state(source)}, tmp_path / "net.pt")
    config = classifier(f"model.weights={tmp_path / 'net.pt'}")
    net = Trainer(config, tmp_path / "run", progress=False, make_task=ClassifierTask).net
    stem = "backbone.stem.0.weight"
    assert torch.equal(net.state_dict()[stem], source.state_dict()[stem])


def test_the_log_of_pretrained_weights_counts_what_was_loaded_and_warns_of_the_temperature(
    classifier: Callable[..., ClassifierConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = create_classifier("dy_mobilenetv2_035", ["a", "b", "c"], depth=0.34, temperature=1)
    write_checkpoint({"network": network_state(source)}, tmp_path / "net.pt")
    config = classifier(f"model.weights={tmp_path / 'net.pt'}")
    ClassifierTask(config, DistributedContext(config.train)).build_network(config.model.weights)
    printed = capsys.readouterr().out
    assert f"{len(source.state_dict()) - 2} tensors copied; did not load the last layer" in printed
    assert "the pretrained weights have temperature 1, training starts at 30" in printed


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        *(("dropout: 0.1", "set model.dropout"), ("temperature: 5", "set train.temperature")),
        *(("num_classes: 10", "folders define"), ("in_channels: 1", "3 channels"), ("num_kernels: 2", "model.num_k")),
    ],
)
def test_options_that_other_keys_set_are_rejected(option: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"options: {option.split(':')[0]} is not an option.*{remedy}"):
        load_classifier_config(None, [f"model.options={{{option}}}"])


def test_models_counts_a_trained_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = create_classifier("dy_mobilenetv2_035", ["a", "b"], input_size=(96, 96))
    path = tmp_path / "net.pt"
    write_checkpoint({"network": network_state(net)}, path)
    assert main(["models", str(path), "dy_mobilenetv2_035", "--json", str(tmp_path / "models.json")]) == 0
    trained, of_imagenet = json.loads((tmp_path / "models.json").read_text())["models"]
    last_layer = 1280 + 1  # weights and bias of a class
    assert trained["parameters"] == sum(parameter.numel() for parameter in net.parameters())
    assert of_imagenet["parameters"] - trained["parameters"] == 998 * last_layer
    assert (trained["input_size"], of_imagenet["input_size"]) == ([96, 96], [224, 224])
    assert "96x96, 2 classes" in capsys.readouterr().out
    assert main(["models", str(tmp_path / "absent.pt")]) == 1

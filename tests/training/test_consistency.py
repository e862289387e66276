"""Consistency loss: geometry of the targets, cutout, exact gradients and resuming, no collapse, invalid options."""

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posedy.codecs import HeatmapCodec, create_codec
from posedy.config import Config, ConfigError, TrainConfig
from posedy.data.datasets import TopDownEvalDataset
from posedy.files import read_csv
from posedy.geometry import FloatArray, apply_affine, image_to_crop_matrix, invert_affine
from posedy.models.factory import create_model
from posedy.models.network_file import read_checkpoint
from posedy.models.pose_net import IMAGENET_MEAN, PoseNet, normalize_crops
from posedy.skeleton import COCO17
from posedy.training.checkpoint import LAST
from posedy.training.consistency import (
    LABELED,
    STUDENT,
    TEACHER,
    Consistency,
    cut_out,
    describe_collapse,
    map_heatmaps,
)
from posedy.training.distributed import DistributedContext
from posedy.training.optim import make_optimizer
from posedy.training.pose_setup import make_batch_sampler, read_training_data
from posedy.training.step import PoseStep
from posedy.training.trainer import Trainer, TrainingInterruptedError
from tools.lab.synthetic import generate_dataset

from .test_distributed import TRAIN_AND_EVALUATE, launch

Experiment = Callable[..., Config]
SIZE = (96, 128)
GRAY = [round(255 * mean) for mean in IMAGENET_MEAN]


def codec(name: str, sigma: float = 3.0) -> HeatmapCodec:
    created = create_codec(name, SIZE, sigma)
    assert isinstance(created, HeatmapCodec)
    return created


def compose(second: FloatArray, first: FloatArray) -> FloatArray:
    return second @ np.vstack([first, [0, 0, 1]])


def gaussian(codec: HeatmapCodec, keypoint: FloatArray, sigma: float) -> Tensor:
    """A Gaussian in the heatmap around a keypoint in crop pixels, neither rounded nor clipped."""
    x, y = apply_affine(invert_affine(codec.heatmap_to_crop_matrix().numpy()), [keypoint])[0]
    columns, rows = (torch.arange(size, dtype=torch.float64) for size in codec.heatmap_size)
    return torch.exp(-((columns - x) ** 2 + (rows[:, None] - y) ** 2) / (2 * sigma**2)).float()


@pytest.mark.parametrize("name", ["msra", "unbiased"])
@pytest.mark.parametrize(
    ("scale", "rotation", "flip"), [(1, 0, False), (1, 40, False), (1, -60, True), (1.3, 0, True), (0.7, 25, False)]
)
def test_mapped_heatmap_is_that_of_the_mapped_keypoint(name: str, scale: float, rotation: float, flip: bool) -> None:
    coder = codec(name)
    center = np.array([200.0, 300.0])
    easy = image_to_crop_matrix(center, np.array([150.0, 200.0]), SIZE, rotation=-10)
    hard = image_to_crop_matrix(center + np.array([5, -3]), np.array([150.0, 200.0]) * scale, SIZE, rotation, flip)
    easy_to_hard = compose(hard, invert_affine(easy))
    for keypoint in ([200.0, 300.0], [180.0, 280.0], [222.5, 331.5]):
        in_easy, in_hard = apply_affine(easy, [keypoint])[0], apply_affine(hard, [keypoint])[0]
        heatmap = gaussian(coder, in_easy, 3.0)
        mapped = map_heatmaps(heatmap[None, None], torch.tensor(invert_affine(easy_to_hard))[None].float(), coder)
        expected = gaussian(coder, in_hard, 3.0 / scale)
        # bilinear interpolation lowers a Gaussian's peak by up to 1 / (4 sigma^2)
        inside = source_mask(coder, easy_to_hard)
        assert (mapped[0, 0] - expected)[inside].abs().max() < 0.06
        peak = np.array(np.unravel_index(int(mapped.argmax()), mapped.shape[2:])[::-1])
        expected_peak = np.array(np.unravel_index(int(expected.argmax()), expected.shape)[::-1])
        assert np.abs(peak - expected_peak).max() <= 1


def source_mask(codec: HeatmapCodec, easy_to_hard: FloatArray) -> Tensor:
    """The mask of heatmap pixels of the hard crop that lie inside the easy crop."""
    to_crop = codec.heatmap_to_crop_matrix().numpy()
    width, height = codec.heatmap_size
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    source = apply_affine(
        compose(invert_affine(to_crop), compose(invert_affine(easy_to_hard), to_crop)), pixels
    ).reshape(height, width, 2)
    return torch.tensor(((source >= 0) & (source <= [width - 1, height - 1])).all(axis=-1))


@pytest.mark.parametrize("name", ["msra", "unbiased"])
def test_identity_keeps_heatmaps_exactly(name: str) -> None:
    heatmaps = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    torch.testing.assert_close(map_heatmaps(heatmaps, identity, codec(name)), heatmaps, rtol=0, atol=1e-4)


def test_cutout_covers_squares_around_the_chosen_keypoints() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (2, 32, 24, 3), generator=generator, dtype=torch.uint8)
    keypoints = torch.tensor([[[5.0, 7.0], [22.6, 30.2], [12.0, 12.0]], [[-3.0, 4.0], [11.5, 20.5], [40.0, 60.0]]])
    is_covered = torch.tensor([[True, True, False], [True, True, True]])
    expected = crops.clone()
    for image, keypoint in itertools.product(range(2), range(3)):
        x, y = keypoints[image, keypoint].tolist()
        for row, column in itertools.product(range(32), range(24)):
            if is_covered[image, keypoint] and abs(column - x) <= 3 and abs(row - y) <= 3:
                expected[image, row, column] = torch.tensor(GRAY, dtype=torch.uint8)
    before = crops.clone()
    assert torch.equal(cut_out(crops, keypoints, is_covered, 6.0), expected)
    assert torch.equal(crops, before)


class KnownTeacher(nn.Module):
    """Predicts given heatmaps for any crops."""

    def __init__(self, heatmaps: Tensor) -> None:
        super().__init__()
        self.heatmaps = heatmaps

    def forward(self, x: Tensor) -> Tensor:
        return self.heatmaps


@pytest.mark.parametrize("is_easy_flipped", [False, True])
@pytest.mark.parametrize("is_hard_flipped", [False, True])
def test_targets_are_those_of_the_persons_keypoints(is_easy_flipped: bool, is_hard_flipped: bool) -> None:
    """A perfect teacher gives the targets of labels: left and right are swapped if one of the crops is flipped."""
    rng, coder = np.random.default_rng(0), codec("unbiased", 2.0)
    keypoints = rng.uniform([150, 230], [250, 370], (17, 2))
    keypoints[3] = [305, 300]  # inside the easy crop, outside the hard crop
    center, size = np.array([200.0, 300.0]), np.array([150.0, 200.0])
    matrices = [
        image_to_crop_matrix(center, size * scale, SIZE, rotation, flip)
        for scale, rotation, flip in ((1.5, 5, is_easy_flipped), (0.7, -10, is_hard_flipped))
    ]
    in_easy, in_hard = (
        apply_affine(matrix, keypoints)[list(COCO17.flip_permutation) if flip else slice(None)]
        for matrix, flip in zip(matrices, (is_easy_flipped, is_hard_flipped), strict=True)
    )
    as_batch = torch.tensor(in_easy)[None].float(), torch.ones(1, 17)
    heatmaps, _ = coder.encode(*as_batch)
    heatmaps[:, 5] *= 0.1  # below min_score
    swapped = is_easy_flipped != is_hard_flipped
    low = COCO17.flip_permutation[5] if swapped else 5
    easy_to_hard = compose(matrices[1], invert_affine(matrices[0]))
    is_covered = torch.zeros(1, 17, dtype=torch.bool)
    is_covered[0, 8] = True
    hard_crop = torch.full((1, 128, 96, 3), 255, dtype=torch.uint8)
    config = TrainConfig.model_validate({"consistency": {"weight": 0.5, "cutout_size": 0.1}, "batch_size": 1})
    consistency = Consistency(
        KnownTeacher(heatmaps), coder, config, COCO17.flip_permutation, DistributedContext(config)
    )
    crops, targets, weights, normalizer = consistency.prepare_batch(
        {
            "easy_crop": torch.zeros(1, 128, 96, 3, dtype=torch.uint8),
            "hard_crop": hard_crop,
            "easy_to_hard": torch.tensor(easy_to_hard)[None].float(),
            "hard_to_easy": torch.tensor(invert_affine(easy_to_hard))[None].float(),
            "is_swapped": torch.tensor([swapped]),
            "is_covered": is_covered,
        }
    )
    _, expected_weights = coder.encode(torch.tensor(in_hard)[None].float(), torch.ones(1, 17))
    assert expected_weights.sum() == 16
    expected_weights[0, low] = 0
    assert torch.equal(weights, expected_weights)
    decoded, _ = coder.decode({"heatmaps": targets})
    border = 20  # decoding is less accurate where a heatmap is cut off
    checked = (weights[0] > 0).numpy() & ((in_hard > border) & (in_hard < np.array(SIZE) - border)).all(axis=1)
    assert checked.sum() >= 5
    assert np.abs(decoded[0].numpy() - in_hard)[checked].max() < 1
    is_gray = (crops[0] == torch.tensor(GRAY)).all(dim=-1)
    rows, columns = is_gray.nonzero(as_tuple=True)
    np.testing.assert_allclose([columns.float().mean(), rows.float().mean()], in_hard[8], atol=1)
    assert 70 < is_gray.sum() < 120
    assert float(normalizer) == 17 * 32 * 24 / 0.5


def network(output: str = "linear", seed: int = 0) -> PoseNet:
    torch.manual_seed(seed)
    net = create_model(
        "mobilenetv2_035-fpn", input_size=(32, 64), output=output, sigma=1.0, skeleton=COCO17, depth=0.34
    )
    with torch.no_grad():
        net.head.heatmap.weight.mul_(1000)
    return net


def batch(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(6, 2, 3)
    crops = torch.randint(0, 256, (3, 6, 64, 32, 3), generator=generator, dtype=torch.uint8)
    return {
        **{"crop": crops[0], "easy_crop": crops[1], "hard_crop": crops[2]},
        "keypoints": torch.rand(6, 17, 2, generator=generator) * torch.tensor([32.0, 64.0]),
        "labeled": torch.rand(6, 17, generator=generator) < 0.7,
        **{"easy_to_hard": identity, "hard_to_easy": identity},
        "is_swapped": torch.rand(6, generator=generator) < 0.5,
        "is_covered": torch.rand(6, 17, generator=generator) < 0.3,
    }


def gradients_of_step(
    monkeypatch: pytest.MonkeyPatch, with_consistency: bool, output: str = "linear", **settings: object
) -> tuple[float, dict[str, Tensor], Consistency]:
    """The loss and the gradients of a step with frozen batch norm."""
    net = network(output)
    config = TrainConfig.model_validate({"batch_size": 6, "freeze_batch_norm": True, **settings})
    context = DistributedContext(config)
    assert isinstance(net.codec, HeatmapCodec)
    consistency = Consistency(network(output, seed=5), net.codec, config, COCO17.flip_permutation, context)
    used = consistency if with_consistency else None
    step = PoseStep(net, make_optimizer(net, config), None, net.codec, config, context, None, used)
    step.set_train_mode()
    gradients: dict[str, Tensor] = {}

    def record_gradients() -> None:
        gradients.update({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})

    monkeypatch.setattr(step.optimizer, "step", record_gradients)
    loss = float(step(batch(), 6, 1e-3))
    return loss, gradients, consistency


@pytest.mark.parametrize(
    ("loss", "output"), [("mse", "linear"), pytest.param("cross_entropy", "softmax", marks=pytest.mark.slow)]
)
def test_consistency_adds_its_weighted_gradient(loss: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gradients_of_step(monkeypatch, False, output, loss=loss)
    losses, gradients = [], []
    for weight in (0.5, 1.0):
        settings = {"loss": loss, "consistency": {"weight": weight, "min_score": 0}}
        value, gradient, _ = gradients_of_step(monkeypatch, True, output, **settings)
        losses.append(value - plain[0])
        gradients.append({name: gradient[name] - plain[1][name] for name in gradient})
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-3)
    assert losses[1] > 0.01 * plain[0]
    total = torch.stack([gradient.norm() for gradient in gradients[1].values()]).norm()
    assert total > 0
    for name in gradients[0]:
        assert (gradients[1][name] - 2 * gradients[0][name]).norm() < 1e-3 * total, name


def test_accumulation_gives_the_gradients_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"consistency": {"min_score": 0}}
    whole_loss, whole, _ = gradients_of_step(monkeypatch, True, accumulation=1, **settings)
    loss, gradients, _ = gradients_of_step(monkeypatch, True, accumulation=3, **settings)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    total = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    assert all((gradients[name] - whole[name]).norm() < 1e-3 * total for name in whole)


def test_teacher_has_no_gradient_and_keeps_its_mode_and_statistics() -> None:
    net = network()
    config = TrainConfig(batch_size=6)
    assert isinstance(net.codec, HeatmapCodec)
    consistency = Consistency(net, net.codec, config, COCO17.flip_permutation, DistributedContext(config))
    net.train()
    net.backbone.eval()
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    _, targets, _, _ = consistency.prepare_batch(batch())
    assert not targets.requires_grad
    assert net.head.training
    assert not any(module.training for module in net.backbone.modules())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in net.named_buffers())


def test_weight_grows_linearly_over_the_first_epochs() -> None:
    net = network()
    for ramp_up, expected in ((4, [0.5, 1.0, 1.5, 2.0, 2.0]), (0, [2.0, 2.0])):
        config = TrainConfig.model_validate({"consistency": {"weight": 2.0, "ramp_up_epochs": ramp_up}})
        assert isinstance(net.codec, HeatmapCodec)
        consistency = Consistency(net, net.codec, config, COCO17.flip_permutation, DistributedContext(config))
        weights = []
        for epoch in range(len(expected)):
            consistency.start_epoch(epoch)
            weights.append(consistency.weight)
        assert weights == expected


def test_collapse_is_reported() -> None:
    healthy = {LABELED: 0.8, STUDENT: 0.5, TEACHER: 0.6}
    assert describe_collapse(healthy) is None
    for name in (STUDENT, TEACHER):
        warning = describe_collapse(healthy | {name: 0.1})
        assert warning is not None
        assert f"{name} 0.100" in warning


@pytest.fixture
def unlabeled(synthetic: Path) -> str:
    annotations, images = synthetic / "annotations/person_keypoints_train2017.json", synthetic / "train2017"
    return f"data.unlabeled=[{{annotations: {annotations}, images: {images}}}]"


@pytest.mark.slow
@pytest.mark.parametrize("ema", [True, False])
def test_interrupted_run_resumes_exactly(
    experiment: Experiment, unlabeled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: bool
) -> None:
    config = experiment(
        *(unlabeled, "train.consistency={batch_size: 5, min_score: 0, ramp_up_epochs: 3}", "model.sigma=1"),
        *(["train.ema_decay=0.9"] if ema else []),
    )
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    Trainer(config, whole, progress=False).fit()
    trainer = Trainer(config, halves, progress=False)
    step = trainer._train_step

    def interrupted_step(batch: dict[str, Tensor], num_samples: int, lr: float) -> None:
        step(batch, num_samples, lr)
        if trainer.state.epoch == 1 and trainer.state.step == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "_train_step", interrupted_step)
    with pytest.raises(TrainingInterruptedError):
        trainer.fit()
    Trainer(config, halves, progress=False).fit()
    one, other = (read_checkpoint(run / LAST)["network"]["tensors"] for run in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows, resumed_rows = read_csv(whole / "metrics.csv"), read_csv(halves / "metrics.csv")
    assert [row["loss"] for row in rows] == [row["loss"] for row in resumed_rows]
    assert rows[0][STUDENT] == resumed_rows[0][STUDENT]
    assert all(float(row[name]) > 0 for row in rows for name in (LABELED, STUDENT, TEACHER))


@pytest.mark.slow
@pytest.mark.parametrize("options", [["train.ema_decay=0.9"], ["train.loss=cross_entropy", "model.output=softmax"]])
def test_two_processes_train_like_one(
    experiment: Experiment, unlabeled: str, tmp_path: Path, options: list[str]
) -> None:
    script, path = tmp_path / "script.py", tmp_path / "config.yaml"
    script.write_text(TRAIN_AND_EVALUATE)
    config = experiment(
        *(unlabeled, "train.consistency={batch_size: 6, min_score: 0}", "model.sigma=1", "train.lr=0.0002"),
        *("train.freeze_batch_norm=true", "train.epochs=3", *options),
    )
    path.write_text(config.to_yaml())
    for processes in (1, 2):
        process = launch(script, path, tmp_path / str(processes), processes=processes)
        assert process.returncode == 0, process.stderr[-3000:]
    one, two = (json.loads((tmp_path / name / "losses.json").read_text()) for name in "12")
    assert len(one) == len(two) > 5
    np.testing.assert_allclose(two, one, rtol=1e-4)
    one, two = ([row[STUDENT] for row in read_csv(tmp_path / name / "metrics.csv")] for name in "12")
    np.testing.assert_allclose(np.array(two, dtype=float), np.array(one, dtype=float), rtol=1e-3)


@pytest.mark.slow
def test_other_unlabeled_persons_are_rejected_on_resuming(
    experiment: Experiment, unlabeled: str, tmp_path: Path
) -> None:
    Trainer(experiment("train.epochs=1"), tmp_path, progress=False).fit()
    with pytest.raises(ValueError, match="datasets: "):
        Trainer(experiment("train.epochs=2", "train.lr_drops=[1,1]", unlabeled), tmp_path, progress=False)


def test_invalid_combinations_are_rejected(experiment: Experiment, unlabeled: str) -> None:
    for overrides, text in (
        (["train.consistency.weight=2"], "data.unlabeled"),
        ([unlabeled, "train.cuda_graph=true"], "train.cuda_graph"),
        ([unlabeled, "train.consistency.easy.scale_range=[2, 1]"], "scale_range"),
    ):
        with pytest.raises(ConfigError, match=text):
            experiment(*overrides)
    with pytest.raises(ValueError, match=r"model\.codec: simcc"):
        Config.model_validate(
            {"model": {"codec": "simcc"}, "data": {"unlabeled": [{"annotations": "a.json", "images": "b"}]}}
        )
    config = experiment(unlabeled, "train.consistency.batch_size=5")
    with pytest.raises(ValueError, match=r"train\.consistency\.batch_size=5"):
        make_batch_sampler(config, read_training_data(config, print), 0, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "output"), [("mse", "linear"), ("cross_entropy", "softmax")])
def test_heatmaps_of_unlabeled_persons_do_not_collapse(
    experiment: Experiment, tmp_path: Path, loss: str, output: str
) -> None:
    """Trained with few labels, heatmaps of unlabeled persons keep peaks that differ from person to person."""
    root = tmp_path / "set"
    generate_dataset(root, 40, 4, seed=3, processes=1)
    path = root / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    few = {image["id"] for image in content["images"][:10]}
    for name, keep in (("few", few), ("rest", {image["id"] for image in content["images"]} - few)):
        part = {
            "categories": content["categories"],
            "images": [image for image in content["images"] if image["id"] in keep],
            "annotations": [record for record in content["annotations"] if record["image_id"] in keep],
        }
        (root / f"{name}.json").write_text(json.dumps(part))
    config = experiment(
        f"data.root={root}",
        f"data.train_annotations={root}/few.json",
        f"data.unlabeled=[{{annotations: {root}/rest.json, images: {root}/train2017}}]",
        *("model.name=mobilenetv2_035-fpn", "model.sigma=1", f"model.output={output}", f"train.loss={loss}"),
        *("train.epochs=40", "train.lr=0.003", "train.schedule=cosine", "train.ema_decay=0.95"),
        *("augment.scale_std=0.1", "augment.rotation_std=15", "augment.half_body_probability=0"),
        # without a mask, as in PoseCons, every keypoint could become flat
        "train.consistency.min_score=0",
    )
    trainer = Trainer(config, tmp_path / "run", progress=False)
    trainer.fit()
    last = read_csv(tmp_path / "run" / "metrics.csv")[-1]
    for name in (STUDENT, TEACHER):
        assert float(last[name]) > 0.5 * float(last[LABELED])
    assert trainer.task.data.unlabeled is not None
    persons = trainer.task.data.unlabeled.sets[0]
    dataset = TopDownEvalDataset(persons, persons.image_index, persons.boxes, (32, 64), 1.25)
    crops = torch.stack([torch.from_numpy(dataset[index]["crop"]) for index in range(len(dataset))])
    net = trainer.evaluated_net.eval()
    with torch.no_grad():
        heatmaps = net(normalize_crops(crops))
    background = heatmaps.flatten(2).median(dim=-1).values.abs()
    peaks = heatmaps.amax(dim=(-2, -1))
    assert peaks.mean() > 0.15
    assert peaks.mean() > 10 * background.mean()
    keypoints, _ = net.codec.decode({"heatmaps": heatmaps})
    assert keypoints.std(dim=0).mean() > 1

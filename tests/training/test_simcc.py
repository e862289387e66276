"""The head and the codec of SimCC: trained, resumed, evaluated, distilled."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import posedy
from posedy.codecs import SimCCCodec
from posedy.config import Config, ConfigError, TrainConfig
from posedy.evaluation.testing import evaluate_checkpoint
from posedy.files import read_csv
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.models.transfer import load_pretrained
from posedy.skeleton import COCO17, Skeleton
from posedy.training.distillation import Teacher, load_teacher
from posedy.training.distributed import DistributedContext
from posedy.training.losses import codec_loss, loss_normalizer
from posedy.training.pose_setup import build_network
from posedy.training.run import train

SIZE = (32, 64)
SETTINGS = ("model.name=mobilenetv2_035-simcc", "eval.flip=true")
STILL = "augment={flip_probability: 0, scale_std: 0, rotation_probability: 0, half_body_probability: 0}"


def network(name: str = "mobilenetv2_035-simcc", seed: int = 0, **options: object) -> PoseNet:
    torch.manual_seed(seed)
    return create_model(name, **{"input_size": SIZE, "skeleton": COCO17, **options})


def batch(size: tuple[int, int] = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (4, H, W, 3) uint8 of noise and keypoints (4, 17, 2)."""
    generator = torch.Generator().manual_seed(1)
    crops = torch.randint(0, 256, (4, size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return crops, torch.rand(4, 17, 2, generator=generator) * (torch.tensor(size) - 1.0)


@pytest.mark.slow
def test_a_network_learns_the_keypoints_of_a_few_crops() -> None:
    size = (64, 96)  # at 64x32 two pixels of the last feature map are too few for any distribution
    net = network(depth=0.34, input_size=size)
    codec, (crops, keypoints) = net.codec, batch(size)
    targets, weights = codec.encode(keypoints, torch.ones(4, 17))
    normalizer = loss_normalizer(codec, weights, targets, 4, "mse")
    assert normalizer == 4 * 17
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        loss = codec_loss(codec, net(normalize_crops(crops)), targets, weights, "mse", normalizer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        outputs = dict(zip(codec.output_names, net(normalize_crops(crops)), strict=True))
    decoded, scores = codec.decode(outputs)
    assert (decoded - keypoints).abs().mean() < 1.5
    assert scores.mean() > 0.5


@pytest.mark.slow
def test_training_resumes_and_its_network_is_evaluated(experiment: Callable[..., Config], tmp_path: Path) -> None:
    run, straight = tmp_path / "run", tmp_path / "straight"
    train(experiment(*SETTINGS, STILL, "train.epochs=1", "train.lr_drops=[]"), run)
    metrics = train(experiment(*SETTINGS, STILL, "train.epochs=3", "train.lr_drops=[]"), run)
    assert "AP" in metrics
    losses = [float(row["loss"]) for row in read_csv(run / "metrics.csv")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    train(experiment(*SETTINGS, STILL, "train.epochs=3", "train.lr_drops=[]"), straight)
    net, expected = (posedy.load_checkpoint(folder / "last.pt") for folder in (run, straight))
    assert (net.name, net.options["codec"], net.codec) == ("mobilenetv2_035-simcc", "simcc", SimCCCodec(SIZE))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    config = experiment(*SETTINGS)
    record = evaluate_checkpoint(config, run / "best.pt", tmp_path / "test", "cpu")
    assert record["protocol"]["codec"] == "simcc"
    larger = experiment(*SETTINGS, "model.input_size=[64, 64]")
    with pytest.raises(ValueError, match=r"mobilenetv2_035-simcc.*\(32, 64\).*\(64, 64\)"):
        evaluate_checkpoint(larger, run / "best.pt", tmp_path / "x", "cpu", explicit=["input_size"])


def test_the_configuration_has_the_codec_of_the_head(experiment: Callable[..., Config]) -> None:
    assert experiment(*SETTINGS).model.codec == "simcc"
    assert experiment(*SETTINGS, "model.codec=null").model.codec == "simcc"
    assert experiment().model.codec == Config().model.codec == "msra"
    assert "codec: simcc" in experiment(*SETTINGS).to_yaml()
    for overrides in (("train.loss=cross_entropy", "model.output=softmax"), ("train.loss=cross_entropy",)):
        with pytest.raises(ConfigError, match=r"simcc.*loss"):
            experiment(*SETTINGS, *overrides)


@pytest.mark.parametrize(("name", "codec"), [("mobilenetv2_035-simcc", "msra"), ("mobilenetv2_035-fpn", "simcc")])
def test_a_codec_of_another_head_is_rejected(experiment: Callable[..., Config], name: str, codec: str) -> None:
    head = name.rpartition("-")[2]
    with pytest.raises(ValueError, match=rf"'{head}'.*'{codec}'"):
        build_network(experiment(f"model.name={name}", f"model.codec={codec}"), COCO17, print, None)


def test_a_teacher_of_the_same_codec_mixes_its_distributions(tmp_path: Path) -> None:
    net, (crops, keypoints) = network(seed=1).eval(), batch()
    torch.nn.init.normal_(net.head.x_logits.weight, std=1.0)
    save_weights(net, tmp_path / "teacher.safetensors")
    config = Config.model_validate({"train": {"teacher": tmp_path / "teacher.safetensors", "teacher_weight": 0.25}})
    teacher = load_teacher(config, network(), DistributedContext(config.train))
    assert teacher is not None
    targets, _ = net.codec.encode(keypoints, torch.ones(4, 17))
    with torch.no_grad():
        soft = torch.cat([logits.softmax(dim=-1) for logits in net(normalize_crops(crops))], dim=-1)
    torch.testing.assert_close(teacher.mix_targets(crops, targets), 0.75 * targets + 0.25 * soft, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("teacher_name", "student_name"),
    [("mobilenetv2_035-fpn", "mobilenetv2_035-simcc"), ("mobilenetv2_035-simcc", "mobilenetv2_035-fpn")],
)
def test_a_teacher_of_another_codec_mixes_targets_of_its_keypoints(
    teacher_name: str, student_name: str, tmp_path: Path
) -> None:
    net, student, (crops, _) = network(teacher_name, 1).eval(), network(student_name), batch()
    with torch.no_grad():
        for name in ("heatmap", "x_logits", "y_logits"):
            if hasattr(net.head, name):
                getattr(net.head, name).weight.mul_(300)
    save_weights(net, tmp_path / "teacher.safetensors")
    config = Config.model_validate({"train": {"teacher": tmp_path / "teacher.safetensors", "teacher_weight": 0.5}})
    teacher = load_teacher(config, student, DistributedContext(config.train))
    assert teacher is not None
    outputs = net(normalize_crops(crops))
    named = dict(zip(net.codec.output_names, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
    keypoints, scores = net.codec.decode({name: output.detach() for name, output in named.items()})
    assert scores.max() > 0.05
    encoded, inside = student.codec.encode(keypoints, torch.ones(4, 17))
    targets = torch.rand(encoded.shape, generator=torch.Generator().manual_seed(0))
    mixed = teacher.mix_targets(crops, targets)
    for n in range(4):
        for k in range(17):
            a = 0.5 * min(max(scores[n, k].item(), 0.0), 1.0) * inside[n, k].item()
            expected = (1 - a) * targets[n, k] + a * encoded[n, k]
            torch.testing.assert_close(mixed[n, k], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "difference"),
    [
        ("mobilenetv2_035-simcc", {"sigma": 3}, "sigma 3 in the file, 1.5"),
        ("mobilenetv2_035-fpn", {"input_size": (64, 64)}, r"input_size \(64, 64\)"),
        (
            "mobilenetv2_035-fpn",
            {"skeleton": Skeleton(("a", "b"), (), (), (0.1, 0.1)), "num_keypoints": 2},
            r"keypoints \('a', 'b'\)",
        ),
    ],
)
def test_incompatible_teachers_are_rejected(
    name: str, options: dict[str, object], difference: str, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.safetensors"
    save_weights(network(name, **options), path)
    config = Config.model_validate({"train": {"teacher": path}})
    with pytest.raises(ValueError, match=f"{path} .*{difference}"):
        load_teacher(config, network(), DistributedContext(config.train))


def test_a_student_of_its_own_teacher_has_no_gradient() -> None:
    net = network().eval()
    crops, keypoints = batch()
    targets, weights = net.codec.encode(keypoints, torch.ones(4, 17))
    mixed = Teacher(net, 1.0, DistributedContext(TrainConfig())).mix_targets(crops, targets)
    outputs = net(normalize_crops(crops))
    codec_loss(net.codec, outputs, mixed, weights, "mse", weights.sum()).backward()
    assert all(parameter.grad.abs().max() < 1e-5 for parameter in net.parameters())


def test_weights_are_transferred_to_other_keypoints_except_for_the_keypoint_maps(tmp_path: Path) -> None:
    source = network(seed=1)
    save_weights(source, tmp_path / "x.safetensors")
    skeleton = Skeleton(("a", "b"), (), (), (0.1, 0.1))
    net = network("dy_mobilenetv2_035-simcc", num_keypoints=2, skeleton=skeleton)
    before = net.head.keypoint_maps.weight.clone()
    assert "did not load" in load_pretrained(net, tmp_path / "x.safetensors")
    assert torch.equal(net.head.keypoint_maps.weight, before)
    for name in ("x_logits", "y_logits"):
        assert torch.equal(getattr(net.head, name).weight, getattr(source.head, name).weight)
    with pytest.raises(ValueError, match=r"\(64, 64\).*\(32, 64\)"):
        load_pretrained(network(input_size=(64, 64)), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"mobilenetv2_035-fpn.*mobilenetv2_035-simcc"):
        load_pretrained(network("mobilenetv2_035-fpn"), tmp_path / "x.safetensors")


def test_the_estimator_predicts_with_the_network() -> None:
    net = network().eval()
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    boxes = np.array([[10, 5, 60, 90], [40, 20, 99, 99]], dtype=np.float32)
    poses = posedy.PoseEstimator(net, device="cpu")(image, boxes)
    assert poses.keypoints.shape == (2, 17, 2)
    assert (poses.keypoints.min(axis=1) > boxes[:, :2] - 60).all()
    assert ((poses.scores >= 0) & (poses.scores <= 1)).all()

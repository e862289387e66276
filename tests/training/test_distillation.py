"""Distillation: mixed targets, zero gradient from an identical teacher, rejected teachers."""

from pathlib import Path

import pytest
import torch

from posedy.codecs import UnbiasedCodec
from posedy.config import Config, TrainConfig
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.skeleton import COCO17, Skeleton
from posedy.training.distillation import Teacher, load_teacher
from posedy.training.distributed import DistributedContext
from posedy.training.optim import make_optimizer
from posedy.training.step import PoseStep

SIZE = (32, 64)


def network(name: str = "mobilenetv2_035-fpn", seed: int = 0, **options: object) -> PoseNet:
    torch.manual_seed(seed)
    shallow = {"depth": 0.34} if name.startswith("mobilenetv2") else {}  # 7 blocks instead of 17
    settings = {"output": "softmax", "codec": "unbiased", "input_size": SIZE, "skeleton": COCO17, **shallow, **options}
    net = create_model(name, **settings)
    with torch.no_grad():
        net.head.heatmap.weight.mul_(100)
    return net


def crops(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_mix_targets_interpolates_to_teacher_heatmaps(weight: float) -> None:
    net = network()
    targets = torch.rand(4, 17, 16, 8)
    mixed = Teacher(net, weight, DistributedContext(TrainConfig())).mix_targets(crops(), targets)
    with torch.no_grad():
        expected = (1 - weight) * targets + weight * net.eval()(normalize_crops(crops()))
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_identical_teacher_gives_zero_gradient(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross entropy with a distribution is minimal at that distribution, so the gradient is 0 for any labels."""
    config = TrainConfig.model_validate(
        {"batch_size": 4, "loss": "cross_entropy", "freeze_batch_norm": True, "teacher_weight": 1.0}
    )
    student, context = network(), DistributedContext(config)
    teacher = Teacher(network(seed=seed), 1.0, context)
    step = PoseStep(student, make_optimizer(student, config), None, UnbiasedCodec(SIZE), config, context, teacher)
    step.set_train_mode()
    norms = []

    def record_norm() -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in student.parameters() if p.grad is not None]).norm()))

    monkeypatch.setattr(step.optimizer, "step", record_norm)
    batch = {"crop": crops(), "keypoints": torch.full((4, 17, 2), 16.0), "labeled": torch.ones(4, 17).bool()}
    step(batch, 4, 1e-3)
    assert (norms[0] < 1e-4) == (seed == 0), norms


def test_load_teacher_accepts_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_weights(network("mobilenetv3_small-fpn"), path)
    config = Config.model_validate(
        {"train": {"teacher": path, "teacher_weight": 0.3, "loss": "cross_entropy"}, "model": {"output": "softmax"}}
    )
    teacher = load_teacher(config, network(), DistributedContext(config.train))
    assert teacher is not None
    assert (teacher.net.name, teacher.weight) == ("mobilenetv3_small-fpn", 0.3)
    assert load_teacher(Config(), network(), DistributedContext(config.train)) is None


def test_load_teacher_accepts_explicit_default_sigma(tmp_path: Path) -> None:
    save_weights(network(sigma=0.5), tmp_path / "teacher.safetensors")
    config = Config.model_validate({"train": {"teacher": tmp_path / "teacher.safetensors"}})
    assert load_teacher(config, network(), DistributedContext(config.train)) is not None


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"output": "linear"}, "output linear in the file, softmax in the config"),
        ({"codec": "msra"}, "codec msra"),
        ({"sigma": 3}, "sigma 3 in the file, 0.5 in the config"),
        ({"input_size": (64, 64)}, "input_size \\(64, 64\\) in the file"),
        ({"skeleton": Skeleton(("a", "b"), (), (), (0.1, 0.1)), "num_keypoints": 2}, "keypoints \\('a', 'b'\\)"),
    ],
)
def test_load_teacher_rejects_incompatible_heatmaps(
    tmp_path: Path, options: dict[str, object], difference: str
) -> None:
    path = tmp_path / "teacher.safetensors"
    save_weights(network(**options), path)
    config = Config.model_validate({"train": {"teacher": path}})
    with pytest.raises(ValueError, match=f"{path} .*{difference}"):
        load_teacher(config, network(), DistributedContext(config.train))
    path.unlink()
    with pytest.raises(OSError, match=r"teacher\.safetensors"):
        load_teacher(config, network(), DistributedContext(config.train))

"""Steps recorded as a CUDA graph are the steps that they would be without."""

import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import posedy.training.cuda_graph
from posedy.codecs import MSRACodec
from posedy.config import Config, TrainConfig
from posedy.files import read_csv
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import read_checkpoint
from posedy.models.registry import create_model
from posedy.training.checkpoint import LAST
from posedy.training.cuda_graph import GraphedStep
from posedy.training.distributed import Processes
from posedy.training.optim import WeightAverage, make_optimizer
from posedy.training.step import TrainingStep
from posedy.training.trainer import Trainer

CODEC = MSRACodec((32, 64))
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
RECIPES: dict[str, dict[str, object]] = {
    "the paper's": {},
    "all options": {"loss": "cross_entropy", "precision": "bf16", "clip_gradients": 0.1, "weight_decay": 0.05},
}
WITH_RECIPES = pytest.mark.parametrize(
    ("recipe", "in_channels"), [("the paper's", 1), pytest.param("all options", 3, marks=pytest.mark.slow)]
)


def batch(size: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "crop": torch.randint(0, 256, (size, 64, 32, 3), generator=generator, dtype=torch.uint8),
        "keypoints": torch.rand(size, 17, 2, generator=generator) * torch.tensor([32.0, 64.0]),
        "labeled": torch.rand(size, 17, generator=generator) < 0.7,
    }


class DoubledPoseNet(PoseNet):
    """A network with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def made(
    kind: type[TrainingStep], in_channels: int, settings: dict[str, object], net_class: type[PoseNet] = PoseNet
) -> TrainingStep:
    torch.manual_seed(0)
    config = TrainConfig.model_validate({"batch_size": 6, **settings})
    output = "softmax" if config.loss == "cross_entropy" else "linear"
    net = create_model(
        "dy_mobilenetv2_035-dy_bneck", input_size=(32, 64), output=output, in_channels=in_channels, temperature=3.0
    )
    with torch.no_grad():
        net.head.heatmap.weight.mul_(100)
    net.__class__ = net_class
    processes = Processes(config)
    average = WeightAverage(net, 0.9)
    average.net.to(processes.device)
    step = kind(net, make_optimizer(net, config), average, CODEC, config, processes)
    step.begin_epoch()
    return step


def rate(index: int) -> float:
    """Of a step; float32 has it exactly."""
    return 2**-13 * (1 - index / 16)


def losses(step: TrainingStep, count: int) -> list[float]:
    """Of steps at falling rates, the last but one with a smaller batch; each is looked at after the last step."""
    sizes = [4 if index == count - 2 else 6 for index in range(count)]
    found = [step(batch(size, index), size, rate(index)) for index, size in enumerate(sizes)]
    return [float(loss) for loss in found]


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten().cpu() for tensor in tensors])


def assert_same_steps(
    recipe: str, in_channels: int, count: int, tolerance: float, net_class: type[PoseNet] = PoseNet
) -> None:
    plain, graphed = (made(kind, in_channels, RECIPES[recipe], net_class) for kind in (TrainingStep, GraphedStep))
    start = flat(plain.net.parameters())
    expected = losses(plain, count)
    assert losses(graphed, count) == pytest.approx(expected, rel=tolerance, abs=0)
    assert plain.average is not None
    assert graphed.average is not None
    for ours, theirs in ((graphed.net, plain.net), (graphed.average.net, plain.average.net)):
        change = flat(theirs.parameters()) - start
        assert float((flat(ours.parameters()) - start - change).norm()) <= 10 * tolerance * float(change.norm())
        buffers = flat(theirs.buffers())
        assert float((flat(ours.buffers()) - buffers).norm()) <= tolerance * float(buffers.norm())
    assert {float(state["step"]) for state in graphed.optimizer.state.values()} == {count}
    groups = graphed.optimizer.state_dict()["param_groups"]
    assert [(group["lr"], group["capturable"]) for group in groups] == [(rate(count - 1), False)] * 2
    assert all(parameter.grad is None for parameter in graphed.net.parameters())


@WITH_RECIPES
def test_what_is_recorded_is_a_step(recipe: str, in_channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, on any device: the function that would be recorded is called instead."""
    monkeypatch.setattr(posedy.training.cuda_graph, "RecordedFunction", lambda function: function)
    assert_same_steps(recipe, in_channels, 3, 1e-2 if torch.cuda.is_available() else 0)


def test_the_forward_of_a_subclass_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posedy.training.cuda_graph, "RecordedFunction", lambda function: function)
    assert_same_steps("the paper's", 3, 3, 1e-2 if torch.cuda.is_available() else 0, DoubledPoseNet)


@pytest.mark.slow
def test_forward_hooks_run_in_a_recorded_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posedy.training.cuda_graph, "RecordedFunction", lambda function: function)
    step = made(GraphedStep, 3, {"precision": "bf16"})
    dtypes: list[torch.dtype] = []
    step.net.register_forward_hook(lambda net, inputs, heatmaps: dtypes.append(heatmaps.dtype))
    step(batch(6, 0), 6, rate(0))
    assert dtypes == [torch.bfloat16]  # accelerate's forward would return float32


@ON_GPU
@WITH_RECIPES
def test_replayed_steps_are_those_without_a_graph(recipe: str, in_channels: int) -> None:
    assert_same_steps(recipe, in_channels, 12, 1e-2)


@ON_GPU
def test_a_run_goes_on_with_a_graph_and_without(experiment: Callable[..., Config], tmp_path: Path) -> None:
    graph = "train.cuda_graph=true"
    for overrides, epochs in (((graph,), 2), ((), 4), ((graph, "eval.every=1"), 6)):
        config = experiment("train.epochs=6", "train.batch_size=4", "train.lr=0.003", *overrides)
        Trainer(config, tmp_path, progress=False).fit(stop_after_epochs=2)
        groups = read_checkpoint(tmp_path / LAST)["optimizer"]["param_groups"]
        assert all(isinstance(group["lr"], float) and not group["capturable"] for group in groups)
        found = [float(row["loss"]) for row in read_csv(tmp_path / "metrics.csv")]
        assert len(found) == epochs
    assert all(math.isfinite(loss) for loss in found)
    assert all(later < 1.5 * earlier for earlier, later in itertools.pairwise(found))

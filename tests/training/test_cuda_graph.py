"""Steps captured as a CUDA graph equal eager steps."""

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
from posedy.models.factory import create_model
from posedy.models.network_file import read_checkpoint
from posedy.models.pose_net import PoseNet
from posedy.training.checkpoint import LAST
from posedy.training.cuda_graph import GraphedStep
from posedy.training.distributed import DistributedContext
from posedy.training.optim import ModelEMA, make_optimizer
from posedy.training.step import PoseStep
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
    """A network that overrides `forward`."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def make_step(
    kind: type[PoseStep], in_channels: int, settings: dict[str, object], net_class: type[PoseNet] = PoseNet
) -> PoseStep:
    torch.manual_seed(0)
    config = TrainConfig.model_validate({"batch_size": 6, **settings})
    output = "softmax" if config.loss == "cross_entropy" else "linear"
    options = {"output": output, "in_channels": in_channels, "depth": 0.34}
    net = create_model("dy_mobilenetv2_035-dy_fpn", input_size=(32, 64), temperature=3.0, **options)
    with torch.no_grad():
        net.head.heatmap.weight.mul_(100)
    net.__class__ = net_class
    context = DistributedContext(config)
    ema = ModelEMA(net, 0.9)
    ema.net.to(context.device)
    step = kind(net, make_optimizer(net, config), ema, CODEC, config, context)
    step.set_train_mode()
    return step


def step_lr(index: int) -> float:
    """The learning rate of a step, exactly representable in float32."""
    return 2**-13 * (1 - index / 16)


def run_steps(step: PoseStep, count: int) -> list[float]:
    """Runs steps at falling rates, the last but one with a smaller batch, then reads their losses."""
    sizes = [4 if index == count - 2 else 6 for index in range(count)]
    losses = [step(batch(size, index), size, step_lr(index)) for index, size in enumerate(sizes)]
    return [float(loss) for loss in losses]


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten().cpu() for tensor in tensors])


def assert_same_steps(
    recipe: str, in_channels: int, count: int, tolerance: float, net_class: type[PoseNet] = PoseNet
) -> None:
    eager, graphed = (make_step(kind, in_channels, RECIPES[recipe], net_class) for kind in (PoseStep, GraphedStep))
    start = flatten(eager.net.parameters())
    expected = run_steps(eager, count)
    assert run_steps(graphed, count) == pytest.approx(expected, rel=tolerance, abs=0)
    assert eager.ema is not None
    assert graphed.ema is not None
    for ours, theirs in ((graphed.net, eager.net), (graphed.ema.net, eager.ema.net)):
        change = flatten(theirs.parameters()) - start
        assert float((flatten(ours.parameters()) - start - change).norm()) <= 10 * tolerance * float(change.norm())
        buffers = flatten(theirs.buffers())
        assert float((flatten(ours.buffers()) - buffers).norm()) <= tolerance * float(buffers.norm())
    assert {float(state["step"]) for state in graphed.optimizer.state.values()} == {count}
    groups = graphed.optimizer.state_dict()["param_groups"]
    assert [(group["lr"], group["capturable"]) for group in groups] == [(step_lr(count - 1), False)] * 2
    assert all(parameter.grad is None for parameter in graphed.net.parameters())


@WITH_RECIPES
def test_captured_function_equals_an_eager_step(recipe: str, in_channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit-exact on the CPU: calls the function that would be captured."""
    monkeypatch.setattr(posedy.training.cuda_graph, "GraphedFunction", lambda function: function)
    assert_same_steps(recipe, in_channels, 3, 1e-2 if torch.cuda.is_available() else 0)


@pytest.mark.slow
def test_captured_step_uses_forward_of_a_subclass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posedy.training.cuda_graph, "GraphedFunction", lambda function: function)
    assert_same_steps("the paper's", 3, 3, 1e-2 if torch.cuda.is_available() else 0, DoubledPoseNet)


@pytest.mark.slow
def test_forward_hooks_run_in_a_captured_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posedy.training.cuda_graph, "GraphedFunction", lambda function: function)
    step = make_step(GraphedStep, 3, {"precision": "bf16"})
    dtypes: list[torch.dtype] = []
    step.net.register_forward_hook(lambda net, inputs, heatmaps: dtypes.append(heatmaps.dtype))
    step(batch(6, 0), 6, step_lr(0))
    assert dtypes == [torch.bfloat16]  # accelerate's forward would return float32


@ON_GPU
@WITH_RECIPES
def test_replayed_steps_equal_eager_steps(recipe: str, in_channels: int) -> None:
    assert_same_steps(recipe, in_channels, 12, 1e-2)


@ON_GPU
def test_run_resumes_with_and_without_a_graph(experiment: Callable[..., Config], tmp_path: Path) -> None:
    graph = "train.cuda_graph=true"
    for overrides, epochs in (((graph,), 2), ((), 4), ((graph, "eval.every=1"), 6)):
        config = experiment("train.epochs=6", "train.batch_size=4", "train.lr=0.003", *overrides)
        Trainer(config, tmp_path, progress=False).fit(stop_after_epochs=2)
        groups = read_checkpoint(tmp_path / LAST)["optimizer"]["param_groups"]
        assert all(isinstance(group["lr"], float) and not group["capturable"] for group in groups)
        losses = [float(row["loss"]) for row in read_csv(tmp_path / "metrics.csv")]
        assert len(losses) == epochs
    assert all(math.isfinite(loss) for loss in losses)
    assert all(later < 1.5 * earlier for earlier, later in itertools.pairwise(losses))

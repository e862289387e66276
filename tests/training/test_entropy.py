"""The logged entropy of attention, against a float64 loop and at its extremes."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import posedy
from posedy.config import Config
from posedy.files import read_csv
from posedy.models.dynamic_conv import KernelAttention
from posedy.training.entropy import ENTROPY, EntropyMeter
from posedy.training.loggers import METRICS_FILE

CPU = torch.device("cpu")


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
def test_entropy_equals_a_loop(attention: str) -> None:
    torch.manual_seed(0)
    net = posedy.create_model("dy_mobilenetv2_035-fpn", num_kernels=3, temperature=0.01, attention=attention).eval()
    expected: list[float] = []

    def loop(module: KernelAttention, inputs: object, weights: torch.Tensor) -> None:
        for row in weights.double().tolist():
            shares = [weight / sum(row) for weight in row]
            expected.append(-sum(share * math.log(share) for share in shares if share > 0) / math.log(3))

    for module in net.modules():
        if isinstance(module, KernelAttention):
            module.register_forward_hook(loop)
    meter = EntropyMeter()
    with torch.no_grad(), meter.record(net):
        for count in (2, 1):
            net(torch.randn(count, 3, 64, 64))
    net(torch.randn(1, 3, 64, 64))  # outside the block
    total, count = meter.totals(CPU).tolist()
    assert count == len(expected) - len(expected) // 4
    assert total / count == pytest.approx(sum(expected[: int(count)]) / count, abs=1e-5)
    assert 0 < total / count < 1


def test_static_networks_and_single_kernels_have_none() -> None:
    for name, kernels in (("mobilenetv2_035-fpn", 4), ("dy_mobilenetv2_035-fpn", 1)):
        net, meter = posedy.create_model(name, num_kernels=kernels).eval(), EntropyMeter()
        with torch.no_grad(), meter.record(net):
            net(torch.zeros(1, 3, 32, 32))
        assert meter.totals(CPU).tolist() == [0, 0]


def test_equal_kernels_have_entropy_one() -> None:
    net, meter = posedy.to_dynamic(posedy.create_model("mobilenetv2_035-fpn")).eval(), EntropyMeter()
    with torch.no_grad(), meter.record(net):
        net(torch.randn(2, 3, 32, 32))
    total, count = meter.totals(CPU).tolist()
    assert total / count == pytest.approx(1, abs=1e-6)


def test_each_evaluation_of_a_dynamic_network_is_logged(
    experiment: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A high temperature makes attention uniform, a low one does not."""
    for name, temperature in (("high", 1e6), ("low", 1e-3)):
        config = experiment(
            "eval.every=1", "train.epochs=1", f"train.temperature={{start: {temperature}, end: {temperature}}}"
        )
        posedy.train(config, out=tmp_path / name)
    high, low = (float(read_csv(tmp_path / name / METRICS_FILE)[-1][ENTROPY]) for name in ("high", "low"))
    assert high == pytest.approx(1, abs=1e-4)
    assert low < 0.9
    assert f"mean entropy {low:.3f}" in capsys.readouterr().out


def test_static_networks_have_no_column(experiment: Callable[..., Config], tmp_path: Path) -> None:
    posedy.train(experiment("eval.every=1", "train.epochs=1", "model.name=mobilenetv2_035-fpn"), out=tmp_path)
    assert ENTROPY not in read_csv(tmp_path / METRICS_FILE)[-1]

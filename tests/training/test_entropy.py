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
from posedy.training.loggers import ATTENTION_FILE, METRICS_FILE

CPU = torch.device("cpu")


@pytest.mark.parametrize("attention", ["softmax", "sigmoid", "normalized"])
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
    meter = EntropyMeter(net)
    with torch.no_grad(), meter.record():
        for count in (2, 1):
            net(torch.randn(count, 3, 64, 64))
    net(torch.randn(1, 3, 64, 64))  # outside the block
    sums, counts = meter.totals(CPU).unbind(dim=1)
    assert counts.tolist() == [3] * len(meter.layers)
    assert len(expected) == 4 * len(meter.layers)
    # two images of each layer, then one of each
    first, second = expected[: 2 * len(counts)], expected[2 * len(counts) : 3 * len(counts)]
    by_layer = [first[2 * index] + first[2 * index + 1] + second[index] for index in range(len(counts))]
    assert sums.tolist() == pytest.approx(by_layer, abs=1e-5)
    assert 0 < sums.sum() / counts.sum() < 1


def test_static_networks_and_single_kernels_have_none() -> None:
    for name, kernels in (("mobilenetv2_035-fpn", 4), ("dy_mobilenetv2_035-fpn", 1)):
        net = posedy.create_model(name, num_kernels=kernels).eval()
        meter = EntropyMeter(net)
        with torch.no_grad(), meter.record():
            net(torch.zeros(1, 3, 32, 32))
        assert meter.layers == ()
        assert meter.totals(CPU).shape == (0, 2)


def test_equal_kernels_have_entropy_one() -> None:
    net = posedy.to_dynamic(posedy.create_model("mobilenetv2_035-fpn")).eval()
    meter = EntropyMeter(net)
    with torch.no_grad(), meter.record():
        net(torch.randn(2, 3, 32, 32))
    sums, counts = meter.totals(CPU).unbind(dim=1)
    assert (sums / counts).tolist() == pytest.approx([1] * len(counts), abs=1e-6)


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
    ((epoch, *layers),) = (row.values() for row in read_csv(tmp_path / "low" / ATTENTION_FILE))
    assert epoch == "1"
    assert sum(map(float, layers)) / len(layers) == pytest.approx(low, abs=1e-6)


@pytest.mark.slow
def test_static_networks_have_no_column(experiment: Callable[..., Config], tmp_path: Path) -> None:
    posedy.train(experiment("eval.every=1", "train.epochs=1", "model.name=mobilenetv2_035-fpn"), out=tmp_path)
    assert ENTROPY not in read_csv(tmp_path / METRICS_FILE)[-1]
    assert not (tmp_path / ATTENTION_FILE).exists()

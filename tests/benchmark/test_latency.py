"""The benchmark of latency: what it compares computes the same, and it says what it measured."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from posedy.benchmark.latency import benchmark_latency, draw_latency, format_latency
from posedy.benchmark.rivals import simple_baseline, usual_dynamic
from posedy.cli import main
from posedy.models.zoo import create_backbone

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_usual_way_computes_the_same() -> None:
    net = create_backbone("dy_mobilenetv2_035").eval()
    for x in (X, X[:1]):
        torch.testing.assert_close(usual_dynamic(net)(x), net(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_simple_baseline_is_that_of_the_paper() -> None:
    """34.0 million parameters with its norms (Xiao et al., Table 2), which are folded into 26,560 biases here."""
    net = simple_baseline()
    assert net(X).shape == (2, 17, 16, 16)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.backbone.modules())
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(34.0, abs=0.05)


def _row(model: str, **more: object) -> dict[str, object]:
    ratio = {"median": 1.2, "quartile_low": 1.1, "quartile_high": 1.3}
    milliseconds = {"low": 1.0, "median": 2.0, "high": 3.0}
    return {"model": model, "runtime": "fused", "batch": 1, "threads": 1, "milliseconds": milliseconds, **more} | (
        {"to_static": ratio} if model.startswith("dy_") else {}
    )


def test_it_prints_and_draws_ratios(tmp_path: Path) -> None:
    numbers = {"rows": [_row("mobilenetv2_035"), _row("dy_mobilenetv2_035")]}
    table = format_latency(numbers)
    assert "| fused | 1 | 1 | dy_mobilenetv2_035 | 2.0 (1.0 to 3.0) | 1.20 (1.10 to 1.30) | - |" in table
    draw_latency(numbers, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_process_times_twins_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = tmp_path / "numbers.json"
    options = ["--models", "dy_mobilenetv2_035", "--runtimes", "fused", "training", "--batch", "1", "--threads", "1"]
    assert main(["benchmark", "latency", *options, "--rounds", "1", "--json", str(numbers)]) == 0
    rows = json.loads(numbers.read_text())["rows"]
    timed = {(row["runtime"], row["model"]): row for row in rows}
    assert timed.keys() == {
        ("fused", "mobilenetv2_035"),
        ("fused", "dy_mobilenetv2_035"),
        ("fused", "resnet50-deconv"),
        ("training", "mobilenetv2_035"),
        ("training", "dy_mobilenetv2_035"),
    }
    assert all(row["to_static"]["median"] > 0 for row in rows if row["model"].startswith("dy_"))
    assert "| fused | 1 | 1 | dy_mobilenetv2_035 |" in capsys.readouterr().out


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="runtimes are fused, usual, training, onnxruntime, openvino, got 'fast'"):
        benchmark_latency(runtimes=["fast"])
    with pytest.raises(ValueError, match="name a dy_ model"):
        benchmark_latency(models=["mobilenetv2_050"], runtimes=["fused"])

"""The latency benchmark."""

import json
from pathlib import Path

import pytest

from tools.lab.benchmarks import latency
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.latency import benchmark_latency, format_latency, plot_latency


def _row(model: str, **more: object) -> dict[str, object]:
    ratio = {"median": 1.2, "quartile_low": 1.1, "quartile_high": 1.3}
    milliseconds = {"low": 1.0, "median": 2.0, "high": 3.0}
    return {"model": model, "runtime": "fused", "batch": 1, "threads": 1, "milliseconds": milliseconds, **more} | (
        {"to_static": ratio} if model.startswith("dy_") else {}
    )


def test_ratios_are_formatted_and_plotted(tmp_path: Path) -> None:
    report = {"rows": [_row("mobilenetv2_035"), _row("dy_mobilenetv2_035")]}
    table = format_latency(report)
    assert "| fused | 1 | 1 | dy_mobilenetv2_035 | 2.0 (1.0 to 3.0) | 1.20 (1.10 to 1.30) | - |" in table
    plot_latency(report, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").stat().st_size > 1000


def test_bfloat16_is_skipped_without_cpu_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "supports_bf16", lambda device: False)
    messages: list[str] = []
    report = benchmark_latency(["dy_mobilenetv2_035"], ["training_bf16"], log=messages.append)
    assert report["rows"] == []
    assert len(messages) == 1
    assert "training_bf16" in messages[0]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exported_backbones_are_timed(runtime: str) -> None:
    report = benchmark_latency(["dy_mobilenetv2_035"], [runtime], [1], [1], rounds=1)
    (row,) = (row for row in report["rows"] if row["model"] == "dy_mobilenetv2_035")
    assert row["to_static"]["median"] > 0


@pytest.mark.slow
def test_command_times_networks_and_static_counterparts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    options = ["--models", "dy_mobilenetv2_035", "--runtimes", "fused", "training", "--batch", "1", "--threads", "1"]
    main(["latency", *options, "--rounds", "1", "--json", str(report)])
    rows = json.loads(report.read_text())["rows"]
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


def test_unknown_names_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"fused.*'fast'"):
        benchmark_latency(runtimes=["fast"])
    with pytest.raises(ValueError, match="'mobilenetv2_050'"):
        benchmark_latency(models=["mobilenetv2_050"], runtimes=["fused"])

"""The benchmark of networks compares times per crop within a runtime, batch size and number of threads."""

import json
from pathlib import Path

import pytest

from tools.lab.benchmarks import networks as benchmark
from tools.lab.benchmarks import ratios
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.networks import RESNET, RUNTIMES, benchmark_networks, time_networks

SMALL = "mobilenetv2_035-fpn"


def test_times_are_compared_within_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(calls: dict[str, object], rounds: int) -> dict[str, list[float]]:
        return {name: [0.008 if name == SMALL else 0.024] * rounds for name in calls}

    monkeypatch.setattr(benchmark, "_create", lambda name: None)
    monkeypatch.setattr(benchmark, "load_model", lambda net, device, runtime: type("Model", (), {"input_size": (8, 8)}))
    monkeypatch.setattr(benchmark, "measure_interleaved", measure)
    monkeypatch.setattr(benchmark, "run_in_subprocess", lambda module, task: time_networks(task))
    report = tmp_path / "report.json"
    main(["networks", "--models", "other", "--reference", SMALL, "--batch", "1", "4", "--json", str(report)])
    rows = json.loads(report.read_text())["rows"]
    assert len(rows) == 2 * len(RUNTIMES) * 2 * 2
    for row in rows:
        is_reference = row["model"] == SMALL
        assert row["milliseconds"]["median"] == pytest.approx((8 if is_reference else 24) / row["batch"])
        assert row["to_reference"]["median"] == pytest.approx(1 if is_reference else 3)
    table = capsys.readouterr().out
    assert "| torch | 1 | 4 | other | 6.0 (6.0 to 6.0) | 3.00 (3.00 to 3.00) |" in table


@pytest.mark.slow
def test_networks_run_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratios, "_SECONDS_PER_MEASUREMENT", 0.0)
    task = {
        "models": [SMALL, RESNET],
        "reference": RESNET,
        "runtime": "torch",
        "batches": [2],
        "threads": 1,
        "rounds": 2,
    }
    small, resnet = time_networks(task)
    assert small["to_reference"]["median"] < 1 == resnet["to_reference"]["median"]


@pytest.mark.parametrize("options", [["--runtimes", "numpy"], ["--rounds", "0"], ["--batch", "0"], ["--threads", "-1"]])
def test_invalid_options_are_rejected(options: list[str]) -> None:
    with pytest.raises(ValueError, match=r"numpy|at least 1"):
        main(["networks", *options])


def test_an_unknown_runtime_is_rejected_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="numpy"):
        benchmark_networks([SMALL], SMALL, ["numpy"])

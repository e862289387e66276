"""The detector benchmark compares times within a runtime and with torchvision's detector."""

import json
import time
from pathlib import Path

import pytest

from tools.lab.benchmarks import detector as benchmark
from tools.lab.benchmarks import ratios
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.detector import IMAGE, RUNTIMES, benchmark_detector, time_calls

MILLISECONDS = {"torchvision": 100.0, "detector 64": 20.0, "pose": 10.0, "pose network": 8.0}


def seconds_of(name: str, round_: int) -> float:
    """The time of a call of `MILLISECONDS`; OpenVINO is twice as fast, and the second round three times slower."""
    runtime, _, call = name.partition(" ")
    return MILLISECONDS[call] / 1000 / (2 if runtime == "openvino" else 1) * (3 if round_ == 1 else 1)


def test_times_are_compared_within_a_runtime(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {name: str for name in MILLISECONDS if name != "torchvision"}
    monkeypatch.setattr(benchmark, "_faster_rcnn_call", lambda image: str)
    monkeypatch.setattr(benchmark, "_calls", lambda runtime, sizes, image: calls)
    monkeypatch.setattr(
        benchmark,
        "measure_interleaved",
        lambda calls, rounds: {name: [seconds_of(name, index) for index in range(rounds)] for name in calls},
    )
    monkeypatch.setattr(benchmark, "run_in_subprocess", lambda module, task: time_calls(task))
    report = tmp_path / "report.json"
    main(["detector", "--threads", "1", "4", "--rounds", "3", "--json", str(report)])
    written = json.loads(report.read_text())
    rows = {(row["threads"], row["runtime"], row["call"]): row for row in written["rows"]}
    networks = [("torch", "torchvision"), *((runtime, call) for runtime in RUNTIMES for call in calls)]
    assert rows.keys() == {(threads, *network) for threads in (1, 4) for network in networks}
    for runtime, to_faster_rcnn in (("torch", 0.2), ("openvino", 0.1)):
        row = rows[4, runtime, "detector 64"]
        for key, expected in {"to_pose": 2.0, "to_pose_network": 2.5, "to_faster_rcnn": to_faster_rcnn}.items():
            assert row[key] == pytest.approx(dict.fromkeys(("median", "quartile_low", "quartile_high"), expected))
    assert "to_pose" not in rows[1, "torch", "pose"]
    table = capsys.readouterr().out
    assert "| 1 | torch | torchvision | 100.0 (100.0 to 200.0) | - | - | - |" in table
    assert "| detector 64 | 10.0 (10.0 to 20.0) | 2.00 (2.00 to 2.00) | 2.50 (2.50 to 2.50) | 0.10" in table


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_detector_and_pose_are_timed(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratios, "_SECONDS_PER_MEASUREMENT", 0)
    monkeypatch.setattr(benchmark, "_faster_rcnn_call", lambda image: lambda: time.sleep(0.2))
    task = {"runtimes": [runtime], "sizes": [64], "threads": 1, "rounds": 1, "image": str(IMAGE)}
    rows = {(row["runtime"], row["call"]): row for row in time_calls(task)}
    assert rows.keys() == {("torch" if call == "torchvision" else runtime, call) for call in MILLISECONDS}
    assert rows["torch", "torchvision"]["milliseconds"]["median"] >= 200
    assert all(row["milliseconds"]["median"] > 0 for row in rows.values())
    assert rows[runtime, "detector 64"]["to_faster_rcnn"]["median"] > 0


@pytest.mark.slow
def test_command_times_networks_in_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    main(["detector", "--runtimes", "torch", "--sizes", "64", "--threads", "1", "--rounds", "1"])
    table = capsys.readouterr().out
    assert "| 1 | torch | torchvision |" in table
    assert "| 1 | torch | detector 64 |" in table


def test_invalid_arguments_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"torch, openvino.*'fast'"):
        benchmark_detector(["fast"])
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        benchmark_detector(image=tmp_path / "absent.jpg")
    with pytest.raises(ValueError, match="--rounds"):
        main(["detector", "--rounds", "0"])

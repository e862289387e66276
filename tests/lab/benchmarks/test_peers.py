"""The benchmark of peers: rows of networks and of calls, the plot, and MediaPipe in another environment."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tools.lab.benchmarks import peers as benchmark
from tools.lab.benchmarks import ratios
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.accuracy import _spread, card_accuracies
from tools.lab.benchmarks.peers import RUNTIMES, benchmark_peers, plot_peers, time_networks

FAKE_MEDIAPIPE = """
from types import SimpleNamespace

class Pose:
    def __init__(self, static_image_mode, model_complexity): ...
    def process(self, image): return SimpleNamespace(pose_landmarks=PERSON)

solutions = SimpleNamespace(pose=SimpleNamespace(Pose=Pose))
"""


@pytest.fixture
def fake_times(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, dict[str, Any]], list[dict[str, Any]]]:
    """Replaces exports and processes; networks take 1, 2, 3, ... ms."""

    def run(measure: Callable, task: dict[str, Any]) -> list[dict[str, Any]]:
        is_networks = measure is time_networks
        names = [*task["sizes"], *task["tflite"]] if is_networks else [f"{name}, box given" for name in task["presets"]]
        seconds = {name: [index / 1e3] * task["rounds"] for index, name in enumerate(names, start=1)}
        reference = "balanced" if is_networks else "balanced, box given"
        return benchmark._rows(seconds, task.get("runtime", "posedy"), task["threads"], reference)

    size = {"file": "x.onnx", "input": [256, 192], "parameters": 2_000_000, "madds": 300_000_000}
    monkeypatch.setattr(benchmark, "export_network", lambda name, path: dict(size))
    monkeypatch.setattr(benchmark, "run_in_subprocess", run)
    return run


@pytest.mark.usefixtures("fake_times")
def test_report_table_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, plot = tmp_path / "report.json", tmp_path / "plot.png"
    main(["peers", "--threads", "1", "--rounds", "2", "--json", str(report), "--plot", str(plot)])
    printed = capsys.readouterr()
    assert "BlazePose is left out" in printed.err
    assert "| light | 256x192 | 2.00 | 300 | openvino | 1 | 1.0 (1.0 to 1.0) | 0.50 (0.50 to 0.50) |" in printed.out
    assert "| balanced, box given | posedy | 1 | 2.0 (2.0 to 2.0) | 1.00 (1.00 to 1.00) |" in printed.out
    rows = json.loads(report.read_text())["rows"]
    assert {(row["runtime"], row["threads"], row["batch"]) for row in rows} == {(name, 1, 1) for name in RUNTIMES}
    image = cv2.imread(str(plot))
    assert image is not None
    assert image.std() > 10


@pytest.mark.usefixtures("fake_times")
def test_networks_of_mediapipe_are_timed_in_openvino_too(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {
        "calls": {"BlazePose lite, tracked": [0.004]},
        "networks": {"BlazePose lite": [0.003]},
        "files": {"lite": "lite.tflite"},
        "missing": ["full", "heavy"],
    }
    monkeypatch.setattr(benchmark, "_run_mediapipe", lambda python, threads, rounds: measured)
    messages: list[str] = []
    report = benchmark_peers(
        threads=[2], rounds=1, mediapipe_python=Path("python"), networks=["light"], log=messages.append
    )
    assert any("full and heavy" in message for message in messages)
    times = {(row["model"], row["runtime"]): row["milliseconds"]["median"] for row in report["rows"]}
    assert times["BlazePose lite", "litert"] == pytest.approx(3)
    assert ("BlazePose lite", "openvino") in times
    assert ("BlazePose lite", "onnxruntime") not in times
    assert report["calls"][0]["to_reference"] is None
    assert plot_peers(report).startswith(b"\x89PNG")


def run_script(folder: Path, person: str) -> subprocess.CompletedProcess[str]:
    package = folder / "mediapipe"
    (package / "modules/pose_landmark").mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE_MEDIAPIPE.replace("PERSON", person))
    (package / "modules/pose_landmark/pose_landmark_full.tflite").touch()
    (folder / "ai_edge_litert.py").write_text("raise ImportError")
    cv2.imwrite(str(folder / "image.png"), np.zeros((8, 8, 3), np.uint8))
    task = json.dumps({"image": str(folder / "image.png"), "threads": 1, "rounds": 1})
    script = benchmark.blazepose_script.__file__
    environment = {"PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, script, task], env=environment, capture_output=True, text=True, check=False)


def test_the_script_needs_no_posedy(tmp_path: Path) -> None:
    done = run_script(tmp_path, "1")
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result["calls"]) == ["BlazePose full, tracked", "BlazePose full, with detector"]
    assert result["networks"] == {}
    assert result["missing"] == ["lite", "heavy"]


def test_the_script_fails_without_a_person(tmp_path: Path) -> None:
    done = run_script(tmp_path, "None")
    assert done.returncode != 0
    assert "BlazePose full" in done.stderr


def test_a_failure_of_mediapipe_names_its_python() -> None:
    with pytest.raises(RuntimeError, match="MediaPipe failed in"):
        benchmark._run_mediapipe(Path(sys.executable), 1, 1)  # this environment has no MediaPipe


@pytest.mark.slow
def test_networks_run_in_each_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratios, "_SECONDS_PER_MEASUREMENT", 0.0)
    names = ["balanced", "RTMPose-t", "MoveNet Lightning"]
    sizes = {name: benchmark.export_network(name, tmp_path / f"{index}.onnx") for index, name in enumerate(names)}
    for runtime in RUNTIMES:
        rows = time_networks({"sizes": sizes, "tflite": {}, "runtime": runtime, "threads": 1, "rounds": 1})
        assert [row["model"] for row in rows] == names
        assert rows[0]["to_reference"]["median"] == 1


@pytest.mark.slow
def test_calls_predict_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratios, "_SECONDS_PER_MEASUREMENT", 0.0)
    rows = benchmark.time_calls({"presets": ["balanced"], "threads": 1, "rounds": 1})
    assert [row["model"] for row in rows] == ["balanced, box given", "balanced, with detector"]


@pytest.mark.parametrize(
    "options", [["--runtimes", "numpy"], ["--networks", "unknown"], ["--rounds", "0"], ["--threads", "0"]]
)
def test_invalid_options_are_rejected(options: list[str]) -> None:
    with pytest.raises(ValueError, match=r"numpy|unknown|at least 1"):
        main(["peers", *options])


def test_accuracies_of_the_model_cards() -> None:
    accuracies = card_accuracies()
    assert accuracies["light"]["AP"] < accuracies["balanced"]["AP"] < accuracies["accurate"]["AP"]
    for metrics in accuracies.values():
        interval = metrics["intervals"]["AP"]
        assert 0 < interval["low"] < metrics["AP"] < interval["high"] < 1


def test_labels_are_moved_apart_around_their_mean() -> None:
    assert _spread([0.1, 0.5, 0.6], 0.05) == pytest.approx([0.1, 0.5, 0.6])
    assert _spread([0.1, 0.1, 0.7], 0.2) == pytest.approx([0.0, 0.2, 0.7])
    assert _spread([0.4, 0.45, 0.5], 0.1) == pytest.approx([0.35, 0.45, 0.55])

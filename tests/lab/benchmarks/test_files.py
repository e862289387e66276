"""The benchmark of exported files compares times with the first file, in each runtime."""

import json
from pathlib import Path

import pytest

from posedy.export.graph_file import GraphInfo
from posedy.models.factory import create_model
from tools.lab.benchmarks import files as benchmark
from tools.lab.benchmarks.__main__ import main


def test_times_are_relative_to_the_first_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = create_model("resnet10-fpn", input_size=(64, 96))
    info = GraphInfo.from_network(net, batch=1, runtime="openvino")
    files = [tmp_path / "float.onnx", tmp_path / "int8.onnx"]
    shapes = []

    class Model:
        def SerializeToString(self) -> bytes:  # noqa: N802 - as of protobuf
            return b""

    def measure(calls: dict, rounds: int) -> dict[str, list[float]]:
        for call in calls.values():
            call()
        return {name: [0.004 if name.endswith("int8.onnx") else 0.008] * rounds for name in calls}

    for file in files:
        file.write_bytes(b"x" * 100_000)
    monkeypatch.setattr(benchmark, "read_graph", lambda path: (Model(), info))
    monkeypatch.setattr(benchmark, "make_runner", lambda *_, threads: lambda x: shapes.append(x.shape))
    monkeypatch.setattr(benchmark, "measure_interleaved", measure)
    main(["files", *map(str, files), "--threads", "2", "--json", str(tmp_path / "x.json")])
    assert set(shapes) == {(1, 3, 96, 64)}
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [(row["runtime"], row["to_reference"]["median"]) for row in rows] == [
        ("onnxruntime", 1.0),
        ("onnxruntime", 0.5),
        ("openvino", 1.0),
        ("openvino", 0.5),
    ]
    assert f"| openvino | 2 | {files[1]} | 0.1 | 4.0 (4.0 to 4.0) | 0.50 (0.50 to 0.50) |" in capsys.readouterr().out

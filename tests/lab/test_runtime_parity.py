"""The keypoints of exported files are the same in all runtimes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from posedy.models.pretrained import load_checkpoint
from tools.lab.runtime_parity import __main__ as parity
from tools.lab.runtime_parity.__main__ import DETECTOR, FILES, Parity, format_parity, main, person_crops

MAX_DISTANCE = 0.5  # pixels of the crop


@pytest.mark.slow
def test_keypoints_are_those_of_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    main(["--count", "64", "--json", str(report)])
    table = capsys.readouterr().out
    results = {(row["runtime"], row["file"]): row for row in json.loads(report.read_text())}
    for file in ("batch free", "batch 1"):
        for runtime in ("onnxruntime", "openvino", "opencv"):
            assert results[runtime, file]["largest"] < MAX_DISTANCE
            assert f"| {runtime} | {file} | 0.0" in table
    for runtime in ("onnxruntime", "openvino"):
        assert results[runtime, "batch 1, with decoding"]["largest"] < MAX_DISTANCE
    halves = [results[runtime, "batch 1, float16 weights"] for runtime in ("onnxruntime", "openvino", "opencv")]
    for half in halves:  # the error is that of the weights: equal in all runtimes
        assert half["mean"] == pytest.approx(halves[0]["mean"], abs=0.001)
    # OpenCV DNN has neither comparisons nor free image sizes
    assert results["opencv", "batch 1, with decoding"]["error"]
    assert results["opencv", DETECTOR]["error"]


def test_crops_are_the_same_in_every_run() -> None:
    crops = person_crops(4, (64, 96))
    assert crops.shape == (4, 96, 64, 3)
    assert crops.std(axis=(1, 2, 3)).min() > 10
    np.testing.assert_array_equal(crops, person_crops(4, (64, 96)))


@pytest.mark.parametrize("count", ["1", "162"])
def test_invalid_counts_are_rejected(count: str) -> None:
    with pytest.raises(ValueError, match=r"at (least|most)"):
        main(["--count", count])


def test_a_runtime_that_fails_is_a_line_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"no graph")
    net, inputs = load_checkpoint("balanced"), np.zeros((1, 3, 8, 8), np.float32)
    runs = {
        "opencv": lambda: parity.run_opencv(path, inputs, 1),
        "ncnn": lambda: parity._run_ncnn(Path(sys.executable), path, inputs),  # this environment has no ncnn
    }
    (name, *_) = FILES
    results = [parity._compare(runtime, name, run, net, inputs) for runtime, run in runs.items()]
    assert all(result.error for result in results)
    assert "ncnn" in str(results[1].error)
    table = format_parity([*results, Parity("openvino", name, 0.25, 0.01)])
    assert "| opencv | batch free | fails: " in table
    assert table.splitlines()[-1] == "| openvino | batch free | 0.2500 | 0.01000 |"

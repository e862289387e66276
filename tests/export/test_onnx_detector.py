"""ONNX export of the person detector: equality with PyTorch in both runtimes, and its use as weights."""

import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from posedy.cli.main import main
from posedy.export import onnx_detector
from posedy.export.graph_file import DETECTOR_KEY, read_metadata
from posedy.export.onnx_detector import export_detector_onnx
from posedy.export.runtimes import Runtime
from posedy.inference.detectors.nanodet import PersonDetector, decode_boxes
from posedy.models.nanodet import NUM_BINS, PERSON_WEIGHTS, decode_outputs
from posedy.prediction import load_model

MINI = Path(__file__).parents[2] / "data/coco_mini/val2017"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    report = export_detector_onnx(path, half=True)
    assert report.difference < 1e-4  # the weights in the package are float16
    return path


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    first = cv2.imread(str(MINI / "000000091406.jpg"))
    return [first, first[:300, :240], np.ascontiguousarray(first[:, ::-1])]


@pytest.mark.parametrize(("width", "height"), [(32, 32), (96, 64), (416, 320)])
def test_outputs_are_decoded_as_by_the_detector(width: int, height: int) -> None:
    """The detector decodes selected locations in numpy, the graph all of them in PyTorch."""
    count = width * height * 21 // 1024
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, count, 1, generator=generator)
    bins = 3 * torch.randn(1, count, 4, NUM_BINS, generator=generator)
    boxes, scores = decode_outputs(logits, bins, (width, height))
    expected_boxes, expected_scores = decode_boxes(logits[0, :, 0].numpy(), bins[0].numpy(), (width, height), 0.0)
    order = np.argsort(-scores[0].numpy(), kind="stable")[: len(expected_boxes)]
    np.testing.assert_allclose(scores[0].numpy()[order], expected_scores, atol=1e-6)
    np.testing.assert_allclose(boxes[0].numpy()[order], expected_boxes, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_exported_detector_finds_the_same_persons(
    exported: Path, images: list[NDArray[np.uint8]], runtime: str
) -> None:
    expected = PersonDetector(320, device="cpu", runtime="torch").detect_many(images)
    detector = PersonDetector(320, device="cpu", runtime=runtime, weights=exported)
    assert detector.runtime == runtime
    for (boxes, scores), (expected_boxes, expected_scores) in zip(detector.detect_many(images), expected, strict=True):
        assert len(scores) > 0
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
        np.testing.assert_allclose(boxes, expected_boxes, atol=0.05)


@pytest.mark.slow
def test_the_command_line_exports_and_uses_it(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    image = MINI / "000000091406.jpg"
    files = [tmp_path / name for name in ("exported.json", "bundled.json")]
    assert main(["detect", str(image), "--detector-weights", str(exported), "--out", str(files[0])]) == 0
    assert main(["detect", str(image), "--out", str(files[1])]) == 0
    counts = [line for line in capsys.readouterr().out.splitlines() if "boxes on" in line]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("recorded", "installed", "expected"),
    [
        ({"runtime": "onnxruntime"}, True, "onnxruntime"),
        ({"runtime": "onnxruntime"}, False, "openvino"),
        ({"runtime": "openvino"}, True, "openvino"),
        ({}, True, "openvino"),  # files of earlier versions
    ],
)
def test_a_file_runs_in_the_runtime_of_its_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: dict[str, str], installed: bool, expected: str
) -> None:
    monkeypatch.setattr(onnx_detector, "prefers_openvino", lambda: True)
    monkeypatch.setattr(onnx_detector, "is_installed", lambda package: installed)
    monkeypatch.setattr(onnx_detector, "_make_runner", lambda model, runtime, threads: runtime)
    entries = {DETECTOR_KEY: json.dumps({"name": "x"} | recorded)}
    monkeypatch.setattr(onnx_detector, "read_metadata", lambda path: (onnx.ModelProto(), entries))
    assert PersonDetector(weights=tmp_path / "x.onnx").runtime == expected
    assert PersonDetector(weights=tmp_path / "x.onnx", runtime="onnxruntime").runtime == "onnxruntime"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_runtime_of_the_export_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Runtime
) -> None:
    def write_empty_graph(module: object, images: object, path: Path, *_: object) -> None:
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), path)

    monkeypatch.setattr(onnx_detector, "trace", write_empty_graph)
    monkeypatch.setattr(onnx_detector, "_largest_difference", lambda *_: 0.0)
    monkeypatch.setattr(onnx_detector, "_make_runner", lambda *_: None)
    export_detector_onnx(tmp_path / "x.onnx", runtime=runtime)
    assert json.loads(read_metadata(tmp_path / "x.onnx")[1][DETECTOR_KEY])["runtime"] == runtime


@pytest.mark.parametrize(
    "options",
    [
        ["--out", "detector.safetensors"],
        ["--out", "detector.onnx", "--decode"],
        ["--out", "detector.onnx", "--batch", "free"],
    ],
)
def test_options_of_pose_networks_are_rejected(options: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["export", PERSON_WEIGHTS.stem, *options])
    assert PERSON_WEIGHTS.stem in capsys.readouterr().err


@pytest.mark.slow
def test_wrong_files_are_rejected(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detector"):
        load_model(exported, "cpu")
    (tmp_path / "damaged.onnx").write_bytes(exported.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged\.onnx"):
        PersonDetector(weights=tmp_path / "damaged.onnx")
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        PersonDetector(weights=tmp_path / "absent.onnx")
    with pytest.raises(ValueError, match="torch"):
        PersonDetector(weights=exported, runtime="torch")
    with pytest.raises(ValueError, match=r"NAME\.onnx"):
        export_detector_onnx(tmp_path / "detector.pt")
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        export_detector_onnx(tmp_path / "out.onnx", tmp_path / "other.safetensors")
    assert not (tmp_path / "out.onnx").exists()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(onnx_detector, "_write_graph", fill_disk)
    with pytest.raises(OSError, match=r"/x\.onnx cannot be written \(No space left.*free disk space"):
        export_detector_onnx(tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())

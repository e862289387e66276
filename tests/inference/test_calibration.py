"""Calibration crops are of other images than the comparison, and inaccurate int8 networks are rejected."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from posedy.cli.main import main
from posedy.evaluation.bootstrap import ConfidenceInterval
from posedy.export.graph_file import GraphInfo
from posedy.inference import calibration
from posedy.inference.calibration import read_calibration
from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet


@pytest.fixture(scope="module")
def net() -> PoseNet:
    return create_model("resnet10-fpn", input_size=(96, 128)).eval()


@pytest.fixture
def annotations(synthetic: Path) -> Path:
    return synthetic / "annotations/person_keypoints_val2017.json"


def test_every_other_image_is_for_calibration(
    net: PoseNet, synthetic: Path, annotations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(annotations.read_text())
    ids = sorted(record["id"] for record in content["images"])
    labeled = [a["image_id"] for a in content["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
    result = read_calibration(net, synthetic / "val2017", annotations)
    assert len(result.crops) == sum(image_id in ids[::2] for image_id in labeled)
    assert len(result.check_crops) == sum(image_id in ids[1::2] for image_id in labeled)
    assert result.crops.shape[1:] == (128, 96, 3)
    again = read_calibration(net, synthetic / "val2017", annotations)
    np.testing.assert_array_equal(result.crops, again.crops)
    assert not {crop.tobytes() for crop in result.crops} & {crop.tobytes() for crop in result.check_crops}
    monkeypatch.setattr(calibration, "MAX_CROPS", 3)
    assert len(read_calibration(net, synthetic / "val2017", annotations).crops) == 3


@pytest.mark.parametrize(("gain", "allow_drop"), [(-0.009, False), (-0.011, False), (np.nan, False), (-0.011, True)])
def test_a_drop_of_ap_is_rejected_unless_allowed(
    net: PoseNet,
    synthetic: Path,
    annotations: Path,
    monkeypatch: pytest.MonkeyPatch,
    gain: float,
    allow_drop: bool,
) -> None:
    evaluated = SimpleNamespace(metrics={"AP": 0.5}, results=[])
    monkeypatch.setattr(calibration, "evaluate_model", lambda *_, **__: evaluated)
    monkeypatch.setattr(
        calibration, "bootstrap_difference", lambda *_: {"AP": (gain, ConfidenceInterval(gain - 0.1, gain + 0.1))}
    )
    check = read_calibration(net, synthetic / "val2017", annotations, allow_drop).check
    assert check is not None
    info = GraphInfo.from_network(net, batch=1, runtime="onnxruntime", weights="int8")
    if not gain >= -0.01 and not allow_drop:
        with pytest.raises(ValueError, match=f"too inaccurate.* {re.escape(f'{gain:+.3f}')} "):
            check(flat, flat, info)
    else:
        assert f"{gain:+.3f}" in check(flat, flat, info)


def flat(images: np.ndarray) -> list[np.ndarray]:
    return [np.zeros((len(images), 17, 32, 24), np.float32)]


@pytest.mark.parametrize("allow_drop", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_network_without_accuracy_is_rejected_unless_allowed(
    net: PoseNet, synthetic: Path, annotations: Path, allow_drop: bool
) -> None:
    """Its AP of 0 could not drop, whatever the int8 network computes."""
    check = read_calibration(net, synthetic / "val2017", annotations, allow_drop).check
    assert check is not None
    info = GraphInfo.from_network(net, batch=1, runtime="onnxruntime", weights="int8")
    if allow_drop:
        assert "AP 0.000, float 0.000" in check(flat, flat, info)
    else:
        with pytest.raises(ValueError, match=r"says nothing.*AP 0\.000, float 0\.000"):
            check(flat, flat, info)


def test_annotations_of_other_images_are_rejected(
    net: PoseNet, synthetic: Path, annotations: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    content = json.loads(annotations.read_text())
    for record in content["images"]:
        cv2.imwrite(str(folder / record["file_name"]), np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ValueError, match="wrong image size"):
        read_calibration(net, folder, annotations)
    first = min(record["id"] for record in content["images"])
    content["annotations"] = [record for record in content["annotations"] if record["image_id"] == first]
    few = tmp_path / "few.json"
    few.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no person with keypoints in the images for comparison"):
        read_calibration(net, synthetic / "val2017", few)


def test_annotated_images_may_be_in_subfolders(
    net: PoseNet, synthetic: Path, annotations: Path, tmp_path: Path
) -> None:
    content = json.loads(annotations.read_text())
    for record in content["images"]:
        record["file_name"] = f"val2017/{record['file_name']}"
    nested = tmp_path / "nested.json"
    nested.write_text(json.dumps(content))
    expected = read_calibration(net, synthetic / "val2017", annotations)
    np.testing.assert_array_equal(read_calibration(net, synthetic, nested).crops, expected.crops)


def test_inputs_are_checked(net: PoseNet, synthetic: Path, annotations: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image in folder"):
        read_calibration(net, tmp_path / "empty")
    others = create_model("resnet10-fpn", input_size=(96, 128), num_keypoints=5, skeleton=None).eval()
    with pytest.raises(ValueError, match="5 keypoints"):
        read_calibration(others, synthetic / "val2017", annotations)
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.jpg"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="at least two images, got 1"):
        read_calibration(net, folder)
    with pytest.raises(ValueError, match=r"at least two images of .*got 0"):
        read_calibration(net, folder, annotations)
    shutil.copy(folder / "a.jpg", folder / "b.jpg")
    with pytest.raises(ValueError, match="no person was detected"):
        read_calibration(net, folder)
    (folder / "b.jpg").write_bytes(b"not an image")
    with pytest.raises(OSError, match=r"b\.jpg"):
        read_calibration(net, folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibrate", "images"], "--calibrate needs --int8"),
        (["--int8", "--annotations", "x.json"], "--annotations needs --calibrate"),
        (["--int8", "--allow-drop"], "--allow-drop needs --calibrate"),
        (["--int8", "--half"], "--half and --int8"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["export", "balanced", "--out", "x.onnx", *arguments])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["balanced", "--out", "x.safetensors"], ["nanodet_g_person", "--out", "x.onnx"]])
def test_int8_is_for_onnx_files_of_pose_networks(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["export", *arguments, "--int8"])
    assert exit_info.value.code == 2
    assert "--int8 is for" in capsys.readouterr().err


@pytest.mark.slow
def test_command_exports_a_calibrated_network(
    synthetic: Path, annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, numbers = tmp_path / "x.onnx", tmp_path / "x.json"
    arguments = ["export", "light", "--out", str(out), "--int8", "--calibrate", str(synthetic / "val2017")]
    arguments += ["--annotations", str(annotations), "--allow-drop", "--json", str(numbers)]
    assert main(arguments) == 0
    assert out.stat().st_size < 4.5e6
    record = json.loads(numbers.read_text())
    assert {"moved_fraction", "mean_distance", "float_layers", "accuracy"} <= record.keys()
    assert "not used for calibration" in capsys.readouterr().out

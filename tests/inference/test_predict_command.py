import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posedy.cli.main import main
from posedy.cli.predict import register_parser, run
from posedy.examples import example_images
from posedy.inference.estimator import PoseEstimator
from posedy.models.network_file import save_weights
from posedy.models.pose_net import PoseNet


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    commands = argparse.ArgumentParser().add_subparsers()
    register_parser(commands)
    return commands.choices["predict"]


def test_run_returns_the_exit_code(
    parser: argparse.ArgumentParser, net: PoseNet, image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(net, tmp_path / "model.safetensors")
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").touch()
    common = ["--checkpoint", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    arguments = [str(tmp_path / "a.png"), *common, "--box", "10,20,120,140", "--box=-5,0,100.5,120", "--no-flip"]
    assert run(parser.parse_args(arguments)) == 0
    (record,) = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert [person["box_xyxy"] for person in record["persons"]] == [[10, 20, 120, 140], [-5, 0, 100.5, 120]]
    assert "flip test off" in capsys.readouterr().out
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "broken.jpg"), *common, "--full-image"]
    assert run(parser.parse_args(arguments)) == 1
    printed = capsys.readouterr().out
    assert "broken.jpg: FAILED: " in printed
    assert printed.endswith("FAILED: 1 of 2 images\n")


def test_a_url_that_fails_does_not_end_the_others(
    parser: argparse.ArgumentParser,
    net: PoseNet,
    image: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_weights(net, tmp_path / "model.safetensors")
    Image.fromarray(image).save(tmp_path / "a.png")
    long = f"https://example.com/{'ä' * 300}.png"

    def read(url: str) -> bytes:
        if url != long:
            raise OSError(f"{url} cannot be read: 404")
        return (tmp_path / "a.png").read_bytes()

    monkeypatch.setattr("posedy.images.read_url", read)
    options = ["--checkpoint", str(tmp_path / "model.safetensors"), "--device", "cpu", "--full-image", "--no-flip"]
    absent = "https://example.com/b.png"
    assert run(parser.parse_args([absent, long, *options, "--out", str(tmp_path / "out")])) == 1
    assert f"{absent}: FAILED: {absent} cannot be read: 404" in capsys.readouterr().out
    (record,) = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert Path(record["file"]).parent == tmp_path / "out" / "downloads"
    assert run(parser.parse_args([absent, f"{absent}2", *options, "--out", str(tmp_path / "none")])) == 1
    assert "FAILED: 2 of 2 downloads and images" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    with pytest.raises(OSError, match="404"):
        run(parser.parse_args([absent, *options, "--out", str(tmp_path / "none")]))


def test_images_without_persons_give_the_option_that_finds_more(
    parser: argparse.ArgumentParser, net: PoseNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(net, tmp_path / "model.safetensors")
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), "--checkpoint", str(tmp_path / "model.safetensors"), "--device", "cpu"]
    assert run(parser.parse_args([*arguments, "--out", str(tmp_path / "out")])) == 0
    assert "--box-threshold" in capsys.readouterr().err
    assert run(parser.parse_args([*arguments, "--full-image", "--out", str(tmp_path / "out")])) == 0
    assert "--box-threshold" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("62.5", 62.5), ("90", 90), ("1:02.5", 62.5), ("1:2", 62), ("75:00", 4500), ("1:01:02.5", 3662.5)],
)
def test_times_are_seconds_minutes_or_hours(text: str, seconds: float, parser: argparse.ArgumentParser) -> None:
    parsed = parser.parse_args(["a.mp4", "--from", text, "--to", text])
    assert (parsed.start, parsed.end) == (seconds, seconds)


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "nan", "inf", "1:60", "1:60:00", "1:", ":5", "1:2:3:4", "1.5:00", "-1:00"]
)
def test_invalid_times_are_errors_of_usage(
    text: str, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--from", "--to"):
        with pytest.raises(SystemExit):
            parser.parse_args(["a.mp4", f"{option}={text}"])
        error = capsys.readouterr().err
        assert option in error
        assert repr(text) in error


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_file_names_that_cannot_be_printed_are_escaped(
    net: PoseNet, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    save_weights(net, tmp_path / "model.safetensors")
    folder = Path(os.fsdecode(os.fsencode(tmp_path / "ünï") + b"\xe9"))
    folder.mkdir()
    for name in ("a.png", "ä.png"):
        Image.fromarray(image).save(folder / name)
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding, errors="strict"))
    arguments = ["--checkpoint", str(tmp_path / "model.safetensors"), "--device", "cpu", "--full-image", "--no-flip"]
    assert main(["predict", str(folder), *arguments, "--out", str(tmp_path / "out")]) == 0
    printed = output.getvalue().decode(encoding)
    assert r"\udce9" in printed
    assert "2 persons on 2 of 2 images" in printed
    records = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert [record["file"] for record in records] == [str(folder / "a.png"), str(folder / "ä.png")]


def test_examples_need_no_inputs(parser: argparse.ArgumentParser, net: PoseNet, tmp_path: Path) -> None:
    save_weights(net, tmp_path / "model.safetensors")
    options = ["--checkpoint", str(tmp_path / "model.safetensors"), "--device", "cpu", "--no-flip", "--full-image"]
    assert run(parser.parse_args(["--examples", *options, "--out", str(tmp_path / "out")])) == 0
    records = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert [record["file"] for record in records] == [str(image.path) for image in example_images()]
    assert all((tmp_path / "out" / record["drawing"]).is_file() for record in records)


def test_the_command_and_the_api_give_the_same_persons(net: PoseNet, tmp_path: Path) -> None:
    save_weights(net, tmp_path / "model.safetensors")
    image = Path(__file__).parents[2] / "data/coco_mini/val2017/000000480936.jpg"
    options = ["--checkpoint", str(tmp_path / "model.safetensors"), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["predict", str(image), *options]) == 0
    (record,) = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    poses = PoseEstimator(tmp_path / "model.safetensors", "cpu")(image)
    assert len(poses) == 1
    assert record["persons"] == poses.to_records()
    assert len(PoseEstimator(tmp_path / "model.safetensors", "cpu", box_threshold=0.25)(image)) == 2


@pytest.mark.parametrize(
    ("occupied", "inputs"),
    [
        ("out", ["a.png"]),
        ("out", ["clip.mp4"]),
        ("out/keypoints.json", ["https://example.com/a.png"]),
        ("out/a.jpg", ["a.png"]),
        ("out/clip.mp4", ["clip.mp4"]),
        ("out/clip.jsonl", ["a.png", "clip.mp4"]),
    ],
)
def test_outputs_are_checked_before_anything_is_loaded(
    occupied: str,
    inputs: list[str],
    image: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for loading in ("images.download", "inference.detectors.create_detector", "inference.estimator.load_model"):
        monkeypatch.setattr(f"posedy.{loading}", None)
    Image.fromarray(image).save("a.png")
    if occupied == "out":
        Path("out").touch()
    else:
        Path(occupied).mkdir(parents=True)
    assert main(["predict", *inputs, "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{occupied} " in error


def test_torchvision_detector_is_the_default(
    parser: argparse.ArgumentParser, image: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    weights = tmp_path / "nowhere.pth"
    arguments = [str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--detector-weights", str(weights)]
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        run(parser.parse_args(arguments))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        run(parser.parse_args([*arguments, "--detector", "torchvision"]))


def test_unknown_detector_exits_with_1(image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(image).save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "a.png"), "--detector", "full", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "'full'" in error
    assert "'full-image'" in error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a.jpg", "--full-image", "--boxes", "x.json"], "not allowed with"),
        (["a.jpg", "--box", "1,2,3"], "'1,2,3'"),
        (["a.jpg", "--box", "1,2,3,b"], "'1,2,3,b'"),
        (["a.jpg", "--full-image", "--box-threshold", "nan"], "'nan'"),
        (["a.jpg", "--full-image", "--box-threshold", "30"], "'30'"),
        (["a.jpg", "--full-image", "--box-threshold", "high"], "'high'"),
        (["a.jpg", "--full-image", "--detector-weights", "w.pth"], "--detector posedy"),
        (["a.jpg", "--box", "0,0,9,9", "--detector-weights", "w.pth"], "--detector posedy"),
        (["a.jpg", "--boxes", "x.json", "--detector", "torchvision"], "not allowed with"),
        (["a.jpg", "--full-image", "--detector", "torchvision"], "not allowed with"),
        (["a.jpg", "--full-image", "--keypoint-threshold", "nan"], "'nan'"),
        (["a.jpg", "--full-image", "--keypoint-threshold", "1.1"], "'1.1'"),
        (["a.jpg", "--full-image", "--annotations", "x.json"], "--annotations needs --boxes"),
        (["a.mp4", "--box", "0,0,9,9"], "--box"),
        (["a.mp4", "--boxes", "x.json"], "--boxes"),
        ([], "no input"),
        (["a.jpg", "--examples"], "got a.jpg"),
        (["--examples", "--webcam", "0"], "got --webcam"),
        (["--examples", "--box", "0,0,9,9"], "got --box"),
    ],
)
def test_wrong_usage_exits_with_2(
    parser: argparse.ArgumentParser, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(parser.parse_args([*arguments, "--checkpoint", "m.pt"]))
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_parser_imports_no_heavy_packages() -> None:
    code = "import sys, posedy.cli.predict; print([m for m in ('torch', 'cv2', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

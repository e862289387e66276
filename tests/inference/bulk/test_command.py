"""`posedy predict --format`: the same poses as without, errors of usage, and images that fail."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import posedy
from posedy.cli.main import main

EXAMPLES = sorted((Path(posedy.__file__).parent / "examples").glob("*.jpg"))
FAST = ["--checkpoint", "light", "--no-flip"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name, example in zip(("b/1.jpg", "a/2.jpg", "3.jpg"), EXAMPLES, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(example, folder / name)
    return folder


def test_poses_are_those_of_the_command_without_format(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    assert main(["predict", str(images), "--out", str(out), "--format", "jsonl", "--draw", "2", *FAST]) == 0
    printed = capsys.readouterr().out
    assert f"FAILED: 1 image, listed in {out / 'errors.jsonl'}" in printed
    lines = [json.loads(line) for line in (out / "part-00000.jsonl").read_text().splitlines()]
    names = ["3.jpg", "a/2.jpg", "b/1.jpg"]
    assert [line["image"] for line in lines] == [str(images / name) for name in names]
    (error,) = map(json.loads, (out / "errors.jsonl").read_text().splitlines())
    assert error["image"] == str(images / "broken.jpg")
    assert "cannot be decoded" in error["error"]
    assert len(list((out / "drawings").glob("*.jpg"))) == 2
    assert all(line["model"].startswith("mobilenetv2_100-fpn@") for line in lines)
    assert main(["predict", *(str(images / name) for name in names), "--out", str(tmp_path / "plain"), *FAST]) == 0
    plain = {
        record["file"]: record["persons"] for record in json.loads((tmp_path / "plain/keypoints.json").read_text())
    }
    assert {line["image"]: line["persons"] for line in lines} == plain
    assert sum(map(len, plain.values())) > 3


@pytest.mark.slow
def test_resumed_command_must_be_the_same(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", str(images), "--out", str(tmp_path / "out"), "--format", "jsonl", *FAST]
    assert main(command) == 0
    assert main(command) == 0
    assert "0 left for this process" in capsys.readouterr().out
    assert main([*command, "--box-threshold", "0.7"]) == 1
    error = capsys.readouterr().err
    assert "has results of other settings: box threshold was 0.4, now 0.7; resume with" in error
    assert main([*command, "--flip"]) == 1
    assert "flip was False, now True" in capsys.readouterr().err


@pytest.mark.slow
def test_threads_of_pytorch_must_stay_as_they_change_the_last_digits(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(images), "--out", str(tmp_path / "out"), "--format", "jsonl", *FAST]
    assert main(command) == 0
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    assert main(command) == 1
    assert "threads was 1, now 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--box", "1,2,3,4"], "--box has no meaning with --format: leave it out"),
        (["--smooth", "offline"], "--smooth has no meaning with --format"),
        (["--webcam", "0"], "--webcam has no meaning with --format"),
        (["--draw", "-1"], "--draw: expected at least 0, got -1"),
    ],
)
def test_options_for_other_outputs_are_rejected(
    images: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(images), "--format", "jsonl", *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--draw", "--image-column"])
def test_options_for_tables_need_the_format(images: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(images), option, "3"])
    assert f"{option} needs --format" in capsys.readouterr().err


def test_process_numbers_must_fit(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(images), "--format", "jsonl"])
    assert "got RANK=2 and WORLD_SIZE=2" in capsys.readouterr().err


def test_no_input_is_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "--format", "parquet"])
    assert "no input: give images, folders" in capsys.readouterr().err


def test_weights_of_the_default_detector_need_no_name(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--format", "jsonl", "--detector-weights", str(tmp_path / "missing.onnx"), *FAST]
    assert main(["predict", str(images), "--out", str(tmp_path / "out"), *options]) == 1
    assert "missing.onnx" in capsys.readouterr().err


def test_lines_are_printed_at_once(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log file shows them during the run."""
    flushed: list[bool] = []
    monkeypatch.setattr("builtins.print", lambda *texts, flush=False, **options: flushed.append(flush))
    main(["predict", str(images / "3.jpg"), "--out", str(tmp_path / "out"), "--format", "jsonl", *FAST])
    assert flushed.count(True) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "auto"])
def test_torchrun_writes_the_files_of_one_process(tmp_path: Path, runtime: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(136):
        (images / f"{number:03d}.jpg").symlink_to(EXAMPLES[number % 6])
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {key: value for key, value in os.environ.items() if key != "POSEDY_RUNTIME"}
    if runtime == "torch":
        environment |= {"POSEDY_RUNTIME": "torch", "OMP_NUM_THREADS": "1"}
    for out, program in {"one": [], "two": torchrun}.items():
        command = [sys.executable, *program, "-m", "posedy", "predict", images, "--out", tmp_path / out]
        options = ["--format", "parquet", *FAST]
        done = subprocess.run(
            [*map(str, command), *options], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    parts = {path.name: path.read_bytes() for path in sorted((tmp_path / "one").glob("part-*"))}
    assert len(parts) == 3
    assert {path.name: path.read_bytes() for path in sorted((tmp_path / "two").glob("part-*"))} == parts

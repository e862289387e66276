import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posedy.cli.predict import register_parser, run
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import save_weights


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    commands = argparse.ArgumentParser().add_subparsers()
    register_parser(commands)
    return commands.choices["predict"]


def test_run_gives_the_exit_status(
    parser: argparse.ArgumentParser, net: PoseNet, photo: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(net, tmp_path / "model.safetensors")
    Image.fromarray(photo).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").touch()
    common = ["--checkpoint", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    arguments = [str(tmp_path / "a.png"), *common, "--box", "10,20,120,140", "--box=-5,0,100.5,120", "--no-flip"]
    assert run(parser.parse_args(arguments)) == 0
    (record,) = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert [person["box_xyxy"] for person in record["persons"]] == [[10, 20, 120, 140], [-5, 0, 100.5, 120]]
    assert "flip off" in capsys.readouterr().out
    assert run(parser.parse_args([str(tmp_path / "a.png"), str(tmp_path / "broken.jpg"), *common, "--whole"])) == 1
    assert "broken.jpg: NOT DONE: photo" in capsys.readouterr().out


def test_persons_are_detected_unless_it_is_said_where_they_are(
    parser: argparse.ArgumentParser, photo: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    weights = tmp_path / "nowhere.pth"
    arguments = [str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--detector-weights", str(weights)]
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        run(parser.parse_args(arguments))
    with pytest.raises(ValueError, match="--detector-weights belongs to --detect"):
        run(parser.parse_args([*arguments, "--whole"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--whole", "--boxes", "x.json"], "not allowed with"),
        (["--box", "1,2,3"], "'1,2,3' is not four numbers"),
        (["--box", "1,2,3,b"], "'1,2,3,b' is not four numbers"),
        (["--whole", "--box-threshold", "nan"], "'nan' is not a score from 0 to 1"),
        (["--whole", "--box-threshold", "30"], "'30' is not a score from 0 to 1"),
        (["--whole", "--box-threshold", "high"], "'high' is not a score from 0 to 1"),
    ],
)
def test_wrong_usage_exits_with_2(
    parser: argparse.ArgumentParser, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        parser.parse_args(["a.jpg", "--checkpoint", "m.pt", *arguments])
    assert error.value.code == 2
    assert words in capsys.readouterr().err


def test_nothing_heavy_is_imported_for_the_arguments() -> None:
    code = "import sys, posedy.cli.predict; print([m for m in ('torch', 'cv2', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

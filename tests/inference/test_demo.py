import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posedy.inference.demo import add_arguments, photo_paths, run
from posedy.models.pose_net import PoseNet
from posedy.weights.network_file import save_weights


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", "[1].jpg", "sub/c.jpeg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def test_a_folder_is_the_photos_in_it_sorted(folder: Path) -> None:
    assert photo_paths([str(folder)]) == [folder / "[1].jpg", folder / "a.png", folder / "b.JPG"]


def test_patterns_files_and_order(folder: Path) -> None:
    assert photo_paths([f"{folder}/*.png"]) == [folder / "a.png"]
    assert photo_paths([f"{folder}/**/*"]) == sorted(
        [folder / "[1].jpg", folder / "a.png", folder / "b.JPG", folder / "sub" / "c.jpeg"]
    )
    # a file is taken as it is, whatever its suffix or the brackets in its name
    files = [folder / "notes.txt", folder / "[1].jpg"]
    assert photo_paths([str(file) for file in files]) == files


def test_each_photo_comes_once(folder: Path) -> None:
    assert photo_paths([str(folder / "b.JPG"), f"{folder}/sub/../b.JPG", str(folder)]) == [
        folder / "b.JPG",
        folder / "[1].jpg",
        folder / "a.png",
    ]


def test_arguments_without_photos_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no photo directly in it \(looked for \.jpg"):
        photo_paths([str(folder), str(tmp_path / "empty")])
    with pytest.raises(ValueError, match=r"no photo matches .*\*\.bmp"):
        photo_paths([f"{folder}/*.bmp"])
    with pytest.raises(ValueError, match=r"no photo or folder at .*absent\.jpg"):
        photo_paths([str(tmp_path / "absent.jpg")])


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "one of the arguments --box --boxes --whole is required"),
        (["--whole", "--boxes", "x.json"], "not allowed with"),
        (["--box", "1,2,3"], "'1,2,3' is not four numbers"),
        (["--box", "1,2,3,b"], "'1,2,3,b' is not four numbers"),
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
    code = "import sys, posedy.inference.demo; print([m for m in ('torch', 'cv2', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

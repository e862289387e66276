"""`posedy convert`: printed results, written files and exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from posedy.cli.main import main, make_parser
from posedy.data.imports import IMPORT_FORMATS

REPOSITORY = Path(__file__).parents[2]
MINI = REPOSITORY / "data/coco_mini"
CONFIG = str(REPOSITORY / "configs/synthetic/short.yaml")
QUICK = ["model.input_size=[32,64]", "train.workers=0", "train.epochs=1", "train.batch_size=8", "train.precision=fp32"]


def to_yolo(out: Path, split: str = "val", *options: str) -> list[str]:
    annotations = MINI / f"annotations/person_keypoints_{split}2017.json"
    command = ["convert", str(annotations), "--to", "yolo", "--images", str(MINI / f"{split}2017")]
    return [*command, "--split", split, "--out", str(out), *options]


def to_coco(source: Path, out: Path, *options: str) -> list[str]:
    return ["convert", str(source), "--to", "coco", "--split", "val", "--out", str(out), *options]


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of coco_mini as a YOLO dataset."""
    out = tmp_path_factory.mktemp("convert") / "yolo"
    for split in ("train", "val"):
        assert main(to_yolo(out, split)) == 0
    return out


def test_both_directions_print_what_they_wrote(yolo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(to_yolo(tmp_path / "yolo")) == 0
    printed = capsys.readouterr().out
    assert "24 images, 88 persons\n" in printed
    assert "left out: 1 crowd\n" in printed
    assert str(tmp_path / "yolo/data.yaml") in printed
    assert main(to_coco(yolo, tmp_path / "val.json")) == 0
    printed = capsys.readouterr().out
    assert "24 images, 80 persons with keypoints" in printed
    assert f"wrote {tmp_path / 'val.json'}; its image folder is {yolo / 'images/val'}\n" in printed


def test_converted_file_passes_the_check_and_has_the_same_persons(yolo: Path, tmp_path: Path) -> None:
    out, numbers = tmp_path / "val.json", tmp_path / "check.json"
    assert main(to_coco(yolo / "data.yaml", out)) == 0
    assert main(["check", str(out), "--images", str(yolo / "images/val"), "--decode", "--json", str(numbers)]) == 0
    report = json.loads(numbers.read_text())
    assert (report["ok"], report["issues"]) == (True, [])
    assert ["left_eye", "right_eye"] in report["flip_pairs"]
    before = json.loads((MINI / "annotations/person_keypoints_val2017.json").read_text())
    persons = [annotation for annotation in before["annotations"] if not annotation["iscrowd"]]
    boxes = [np.array(sorted(annotation["bbox"] for annotation in side)) for side in (persons, _annotations(out))]
    np.testing.assert_allclose(boxes[1], boxes[0], rtol=0, atol=1e-6)


def _annotations(path: Path) -> list[dict[str, list[float]]]:
    return json.loads(path.read_text())["annotations"]


@pytest.mark.slow
def test_converted_file_trains(synthetic: Path, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    annotations, yolo = synthetic / "annotations/person_keypoints_val2017.json", tmp_path / "yolo"
    command = ["convert", str(annotations), "--to", "yolo", "--images", str(synthetic / "val2017"), "--split", "val"]
    assert main([*command, "--out", str(yolo)]) == 0
    out = tmp_path / "val.json"
    assert main(to_coco(yolo, out)) == 0
    data = [f"data.{split}_annotations={out}" for split in ("train", "val")]
    data += [f"data.{split}_images={yolo / 'images/val'}" for split in ("train", "val")]
    assert main(["train", CONFIG, *data, *QUICK, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/best.pt").is_file()


def test_images_option_changes_the_file_names(yolo: Path, tmp_path: Path) -> None:
    assert main(to_coco(yolo, tmp_path / "val.json", "--images", str(yolo))) == 0
    names = [image["file_name"] for image in json.loads((tmp_path / "val.json").read_text())["images"]]
    assert all(name.startswith("images/val/") for name in names)


def test_from_names_every_format() -> None:
    options = [text for name in ("coco", "yolo", *IMPORT_FORMATS) for text in ("--from", name)]
    parsed = make_parser().parse_args(["convert", "a", "--to", "coco", "--out", "a.json", *options])
    assert parsed.source_format == IMPORT_FORMATS[-1]


def test_next_command_names_no_folder_without_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"imagePath": "a.jpg", "imageWidth": 80, "imageHeight": 60, "shapes": []}
    content["shapes"] = [{"label": "nose", "shape_type": "point", "points": [[10, 20]]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    out = tmp_path / "out.json"
    assert main(["convert", str(tmp_path / "a.json"), "--to", "coco", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 images were not found" in printed
    assert printed.endswith(f"next: posedy check {out} --images DIR\n")


def test_copy_and_labels_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(to_yolo(tmp_path / "copied", "val", "--copy")) == 0
    images = list((tmp_path / "copied/images/val").iterdir())
    assert len(images) == 24
    assert not any(path.is_symlink() for path in images)
    command = to_yolo(tmp_path / "labels")
    index = command.index("--images")
    assert main([*command[:index], *command[index + 2 :]]) == 0
    assert str(tmp_path / "labels/images/val") in capsys.readouterr().out


def test_other_classes_and_assumptions_are_printed(
    yolo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = (yolo / "data.yaml").read_text().partition("kpt_names")[0]
    (tmp_path / "data.yaml").write_text(f"path: {yolo}\n" + description.replace("{0: person}", "{0: person, 1: dog}"))
    assert main(to_coco(tmp_path, tmp_path / "val.json", "--class", "person")) == 0
    assert "kpt_names" in capsys.readouterr().out
    assert main(to_coco(tmp_path, tmp_path / "dogs.json", "--class", "dog")) == 1
    assert "no usable person" in capsys.readouterr().err
    assert not (tmp_path / "dogs.json").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere.json", "--to", "yolo", "--out", "yolo"], "nowhere.json"),
        (["nowhere", "--to", "coco", "--out", "a.json"], "nowhere"),
        (["nowhere.yaml", "--to", "coco", "--out", "a.json"], "nowhere.yaml"),
        (["labels.txt", "--to", "coco", "--out", "a.json"], "labels.txt"),
        (["labels.txt", "--to", "yolo", "--out", "yolo"], "labels.txt"),
        (["empty", "--to", "coco", "--out", "a.json"], "data.yaml"),
        ([str(MINI / "annotations/person_keypoints_val2017.json"), "--to", "yolo", "--out", "full"], "full"),
        (["yolo", "--to", "coco", "--out", "old.json"], "old.json"),
        (["yolo", "--to", "coco", "--out", "folder.json"], "folder.json"),
        (["coco.json", "--to", "coco", "--out", "a.json"], "coco.json is a COCO file"),
        (["nowhere.xml", "--to", "coco", "--out", "a.json"], "nowhere.xml"),
        (["nowhere", "--from", "labelme", "--to", "coco", "--out", "a.json"], "nowhere"),
        (["empty", "--from", "labelme", "--to", "coco", "--out", "a.json"], "empty"),
        (["labels.txt", "--from", "cvat", "--to", "coco", "--out", "a.json"], "labels.txt"),
        (["labels.txt", "--from", "label-studio", "--to", "coco", "--out", "a.json"], "labels.txt"),
        (["labels.txt", "--from", "deeplabcut", "--to", "coco", "--out", "a.json"], "labels.txt"),
    ],
)
def test_bad_input_exits_with_1_and_one_message(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "full", "folder.json"):
        (tmp_path / name).mkdir()
    for name in ("labels.txt", "full/file", "old.json"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "coco.json").write_text('{"images": []}')
    before = sorted(tmp_path.rglob("*"))
    assert main(["convert", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("posedy convert: ")
    assert text in captured.err
    assert "--debug" not in captured.err
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a.json", "--to", "yolo"], "--out"),
        (["a.json", "--out", "yolo"], "--to"),
        (["a.json", "--to", "voc", "--out", "yolo"], "voc"),
        (["a.json", "--to", "yolo", "--out", "yolo", "--copy"], "--images"),
        (["a.json", "--to", "yolo", "--out", "yolo", "--split", "test"], "test"),
        (["a.json", "--to", "yolo", "--out", "yolo", "--class", "person"], "--class"),
        (["yolo", "--to", "coco", "--out", "folder"], ".json"),
        (["yolo", "--to", "coco", "--out", "a.json", "--copy"], "--copy"),
        (["a", "--to", "coco", "--out", "a.json", "--from", "coco"], "--from coco"),
        (["a", "--to", "coco", "--out", "a.json", "--from", "voc"], "voc"),
        (["a.xml", "--to", "yolo", "--out", "yolo", "--from", "cvat"], "a.xml"),
        (["a.json", "--to", "yolo", "--out", "yolo", "--keypoints", "a,b"], "--keypoints"),
        (["a.xml", "--to", "coco", "--out", "a.json", "--keypoints", "a,,b"], "a,,b"),
        (["a.xml", "--to", "coco", "--out", "a.json", "--keypoints", "a,a"], "a,a"),
        (["a.yaml", "--to", "coco", "--out", "a.json", "--keypoints", "a,b"], "--keypoints"),
        (["a.xml", "--to", "coco", "--out", "a.json", "--split", "val"], "--split"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert", *arguments])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err.splitlines()[-1]

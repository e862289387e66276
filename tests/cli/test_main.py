"""The command line: what it prints, where it writes, how it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

import posedy
from posedy.cli.main import main
from posedy.data.coco_results import write_results
from tools.lab.baselines import median_pose_results, truth_results
from tools.lab.synthetic import draw_dataset

REPOSITORY = Path(__file__).parents[2]
QUICK = ["model.input_size=[32,64]", "train.workers=0", "train.epochs=1", "train.batch_size=8", "train.precision=fp32"]


@pytest.fixture(scope="module", autouse=True)
def fresh_accelerator() -> None:
    """accelerate keeps one precision for the life of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "drawn"
    draw_dataset(root, 4, 4, seed=2)
    return root


@pytest.fixture(scope="module")
def run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    config = REPOSITORY / "configs/drawn/quickstart.yaml"
    assert main(["train", str(config), f"data.root={drawn}", *QUICK, "--out", str(out)]) == 0
    return out


def annotations(drawn: Path) -> Path:
    return drawn / "annotations/person_keypoints_val2017.json"


def test_train_test_and_demo_work_together(
    drawn: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(REPOSITORY / "configs/drawn/quickstart.yaml")
    numbers = tmp_path / "numbers.json"
    test = ["test", config, f"data.root={drawn}", *QUICK, "--checkpoint", str(run / "last.pt"), "--out", str(tmp_path)]
    assert main([*test, "--boxes", "gt", "--json", str(numbers)]) == 0
    assert json.loads(numbers.read_text())["protocol"]["boxes"] == "gt"
    boxes = drawn / "annotations/person_detections_val2017.json"
    assert main([*test, "--boxes", str(boxes)]) == 0
    assert f"boxes={boxes.name}" in capsys.readouterr().out
    both = [*test, "--out", str(tmp_path / "both"), "--boxes", "gt", "--boxes", str(boxes), "--json", str(numbers)]
    assert main(both) == 0
    measured = json.loads(numbers.read_text())
    assert list(measured) == ["gt", boxes.stem]
    assert f"AP {measured['gt']['AP']:.3f}  boxes=gt\n" in capsys.readouterr().out
    assert (tmp_path / "both" / boxes.stem / "results.json").is_file()
    assert main(["report", str(tmp_path / "both/gt")]) == 0
    with pytest.raises(SystemExit):
        main([*test, "--boxes", "gt", "--boxes", "gt"])
    photo = next((drawn / "val2017").glob("*.jpg"))
    out = tmp_path / "pictures"
    assert main(["demo", str(photo), "--checkpoint", str(run / "last.pt"), "--whole", "--out", str(out)]) == 0
    assert (out / "keypoints.json").is_file()
    assert (out / photo.name).is_file()


def test_eval_names_its_protocol(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, numbers = tmp_path / "results.json", tmp_path / "metrics.json"
    write_results(results, truth_results(annotations(drawn))[:2])
    command = ["eval", str(results), "--annotations", str(annotations(drawn)), "--json", str(numbers)]
    assert main(command) == 0
    assert "all images (4 of 4)" in capsys.readouterr().out
    everything = json.loads(numbers.read_text())["AP"]
    assert main([*command, "--images", "detected"]) == 0
    assert "only images with results" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["AP"] > everything


def test_eval_gives_intervals(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, numbers = tmp_path / "results.json", tmp_path / "metrics.json"
    write_results(results, truth_results(annotations(drawn))[:2])
    command = ["eval", str(results), "--annotations", str(annotations(drawn)), "--json", str(numbers), "--ci"]
    assert main(command) == 0
    written = json.loads(numbers.read_text())
    interval = written["intervals"]["AP"]
    assert interval["low"] < written["AP"] < interval["high"]
    assert main([*command, "--details"]) == 0
    assert json.loads(numbers.read_text())["keypoints"]["nose"]["labeled"] > 0
    with pytest.raises(SystemExit):
        main([*command, "--details", "--images", "detected"])
    assert f"95 %: AP {interval['low']:.3f} to {interval['high']:.3f}, AP50" in capsys.readouterr().out


def test_compare_says_what_is_better(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, part, numbers = tmp_path / "truth.json", tmp_path / "part.json", tmp_path / "gain.json"
    write_results(truth, truth_results(annotations(drawn)))
    write_results(part, truth_results(annotations(drawn))[:2])
    command = ["compare", str(part), str(truth), "--annotations", str(annotations(drawn)), "--json", str(numbers)]
    assert main(command) == 0
    gain = json.loads(numbers.read_text())["AP"]
    assert gain["after"] == 1
    assert gain["before"] + gain["difference"] == pytest.approx(1)
    assert gain["low"] <= gain["difference"] <= gain["high"]
    printed = capsys.readouterr().out
    assert f"{truth} ({len(truth_results(annotations(drawn)))} poses) against {part} (2)" in printed
    assert f"{gain['difference']:+.3f}  {gain['low']:+.3f} to {gain['high']:+.3f}" in printed


def test_check_ends_with_1_when_something_is_wrong(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(annotations(drawn)), "--images", str(drawn / "val2017"), "--decode"]) == 0
    capsys.readouterr()
    record = json.loads(annotations(drawn).read_text())
    record["annotations"][0]["image_id"] = 999
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(record))
    assert main(["check", str(broken)]) == 1
    assert "999" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train", "nowhere.yaml", "--out", "run"], "no configuration at"),
        (["eval", "nowhere.json", "--annotations", "nowhere.json"], "nowhere.json"),
        (["demo", "nowhere.jpg", "--checkpoint", "nowhere.pt", "--whole"], "nowhere"),
        (["models", "--input-size", "100", "128"], "32"),
    ],
)
def test_bad_input_gives_one_message_and_status_1(
    command: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"posedy {command[0]}: ")
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert "--debug" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [[], ["dance"], ["train"], ["eval", "a.json"], ["synth", "drawn"]])
def test_wrong_usage_exits_with_2(command: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2


SHOW_HELP = """
import argparse, sys
from posedy.cli.main import main, make_parser

def commands(parser):
    yield []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                yield from ([name, *words] for words in commands(subparser))

HEAVY = {"torch", "torchvision", "numpy", "cv2", "pandas", "matplotlib", "albumentations"}
for words in commands(make_parser()):
    try:
        main([*words, "--help"])
    except SystemExit as ended:
        print("status", ended.code, sorted(HEAVY & sys.modules.keys()), *words)
"""


def test_help_imports_nothing_heavy() -> None:
    printed = subprocess.run([sys.executable, "-c", SHOW_HELP], capture_output=True, text=True, check=True).stdout
    ended = [line for line in printed.splitlines() if line.startswith("status")]
    assert {"status 0 []", "status 0 [] train", "status 0 [] export", "status 0 [] demo"} <= set(ended)
    assert [line for line in ended if not line.startswith("status 0 []")] == []


@pytest.mark.parametrize("tool", ["train", "test", "demo"])
def test_tools_are_the_same_entry_points(tool: str) -> None:
    command = [sys.executable, str(REPOSITORY / "tools" / f"{tool}.py"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"posedy {'predict' if tool == 'demo' else tool}" in shown


def test_ctrl_c_ends_with_words_and_status_1(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from posedy.training.trainer import Trainer

    step = Trainer._train_step

    def interrupted(trainer: Trainer, batch: dict[str, torch.Tensor], persons: int, rate: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        step(trainer, batch, persons, rate)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    config = str(REPOSITORY / "configs/drawn/quickstart.yaml")
    quick = [*QUICK, "train.batch_size=2"]
    assert main(["train", config, f"data.root={drawn}", *quick, "--out", str(tmp_path / "run")]) == 1
    assert "goes on from there" in capsys.readouterr().err
    assert (tmp_path / "run/last.pt").is_file()


def test_settings_may_stand_after_options(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(REPOSITORY / "configs/drawn/quickstart.yaml")
    assert main(["train", config, "--out", str(tmp_path), "train.epoch=1"]) == 1
    assert "the nearest valid key is 'train.epochs'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["train", config, "--out", str(tmp_path), "--fast"])
    assert caught.value.code == 2


def test_an_error_of_a_worker_process_is_one_line(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    shutil.copytree(drawn, root)
    config = str(REPOSITORY / "configs/drawn/quickstart.yaml")
    from posedy.training.trainer import Trainer

    fit = Trainer.fit

    def fit_without_photos(trainer: Trainer, stop_after_epochs: int | None = None) -> dict[str, float]:
        for photo in (root / "train2017").iterdir():
            photo.write_bytes(b"gone")
        return fit(trainer, stop_after_epochs)

    monkeypatch.setattr(Trainer, "fit", fit_without_photos)
    quick = [*QUICK, "train.workers=1"]
    assert main(["train", config, f"data.root={root}", *quick, "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith("posedy train: photo ")
    assert "Traceback" not in message


@pytest.mark.slow
def test_models_lists_all_networks_with_size_and_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["dy_mobilenetv2_050-dy_bneck", "mobilenetv2_100-fpn"]
    monkeypatch.setattr("posedy.models.registry.list_models", lambda: names)
    numbers = tmp_path / "numbers.json"
    assert main(["models", "--json", str(numbers)]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(names)))
    assert first.split() == [names[0], "8.984M", "816.9M", "pretrained"] or "pretrained" in first
    assert second.split()[1:3] == ["2.321M", "317.2M"]
    assert "beyond the paper" in second
    written = json.loads(numbers.read_text())["models"]
    assert [row["name"] for row in written] == names
    assert [row["beyond_paper"] for row in written] == [False, True]
    assert written[0]["parameters"] == 2_665_334 + 6_318_877


def test_a_dry_run_says_how_long_and_leaves_nothing(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, numbers = str(REPOSITORY / "configs/drawn/quickstart.yaml"), tmp_path / "numbers.json"
    out = tmp_path / "run"
    train = ["train", config, f"data.root={drawn}", *QUICK, "train.epochs=30", "--dry-run"]
    assert main([*train, "--out", str(out), "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    for words in ("a step of 8 persons", "an epoch of", "all 30 epochs with 15 evaluations", "memory: ", "nothing was"):
        assert words in printed
    assert not out.exists()
    measured = json.loads(numbers.read_text())
    assert measured["seconds"] > 30 * measured["epoch_seconds"] > 0
    assert main(train) == 0
    assert main([*train, "train.lr=-1"]) == 1
    assert main([*train, "data.root=nowhere"]) == 1


@pytest.mark.slow
def test_a_run_stops_after_epochs_and_goes_on_with_changes_only_when_told_so(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = str(REPOSITORY / "configs/drawn/quickstart.yaml"), tmp_path / "run"
    train = ["train", config, f"data.root={drawn}", *QUICK, "train.epochs=3", "--out", str(out)]
    assert main([*train, "--stop-after-epochs", "1"]) == 0
    assert "stopped after 1 of 3 epochs" in capsys.readouterr().out
    assert main([*train, "train.lr=0.01"]) == 1
    refused = capsys.readouterr().err
    assert "train.lr: 0.003 in the run, 0.01 now" in refused
    assert "--accept-changes" in refused
    assert main([*train, "train.lr=0.01", "--accept-changes", "--stop-after-epochs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "going on with changes" in printed
    assert "train.lr: 0.003 in the run, 0.01 now" in printed
    assert main([*train, "train.lr=0.01"]) == 0
    assert "epoch 3/3" in capsys.readouterr().out
    assert (out / "curves.png").is_file()
    assert [path.name for path in sorted((out / "pictures").iterdir())] == [
        f"epoch-{epoch:04d}.jpg" for epoch in (0, 2, 3)
    ]


def test_export_halves_a_file_that_works_as_before(
    run: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "mine.safetensors"
    assert main(["export", str(run / "best.pt"), "--out", str(half), "--half"]) == 0
    assert f"wrote {half}: dy_mobilenetv2_050-deconv, " in capsys.readouterr().out
    photo = next((drawn / "val2017").glob("*.jpg"))
    out = tmp_path / "pictures"
    assert main(["demo", str(photo), "--checkpoint", str(half), "--whole", "--out", str(out)]) == 0
    assert main(["export", str(run / "best.pt"), "--out", str(tmp_path / "mine.pth")]) == 1
    assert "NAME.safetensors" in capsys.readouterr().err


def test_warnings_are_a_line_each_without_the_code_that_gave_them(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(annotations(drawn).read_text())
    content["annotations"][0]["image_id"] = 12345
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    truth.write_text(json.dumps(content))
    write_results(results, median_pose_results(annotations(drawn)))
    command = [sys.executable, "-m", "posedy", "eval", str(results), "--annotations", str(truth)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"posedy eval: warning: .*1 annotations? .* 12345\n", printed.stderr)


def test_sigmas_of_eval_can_be_given(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    write_results(results, median_pose_results(annotations(drawn)))
    found = []
    for sigmas in ((), ("0.001",), ("1",)):
        numbers = tmp_path / "numbers.json"
        given = ["--sigmas", *sigmas] if sigmas else []
        command = ["eval", str(results), "--annotations", str(annotations(drawn)), "--json", str(numbers), *given]
        assert main(command) == 0
        found.append(json.loads(numbers.read_text())["AP"])
    assert found[1] <= found[0] < found[2]
    assert "sigmas 1" in capsys.readouterr().out
    assert main(["eval", str(results), "--annotations", str(annotations(drawn)), "--sigmas", "1", "2"]) == 1
    assert "has 2 numbers, the category 17 keypoints" in capsys.readouterr().err


def test_eval_and_compare_measure_keypoints_as_a_configuration_says(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    content = json.loads(annotations(drawn).read_text())
    names = [f"point{index}" for index in range(17)]
    content["categories"] = [{"id": 1, "name": "thing", "keypoints": names}]
    truth, results, config = tmp_path / "truth.json", tmp_path / "results.json", tmp_path / "config.yaml"
    truth.write_text(json.dumps(content))
    mirrored = truth_results(content)
    for result in mirrored:  # each point in the place of its pair
        triplets = np.reshape(result["keypoints"], (17, 3))
        triplets[[9, 10]] = triplets[[10, 9]]
        result["keypoints"] = triplets.reshape(-1).tolist()
    write_results(results, mirrored)
    config.write_text("data: {skeleton: {flip_pairs: [[point9, point10]], sigmas: 0.05}}")
    inversions, numbers = [], tmp_path / "numbers.json"
    for given in ([], ["--config", str(config)]):
        command = ["eval", str(results), "--annotations", str(truth), "--details", "--json", str(numbers), *given]
        assert main(command) == 0
        inversions.append(json.loads(numbers.read_text())["errors"]["counts"]["inversion"])
        assert any("has no 'sigmas'" in str(warning.message) for warning in recwarn) is (not given)
        recwarn.clear()
    assert inversions[0] == 0 < inversions[1]
    assert f"sigmas {', '.join(['0.05'] * 17)}" in capsys.readouterr().out
    command = ["compare", str(results), str(results), "--annotations", str(truth), "--config", str(config)]
    assert main(command) == 0
    assert f"sigmas {', '.join(['0.05'] * 17)}" in capsys.readouterr().out


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"posedy {posedy.__version__}\n"

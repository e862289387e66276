"""The commands: printed results, written files and exit codes."""

import argparse
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from torch import nn

import posedy
from posedy.cli.main import COMMANDS, main, make_parser
from posedy.cli.train import COMMON_KEYS
from posedy.config import load_config
from posedy.data.coco_results import write_results
from posedy.evaluation import bootstrap
from tools.lab.baselines import ground_truth_results, median_pose_results
from tools.lab.synthetic import generate_dataset

REPOSITORY = Path(__file__).parents[2]
CONFIG = str(REPOSITORY / "configs/synthetic/short.yaml")
QUICK = [
    *("model.name=dy_mobilenetv2_035-fpn", "model.options={depth: 0.34}", "model.input_size=[32,64]"),
    *("train.workers=0", "train.epochs=1", "train.batch_size=8", "train.precision=fp32"),
]


@pytest.fixture(scope="module", autouse=True)
def fresh_accelerator() -> None:
    """accelerate keeps one precision for the life of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduces the resamples of confidence intervals, of which 1000 take a second."""
    sample_weights = bootstrap._sample_weights
    monkeypatch.setattr(bootstrap, "_sample_weights", lambda images, _, seed: sample_weights(images, 100, seed))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "synthetic"
    generate_dataset(root, 4, 4, seed=2)
    return root


@pytest.fixture(scope="module")
def run(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", CONFIG, f"data.root={synthetic}", *QUICK, "--out", str(out)]) == 0
    return out


def annotations(synthetic: Path) -> Path:
    return synthetic / "annotations/person_keypoints_val2017.json"


def exit_code(arguments: list[str]) -> int:
    """Run a command; return its exit code, also that of a usage error."""
    try:
        return main(arguments)
    except SystemExit as error:
        return int(error.code or 0)


def test_train_test_and_demo_work_together(
    synthetic: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, data = tmp_path / "numbers.json", [f"data.root={synthetic}", *QUICK]
    test = ["test", CONFIG, *data, "--checkpoint", str(run / "last.pt"), "--out", str(tmp_path)]
    assert main([*test, "--boxes", "gt", "--json", str(numbers)]) == 0
    assert json.loads(numbers.read_text())["protocol"]["boxes"] == "gt"
    boxes = synthetic / "annotations/person_detections_val2017.json"
    assert main([*test, "--boxes", str(boxes)]) == 0
    assert f"boxes={boxes.name}" in capsys.readouterr().out
    both = [*test, "--out", str(tmp_path / "both"), "--boxes", "gt", "--boxes", str(boxes), "--json", str(numbers)]
    assert main(both) == 0
    metrics = json.loads(numbers.read_text())
    assert list(metrics) == ["gt", boxes.stem]
    assert f"AP {metrics['gt']['AP']:.3f}  boxes=gt\n" in capsys.readouterr().out
    assert (tmp_path / "both" / boxes.stem / "results.json").is_file()
    assert main(["report", str(tmp_path / "both/gt")]) == 0
    assert exit_code([*test, "--boxes", "gt", "--boxes", "gt"]) == 2
    image = next((synthetic / "val2017").glob("*.jpg"))
    out = tmp_path / "predictions"
    assert main(["demo", str(image), "--checkpoint", str(run / "last.pt"), "--full-image", "--out", str(out)]) == 0
    assert (out / "keypoints.json").is_file()
    assert (out / image.name).is_file()


def test_eval_prints_its_protocol(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, numbers = tmp_path / "results.json", tmp_path / "metrics.json"
    write_results(results, ground_truth_results(annotations(synthetic))[:2])
    command = ["eval", str(results), "--annotations", str(annotations(synthetic)), "--json", str(numbers)]
    assert main(command) == 0
    assert "all images (4 of 4)" in capsys.readouterr().out
    ap_of_all = json.loads(numbers.read_text())["AP"]
    assert main([*command, "--images", "detected"]) == 0
    assert "only images with results" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["AP"] > ap_of_all


def test_eval_ci_prints_and_writes_intervals(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, numbers = tmp_path / "results.json", tmp_path / "metrics.json"
    write_results(results, ground_truth_results(annotations(synthetic))[:2])
    command = ["eval", str(results), "--annotations", str(annotations(synthetic)), "--json", str(numbers), "--ci"]
    assert main(command) == 0
    written = json.loads(numbers.read_text())
    interval = written["intervals"]["AP"]
    assert interval["low"] < written["AP"] < interval["high"]
    assert f"95 %: AP {interval['low']:.3f} to {interval['high']:.3f}, AP50" in capsys.readouterr().out
    assert main([*command, "--details"]) == 0
    assert json.loads(numbers.read_text())["keypoints"]["nose"]["labeled"] > 0
    assert exit_code([*command, "--details", "--images", "detected"]) == 2


def test_compare_prints_and_writes_differences(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complete, partial, numbers = tmp_path / "complete.json", tmp_path / "partial.json", tmp_path / "gain.json"
    results = ground_truth_results(annotations(synthetic))
    write_results(complete, results)
    write_results(partial, results[:2])
    command = ["compare", str(partial), str(complete), "--annotations", str(annotations(synthetic))]
    assert main([*command, "--json", str(numbers)]) == 0
    gain = json.loads(numbers.read_text())["AP"]
    assert gain["after"] == 1
    assert gain["before"] + gain["difference"] == pytest.approx(1)
    assert gain["low"] <= gain["difference"] <= gain["high"]
    printed = capsys.readouterr().out
    assert f"{complete} ({len(results)} poses) against {partial} (2 poses)" in printed
    assert f"{gain['difference']:+.3f}  {gain['low']:+.3f} to {gain['high']:+.3f}" in printed


@pytest.mark.parametrize("command", ["eval", "compare", "posedy.evaluate"])
def test_likely_causes_of_low_metrics_are_warnings(
    synthetic: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder, command: str
) -> None:
    content = json.loads(annotations(synthetic).read_text())
    for person in content["annotations"]:
        person["area"] = 0
    ground_truth, results = tmp_path / "gt.json", tmp_path / "results.json"
    ground_truth.write_text(json.dumps(content))
    write_results(results, ground_truth_results(content)[:1])
    if command == "posedy.evaluate":
        posedy.evaluate(results, ground_truth)
    else:
        files = [str(results)] * (2 if command == "compare" else 1)
        assert main([command, *files, "--annotations", str(ground_truth)]) == 0
    doubts = [str(warning.message) for warning in recwarn if results.name in str(warning.message)]
    assert any("area" in doubt and str(ground_truth) in doubt for doubt in doubts)
    assert any("have no prediction" in doubt for doubt in doubts)


def test_check_exits_with_1_for_an_invalid_file(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = tmp_path / "check.json"
    command = ["check", str(annotations(synthetic)), "--images", str(synthetic / "val2017"), "--decode"]
    assert main([*command, "--json", str(numbers)]) == 0
    assert json.loads(numbers.read_text())["ok"] is True
    capsys.readouterr()
    record = json.loads(annotations(synthetic).read_text())
    record["annotations"][0]["image_id"] = 999
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(record))
    assert main(["check", str(broken), "--json", str(numbers)]) == 1
    assert "999" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["ok"] is False


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["train", "nowhere.yaml", "--out", "run"], "nowhere.yaml"),
        (["test", "nowhere.yaml", "--checkpoint", "nowhere.pt", "--out", "out"], "nowhere.yaml"),
        (["eval", "nowhere.json", "--annotations", "nowhere.json"], "nowhere.json"),
        (["compare", "nowhere.json", "nowhere.json", "--annotations", "nowhere.json"], "nowhere.json"),
        (["report", "nowhere.json"], "nowhere.json"),
        (["predict", "nowhere.jpg", "--checkpoint", "nowhere.pt", "--full-image"], "nowhere"),
        (["demo", "nowhere.jpg", "--checkpoint", "nowhere.pt", "--full-image"], "nowhere"),
        (["detect", "nowhere.jpg", "--out", "boxes.json"], "nowhere.jpg"),
        (["export", "nowhere.pt", "--out", "x.safetensors"], "nowhere.pt"),
        (["app", "--checkpoint", "nowhere.pt"], "nowhere.pt"),
        (["models", "--input-size", "100", "128"], "32"),
        (["models", "--import", "nowhere"], "nowhere"),
        (["check", "nowhere.json"], "nowhere.json"),
        (["app", "--import", "nowhere"], "nowhere"),
        (["app", "--detector", "nowhere"], "'nowhere'"),
    ],
)
def test_bad_input_exits_with_1_and_one_message(
    command: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if command[0] == "app" and importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"posedy {command[0]}: ")
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert "--debug" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["dance"],
        ["train"],
        ["train", "c.yaml"],
        ["train", "c.yaml", "--out", "run", "--stop-after-epochs", "0"],
        ["train", "c.yaml", "--out", "run", "--fast"],
        ["eval", "a.json"],
        ["predict"],
        ["predict", "a.jpg", "--full-image", "--detector-weights", "w.pth"],
        ["predict", "a.jpg", "--full-image", "--annotations", "a.json"],
        ["detect", "a.jpg", "--out", "b.json", "--detector", "full-image", "--detector-weights", "w.pth"],
        ["app", "--detector", "full-image", "--detector-weights", "w.pth"],
        ["predict", "a.mp4", "--box", "0,0,9,9"],
        ["export", "x.pt", "--out", "x.pth"],
        ["export", "x.pt", "--out", "x.onnx", "--no-flip"],
        ["export", "x.pt", "--out", "x.safetensors", "--decode"],
    ],
)
def test_wrong_usage_exits_with_2(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: posedy")


def test_unknown_command_gives_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["trian", "config.yaml"]) == 2
    message = capsys.readouterr().err
    assert "'trian'" in message
    assert "'train'" in message
    assert "'models'" not in message


@pytest.mark.parametrize("lines", [1, 10_000], ids=["error at exit", "error while printing"])
def test_closed_output_ends_a_command_quietly(lines: int) -> None:
    """As in `posedy models | head`."""
    code = (
        "import sys\nfrom posedy.cli import main, models\n"
        f"models.run = lambda _: print('a line\\n' * {lines})\nsys.exit(main(['models']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_broken_pipe_of_another_file_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_pipe(_: argparse.Namespace) -> int:
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr(COMMANDS["models"], "run", break_pipe)
    assert main(["models"]) == 1
    assert "of a worker" in capsys.readouterr().err


def subparsers() -> dict[str, argparse.ArgumentParser]:
    [action] = [action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return action.choices


def test_parser_has_all_commands() -> None:
    parsers = subparsers()
    assert set(parsers) == {*COMMANDS, "demo"}
    assert parsers["demo"] is parsers["predict"]


def test_help_describes_each_command_in_one_line() -> None:
    _, _, table = make_parser().format_help().partition("commands:\n  COMMAND\n")
    # the description of a long name begins on a line of its own
    lines = re.sub(r"\n {20}", " ", table.partition("\n\n")[0]).splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert all(re.fullmatch(r"    [\w-]+ +[a-z].{10,}", line) for line in lines)


def examples() -> Iterator[list[str]]:
    for parser in (make_parser(), *(subparsers()[name] for name in COMMANDS)):
        _, _, text = (parser.epilog or "").rpartition("example")
        for line in text.replace("\\\n", " ").splitlines()[1:]:
            yield shlex.split(line)


@pytest.mark.parametrize("words", list(examples()), ids=" ".join)
def test_help_examples_parse(words: list[str]) -> None:
    program, *arguments = words
    assert program == "posedy"
    if arguments != ["COMMAND", "--help"]:
        parsed = make_parser().parse_args(arguments)
        config = getattr(parsed, "config", None)
        assert config is None or (REPOSITORY / config).is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_description_and_an_example(name: str) -> None:
    help_text = subparsers()[name].format_help()
    assert re.search(r"\n\n[A-Z][^\n]{10,78}\.\n\n", help_text)
    assert re.search(rf"\nexamples?:\n  posedy {name}", help_text)


@pytest.mark.parametrize("name", ["train", "test", "eval", "compare", "check", "detect", "models", "export"])
def test_commands_that_print_numbers_have_json(name: str) -> None:
    assert "--json" in subparsers()[name].format_help()


@pytest.mark.parametrize("name", ["train", "test", "predict", "detect", "export", "models", "app"])
def test_commands_that_build_networks_have_import(name: str) -> None:
    assert "--import" in subparsers()[name].format_help()


def test_train_help_has_ten_keys_with_their_defaults() -> None:
    help_text = subparsers()["train"].format_help()
    assert len(COMMON_KEYS) == 10
    for key, default, _ in COMMON_KEYS:
        assert re.search(rf"\n  {re.escape(key)} +{re.escape(default)}", help_text)
    assert load_config(None, [f"{key}={default}" for key, default, _ in COMMON_KEYS]) == load_config(None)


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
USAGE_ERRORS = (["dance"], ["train", "--out"], ["eval"], ["export", "a.pt", "--out", "a.pth"], ["predict", "--nms"])
calls = [[*words, "--help"] for words in commands(make_parser())]
for words in [*calls, *USAGE_ERRORS]:
    try:
        main(words)
    except SystemExit as ended:
        print("status", ended.code, sorted(HEAVY & sys.modules.keys()), *words)
"""


def test_help_and_usage_errors_import_no_heavy_packages() -> None:
    printed = subprocess.run([sys.executable, "-c", SHOW_HELP], capture_output=True, text=True, check=True).stdout
    status = [line for line in printed.splitlines() if line.startswith("status")]
    assert {f"status 0 [] {words}--help" for words in ("", "train ", "export ", "demo ")} <= set(status)
    assert {"status 2 [] dance", "status 2 [] eval", "status 2 [] predict --nms"} <= set(status)
    assert [line for line in status if not line.startswith(("status 0 []", "status 2 []"))] == []


@pytest.mark.parametrize("name", ["x.onnx", "x.ONNX", "x.safetensors", "X.SafeTensors"])
def test_export_takes_suffixes_in_any_case(name: str) -> None:
    assert make_parser().parse_args(["export", "a.pt", "--out", name]).out == Path(name)


def test_export_writes_a_file_with_a_suffix_in_capitals(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run / "best.pt"), "--out", str(tmp_path / "X.SAFETENSORS")]) == 0
    assert posedy.load_checkpoint(tmp_path / "X.SAFETENSORS").name == "dy_mobilenetv2_035-fpn"


def test_export_does_not_overwrite_its_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --half the float32 weights would be lost."""
    weights, link = tmp_path / "net.safetensors", tmp_path / "link.safetensors"
    weights.write_bytes(b"weights")
    link.symlink_to(weights)
    for out in (weights, link):
        with pytest.raises(SystemExit) as ended:
            main(["export", str(weights), "--out", str(out), "--half"])
        assert ended.value.code == 2
        assert f"--out {out} would overwrite" in capsys.readouterr().err
    assert weights.read_bytes() == b"weights"


@pytest.mark.parametrize("tool", ["train", "test", "demo"])
def test_tools_run_the_commands(tool: str) -> None:
    command = [sys.executable, str(REPOSITORY / "tools" / f"{tool}.py"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"posedy {'predict' if tool == 'demo' else tool}" in shown


def test_ctrl_c_saves_the_run_and_exits_with_1(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from posedy.training.trainer import Trainer

    step = Trainer._train_step

    def interrupted_step(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        step(*arguments)

    monkeypatch.setattr(Trainer, "_train_step", interrupted_step)
    quick = [*QUICK, "train.batch_size=2"]
    assert main(["train", CONFIG, f"data.root={synthetic}", *quick, "--out", str(tmp_path / "run")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert (tmp_path / "run/last.pt").is_file()


def test_overrides_may_follow_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", CONFIG, "--out", str(tmp_path), "train.epoch=1"]) == 1
    assert "train.epochs" in capsys.readouterr().err


def test_error_of_a_worker_process_is_one_line(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from posedy.training.trainer import Trainer

    root = tmp_path / "set"
    shutil.copytree(synthetic, root)
    fit = Trainer.fit

    def fit_with_damaged_images(*arguments: Any) -> dict[str, float]:
        for image in (root / "train2017").iterdir():
            image.write_bytes(b"gone")
        return fit(*arguments)

    monkeypatch.setattr(Trainer, "fit", fit_with_damaged_images)
    quick = [*QUICK, "train.workers=1"]
    assert main(["train", CONFIG, f"data.root={root}", *quick, "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith("posedy train: ")
    assert str(root / "train2017") in message
    assert "Traceback" not in message


def test_models_lists_networks_with_size_and_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["dy_mobilenetv2_050-dy_bneck", "mobilenetv2_100-fpn"]
    monkeypatch.setattr("posedy.models.registry.list_models", lambda: names)
    numbers = tmp_path / "numbers.json"
    assert main(["models", "--json", str(numbers)]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(names)))
    assert first.split() == [names[0], "8.984M", "838.7M"]
    assert second.split()[1:3] == ["2.321M", "317.2M"]
    assert "pretrained" in second
    assert "not in the paper" in second
    assert "preset light (192x160), preset balanced (256x192)" in second
    written = json.loads(numbers.read_text())["models"]
    assert [row["name"] for row in written] == names
    assert [row["beyond_paper"] for row in written] == [False, True]
    assert [row["presets"] for row in written] == [[], ["light", "balanced"]]
    assert written[0]["parameters"] == 2_665_334 + 6_318_877


def test_models_counts_networks_at_the_size_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers, networks = tmp_path / "numbers.json", ["light", "mobilenetv2_035-fpn", "resnet10"]
    sizes = {}
    for options in ([], ["--input-size", "64", "64"]):
        assert main(["models", *networks, *options, "--json", str(numbers)]) == 0
        sizes[len(options)] = [row["input_size"] for row in json.loads(numbers.read_text())["models"]]
    assert sizes == {0: [[160, 192], [192, 256], [224, 224]], 3: [[64, 64]] * 3}
    assert main(["models", "posedy.onnx"]) == 1
    capsys.readouterr()
    pytest.importorskip("timm")
    assert main(["models", "timm/resnet10t-fpn", "timm/resnet10t"]) == 0
    pose, classifier = capsys.readouterr().out.splitlines()
    assert "17 keypoints" in pose
    assert "1000 classes" in classifier


@pytest.mark.usefixtures("restored_registries")
def test_models_leaves_out_parts_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @posedy.register_backbone("one_map")
    class OneMap(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 8, 32, stride=32))
            self.out_channels = 8

    monkeypatch.setattr("posedy.models.registry.list_models", lambda: ["one_map-bneck", "one_map-fpn"])
    numbers = tmp_path / "numbers.json"
    assert main(["models", "--json", str(numbers)]) == 0
    assert [row["name"] for row in json.loads(numbers.read_text())["models"]] == ["one_map-bneck"]
    assert "feature_channels" in next(line for line in capsys.readouterr().out.splitlines() if "one_map-fpn" in line)


def test_dry_run_measures_and_writes_no_run(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, numbers = tmp_path / "run", tmp_path / "numbers.json"
    train = ["train", CONFIG, f"data.root={synthetic}", *QUICK, "train.epochs=30", "--dry-run"]
    assert main([*train, "--out", str(out), "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    for text in ("8 persons", "30 epochs", "15 evaluations", "memory", "dry run"):
        assert text in printed
    assert not out.exists()
    record = json.loads(numbers.read_text())
    assert record["seconds"] > 30 * record["epoch_seconds"] > 0
    assert main(train) == 0
    assert main([*train, "train.lr=-1"]) == 1
    assert main([*train, "data.root=nowhere"]) == 1


@pytest.mark.slow
def test_run_stops_after_epochs_and_resumes_with_accepted_changes_only(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train = ["train", CONFIG, f"data.root={synthetic}", *QUICK, "train.epochs=3", "--out", str(out)]
    assert main([*train, "--stop-after-epochs", "1"]) == 0
    assert "1 of 3 epochs" in capsys.readouterr().out
    assert main([*train, "train.lr=0.01"]) == 1
    error = capsys.readouterr().err
    assert re.search(r"train\.lr.*0\.003.*0\.01", error)
    assert "--accept-changes" in error
    assert main([*train, "train.lr=0.01", "--accept-changes", "--stop-after-epochs", "1"]) == 0
    assert re.search(r"train\.lr.*0\.003.*0\.01", capsys.readouterr().out)
    assert main([*train, "train.lr=0.01"]) == 0
    assert "epoch 3/3" in capsys.readouterr().out
    assert (out / "curves.png").is_file()
    assert [path.name for path in sorted((out / "pictures").iterdir())] == [
        f"epoch-{epoch:04d}.jpg" for epoch in (0, 2, 3)
    ]


def test_export_half_writes_a_usable_file(
    run: Path, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half, numbers = tmp_path / "mine.safetensors", tmp_path / "numbers.json"
    assert main(["export", str(run / "best.pt"), "--out", str(half), "--half", "--json", str(numbers)]) == 0
    assert f"wrote {half}: dy_mobilenetv2_035-fpn, " in capsys.readouterr().out
    record = {"file": str(half), "model": "dy_mobilenetv2_035-fpn", "bytes": half.stat().st_size}
    assert json.loads(numbers.read_text()) == record
    image = next((synthetic / "val2017").glob("*.jpg"))
    command = ["predict", str(image), "--checkpoint", str(half), "--full-image", "--out", str(tmp_path / "out")]
    assert main(command) == 0


@pytest.mark.slow
def test_warnings_are_one_line_without_code(synthetic: Path, tmp_path: Path) -> None:
    content = json.loads(annotations(synthetic).read_text())
    content["annotations"][0]["image_id"] = 12345
    ground_truth, results = tmp_path / "gt.json", tmp_path / "results.json"
    ground_truth.write_text(json.dumps(content))
    write_results(results, median_pose_results(annotations(synthetic)))
    command = [sys.executable, "-m", "posedy", "eval", str(results), "--annotations", str(ground_truth)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"posedy eval: warning: .*12345.*\n", printed.stderr)


def test_eval_accepts_sigmas(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    write_results(results, median_pose_results(annotations(synthetic)))
    ap = []
    for sigmas in ((), ("0.001",), ("1",)):
        numbers = tmp_path / "numbers.json"
        options = ["--sigmas", *sigmas] if sigmas else []
        command = ["eval", str(results), "--annotations", str(annotations(synthetic)), "--json", str(numbers)]
        assert main([*command, *options]) == 0
        ap.append(json.loads(numbers.read_text())["AP"])
    assert ap[1] <= ap[0] < ap[2]
    assert "sigmas 1" in capsys.readouterr().out
    assert main(["eval", str(results), "--annotations", str(annotations(synthetic)), "--sigmas", "1", "2"]) == 1
    assert "17" in capsys.readouterr().err


def test_eval_and_compare_use_the_skeleton_of_a_configuration(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    content = json.loads(annotations(synthetic).read_text())
    names = [f"point{index}" for index in range(17)]
    content["categories"] = [{"id": 1, "name": "thing", "keypoints": names}]
    ground_truth, results, config = tmp_path / "gt.json", tmp_path / "results.json", tmp_path / "config.yaml"
    ground_truth.write_text(json.dumps(content))
    swapped = ground_truth_results(content)
    for result in swapped:
        triplets = np.reshape(result["keypoints"], (17, 3))
        triplets[[9, 10]] = triplets[[10, 9]]
        result["keypoints"] = triplets.reshape(-1).tolist()
    write_results(results, swapped)
    config.write_text("data: {skeleton: {flip_pairs: [[point9, point10]], sigmas: 0.05}}")
    inversions, numbers = [], tmp_path / "numbers.json"
    for options in ([], ["--config", str(config)]):
        command = ["eval", str(results), "--annotations", str(ground_truth), "--details", "--json", str(numbers)]
        assert main([*command, *options]) == 0
        inversions.append(json.loads(numbers.read_text())["errors"]["counts"]["inversion"])
        assert any("sigmas" in str(warning.message) for warning in recwarn) is (not options)
        recwarn.clear()
    assert inversions[0] == 0 < inversions[1]
    assert f"sigmas {', '.join(['0.05'] * 17)}" in capsys.readouterr().out
    command = ["compare", str(results), str(results), "--annotations", str(ground_truth), "--config", str(config)]
    assert main(command) == 0
    assert f"sigmas {', '.join(['0.05'] * 17)}" in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"posedy {posedy.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["detect", "images", "--out", "x.json", "--box-treshold", "0.4"], "--box-threshold"),
        (["predict", "a.jpg", "--detctor=posedy"], "--detector"),
        (["export", "x.pt", "--out", "x.onnx", "surplus"], None),
    ],
)
def test_an_unknown_option_prints_the_nearest_one_and_the_usage_of_its_command(
    arguments: list[str], nearest: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"usage: posedy {arguments[0]} " in error
    if nearest is None:
        assert "surplus" in error
    else:
        assert f"is {nearest}\n" in error


def test_json_is_checked_before_the_computation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["eval", "absent.json", "--annotations", "absent.json", "--json", str(tmp_path)])
    assert ended.value.code == 2
    assert f"--json {tmp_path} " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect", "a.jpg", "--out", "boxes.json", "--json", "a.jpg"],
        ["detect", "a.jpg", "--out", "boxes.json", "--json", "./boxes.json"],
        ["detect", "a.jpg", "--annotations", "gt.json", "--out", "boxes.json", "--json", "gt.json"],
        ["export", "balanced", "--out", "x.onnx", "--json", "x.onnx"],
        ["test", CONFIG, "data.val_annotations=gt.json", "--checkpoint", "x.pt", "--out", "x", "--json", "gt.json"],
        ["test", CONFIG, "data.val_annotations=a=b.json", "--checkpoint", "x.pt", "--out", "x", "--json", "a=b.json"],
        ["eval", "gt.json", "--annotations", "other.json", "--json", "image.png"],
    ],
)
def test_json_overwrites_no_other_file(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "gt.json", "x.onnx", "image.png"):
        (tmp_path / name).write_bytes(b"\x89content")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"--json {Path(arguments[-1])}" in capsys.readouterr().err
    assert {file.read_bytes() for file in tmp_path.iterdir()} == {b"\x89content"}

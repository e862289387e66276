"""The lab commands: output, files and exit status."""

import importlib
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from posedy.cli import main as posedy
from tools.lab.attention.__main__ import main as attention
from tools.lab.benchmarks.__main__ import main as benchmarks
from tools.lab.entry import run_and_exit
from tools.lab.paper.__main__ import main as paper
from tools.lab.synthetic import generate_dataset
from tools.lab.synthetic.__main__ import main as synthetic

REPOSITORY = Path(__file__).parents[2]
QUICK = [
    *("model.name=dy_mobilenetv2_035-fpn", "model.options={depth: 0.34}", "model.input_size=[32,64]"),
    *("train.workers=0", "train.epochs=1", "train.batch_size=8", "train.precision=fp32"),
]
COMMANDS = (
    *("synthetic", "benchmarks", "attention", "paper", "sweep", "movenet", "keypoint_subset", "spin"),
    *("quickstart", "initial_network", "example_grid", "person_shards"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("lab")
    generate_dataset(folder / "synthetic", 4, 4, seed=2)
    config = REPOSITORY / "configs/synthetic/short.yaml"
    assert (
        posedy(["train", str(config), f"data.root={folder / 'synthetic'}", *QUICK, "--out", str(folder / "run")]) == 0
    )
    return folder / "run"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_print_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"tools.lab.{name}", run_name="__main__")
    assert ended.value.code == 0
    assert f"tools.lab.{name}" in capsys.readouterr().out


def test_invalid_input_prints_one_line_and_exits_with_status_1(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        run_and_exit(lambda: synthetic([str(tmp_path / "set"), "--train", "0"]), "synthetic")
    # a string as exit code is printed to standard error, with status 1
    assert str(error.value.code).startswith("synthetic: ")
    assert "\n" not in str(error.value.code)


def test_synthetic_prints_and_writes_the_difficulty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, out = tmp_path / "report.json", tmp_path / "people"
    synthetic([str(out), "--train", "1", "--val", "8", "--seed", "5", "--json", str(report)])
    printed = capsys.readouterr().out
    for text in ("back views", "with a neighbor", "occluded keypoints", "AP of the median pose", "left and right"):
        assert text in printed
    assert json.loads(report.read_text())["val"]["images"] == 8
    assert (out / "annotations/person_keypoints_val2017.json").is_file()


@pytest.mark.slow
def test_attention_finds_the_configuration_of_the_checkpoint(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    attention([str(run / "last.pt"), "eval.flip=false", "--json", str(report)])
    printed = capsys.readouterr().out
    assert printed.count("flip=off") == 2
    written = json.loads((run / "inspect/inspection.json").read_text())
    assert json.loads(report.read_text()) == written
    assert written["verdict"] in printed
    assert (run / "inspect/attention.png").is_file()
    elsewhere = shutil.copy(run / "last.pt", tmp_path)
    with pytest.raises(OSError, match="--config FILE"):
        attention([str(elsewhere)])
    command = [str(elsewhere), "--config", str(run / "config.yaml"), "eval.batch_size=1"]
    with pytest.raises(ValueError, match=r"eval\.batch_size"):
        attention([*command, "--out", str(tmp_path / "out"), "--device", "cpu"])
    with pytest.raises(OSError, match=r"nowhere\.pt"):
        attention(["nowhere.pt", "--config", str(run / "config.yaml")])


@pytest.mark.slow
def test_data_benchmark_prints_ratios(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, data = tmp_path / "report.json", run.parent / "synthetic"
    command = ["data", f"data.root={data}", "model.input_size=[32,64]", "--persons", "8", "--rounds", "2"]
    benchmarks([*command, "--json", str(report)])
    printed = capsys.readouterr().out
    for text in ("samples/s per worker", "the time of decode + warp", "as fast as the reference"):
        assert text in printed
    assert json.loads(report.read_text())["rounds"] == 2


@pytest.mark.slow
def test_paper_compares_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.lab.paper.comparison.TABLE_1", {})
    monkeypatch.setattr("tools.lab.paper.comparison.TABLE_8", {})
    report = tmp_path / "report.json"
    paper(["--tables", "--json", str(report)])
    printed = capsys.readouterr().out
    titles = [table["title"] for table in json.loads(report.read_text())["tables"]]
    assert [title.partition(":")[0] for title in titles] == ["Table 1", "Table 8", "Table 9", "Table 10"]
    assert all(title in printed for title in titles)


def test_paper_compares_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = importlib.import_module("tools.lab.paper.comparison")
    monkeypatch.setattr(comparison, "list_models", lambda: ["dy_mobilenetv2_050-dy_bneck"])
    report = tmp_path / "report.json"
    paper(["--json", str(report)])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("dy_mobilenetv2_050-dy_bneck"))
    assert line.split()[1:6] == ["2.665M", "2.7M", "99.83M", "98.0M", "a"]
    assert json.loads(report.read_text())["models"][0]["total"]["parameters"] == 2_665_334 + 6_318_877

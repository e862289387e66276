"""The steps of `make quickstart` are valid commands, read files that exist or are written before, and are checked."""

import importlib
import json
import shlex
from pathlib import Path

import pytest

from posedy.cli.main import make_parser
from posedy.config import load_config
from posedy.models.pretrained import DEFAULT, load_checkpoint
from tools.lab import quickstart
from tools.lab.golden import EXPECTED_AP, TOLERANCE

REPOSITORY = Path(__file__).parents[1]
COMMANDS = [shlex.split(command) for part in quickstart.parts() for command in part.commands]


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quickstart, "RUN", tmp_path)
    return tmp_path


def write_ap(folder: Path, ap: float) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"AP": ap}))


def test_the_parts_predict_test_fine_tune_and_export() -> None:
    commands = [[command.split() for command in part.commands] for part in quickstart.parts()]
    names = [[second if first == "posedy" else first for first, second, *_ in part] for part in commands]
    assert names == [
        ["predict"],
        ["detect", "test"],
        ["tools.lab.keypoint_subset", "tools.lab.initial_network", "test", "train", "test", "predict"],
        ["export", "predict"],
    ]


def test_commands_read_files_that_exist_or_that_an_earlier_command_writes() -> None:
    written: list[Path] = []

    def can_be_read(name: str | Path) -> bool:
        return (REPOSITORY / name).exists() or any(Path(name).is_relative_to(path) for path in written)

    for program, *words in COMMANDS:
        if program != "posedy":
            assert callable(importlib.import_module(program).main)
            written.append(Path(words[words.index("--out") + 1]))
            continue
        arguments = make_parser().parse_args(words)
        inputs = [*getattr(arguments, "inputs", []), *getattr(arguments, "images", [])]
        inputs += [name for name in getattr(arguments, "boxes", None) or [] if name != "gt"]
        inputs += [getattr(arguments, "config", None), getattr(arguments, "annotations", None)]
        inputs += [name for name in [getattr(arguments, "checkpoint", None)] if str(name) != DEFAULT]
        missing = [name for name in inputs if name is not None and not can_be_read(name)]
        assert not missing, (words[0], missing)
        written.append(Path(arguments.out))
    config = load_config(REPOSITORY / "configs/real/five_keypoints.yaml")
    assert can_be_read(config.data.train_set.annotations)
    assert can_be_read(config.data.val_set.annotations)


def test_an_image_of_the_user_is_predicted_first() -> None:
    first, *others = [shlex.split(command) for part in quickstart.parts("an image.jpg") for command in part.commands]
    assert make_parser().parse_args(first[1:]).inputs == ["an image.jpg", *quickstart.IMAGES]
    assert others == COMMANDS[1:]


def test_a_missing_image_keeps_the_earlier_results(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = run_folder / "earlier.txt"
    earlier.touch()
    assert quickstart.run(["absent.jpg"]) == 1
    assert "absent.jpg" in capsys.readouterr().err
    assert earlier.exists()


def test_a_failing_command_stops_the_quickstart(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def fail_detection(arguments: list[str]) -> int:
        ran.append(arguments[0])
        (run_folder / "images").mkdir(parents=True, exist_ok=True)
        (run_folder / "images/a.jpg").touch()
        return 1 if arguments[0] == "detect" else 0

    (run_folder / "of an earlier quickstart").touch()
    monkeypatch.setattr(quickstart, "main", fail_detection)
    assert quickstart.run([]) == 1
    assert ran == ["predict", "detect"]
    assert [path.name for path in run_folder.iterdir()] == ["images"]


@pytest.mark.parametrize("error", [-2 * TOLERANCE, -0.9 * TOLERANCE, 0.9 * TOLERANCE, 2 * TOLERANCE, float("nan")])
@pytest.mark.parametrize("boxes", ["gt", "detector"])
def test_an_accuracy_out_of_tolerance_fails(
    boxes: str, error: float, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("gt", "detector"):
        write_ap(run_folder / "test" / name, EXPECTED_AP[name] + (error if name == boxes else 0))
    assert quickstart.compare_with_expected() == (abs(error) < TOLERANCE)
    assert f"expected {EXPECTED_AP[boxes]:.3f}, got {EXPECTED_AP[boxes] + error:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(("before", "after", "passes"), [(0.0, 0.4, True), (0.4, 0.4, False), (0.4, 0.1, False)])
def test_fine_tuning_must_raise_the_accuracy(before: float, after: float, passes: bool, run_folder: Path) -> None:
    write_ap(run_folder / "test_before", before)
    write_ap(run_folder / "test_after", after)
    (run_folder / "five_keypoints").mkdir()
    (run_folder / "five_keypoints/a.jpg").touch()
    assert quickstart.compare_before_and_after() == passes


@pytest.mark.parametrize("name", ["fine_tune", "five_keypoints"])
def test_configurations_fine_tune_the_default_network(name: str) -> None:
    model, net = load_config(REPOSITORY / f"configs/real/{name}.yaml").model, load_checkpoint(DEFAULT)
    assert str(model.weights) == DEFAULT
    assert model.name == net.name
    configured = {"output": model.output, "codec": model.codec, "sigma": model.sigma, **model.options}
    assert configured == {option: net.options.get(option) for option in configured}


def test_the_fine_tuned_network_is_not_selected_on_the_test_images() -> None:
    config = load_config(REPOSITORY / "configs/real/five_keypoints.yaml")
    assert config.eval.every == config.train.epochs
    assert isinstance(config.data.skeleton.sigmas, dict)
    assert tuple(config.data.skeleton.sigmas) == quickstart.KEYPOINTS

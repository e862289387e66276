"""Helpers of the command line's options."""

import argparse
import re
import sys
from pathlib import Path

import pytest

from posedy.cli.main import main, make_parser
from posedy.cli.options import DETECTOR, RENAMED_OPTIONS, parse_score
from posedy.inference.detectors import DEFAULT_DETECTOR

RENAMED = [(command, old, new) for command, names in RENAMED_OPTIONS.items() for old, new in names.items()]


@pytest.mark.parametrize(("command", "old", "new"), RENAMED)
@pytest.mark.parametrize("form", ["{}", "{}=0.5", "{} 0.5"])
def test_renamed_option_exits_with_2_and_gives_the_new_name(
    command: str, old: str, new: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "a.jpg", *form.format(old).split()])
    assert caught.value.code == 2
    assert f"{old} was renamed: use {new}" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "old", "new"), RENAMED)
def test_help_shows_the_new_name_only(command: str, old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args([command, "--help"])
    shown = capsys.readouterr().out
    assert new in shown
    assert re.search(rf"(?<![\w-]){old}(?![\w-])", shown) is None


def test_import_option_is_repeatable_and_imports_before_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user_module.py").touch()
    command = ["train", "nowhere.yaml", "--out", "run", "--import", "user_module"]
    assert main(command) == 1
    assert "nowhere.yaml" in capsys.readouterr().err
    assert sys.modules.pop("user_module").__file__ == str(tmp_path / "user_module.py")
    assert main([*command, "--import", "user_module.absent"]) == 1
    assert "user_module" in sys.modules
    del sys.modules["user_module"]
    error = capsys.readouterr().err
    assert error.startswith("posedy train: ")
    assert "user_module.absent" in error
    assert len(error.splitlines()) == 1
    assert "nowhere.yaml" not in error


@pytest.mark.parametrize("text", ["0", "0.5", "1", "1e-3"])
def test_parse_score_accepts_scores(text: str) -> None:
    assert parse_score(text) == float(text)


@pytest.mark.parametrize("text", ["nan", "-0.1", "1.1", "inf", "high", ""])
def test_parse_score_rejects_other_text(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(text))):
        parse_score(text)


def test_the_default_detector_is_that_of_the_api() -> None:
    assert DETECTOR == DEFAULT_DETECTOR

"""Which errors of a command are expected, and what is printed about the others."""

import functools
import logging
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

import posedy
from posedy.cli.errors import describe_error
from posedy.cli.main import main
from posedy.config import load_config
from posedy.files import write_json_atomically
from posedy.oks import oks_matrix

LOCATION = r"\n  in posedy/{}:\d+, function {}; run again with --debug for the traceback\n?"


def broadcast(*_: object) -> None:
    np.zeros(3) + np.zeros(4)


def look_up(*_: object) -> None:
    {}["absent"]


def give_up(*_: object) -> None:
    raise RuntimeError("no plan\nis left")


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (broadcast, r"ValueError: operands could not be broadcast .*"),
        (look_up, r"KeyError: 'absent'"),
        (give_up, r"RuntimeError: no plan"),
    ],
)
def test_an_error_of_other_code_gets_its_type_and_location(
    function: Callable[..., None], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("posedy.data.check.CocoFile.read", function)
    assert main(["check", "some.json"]) == 1
    assert re.fullmatch(
        f"posedy check: {line}{LOCATION.format('data/check.py', 'check_coco')}", capsys.readouterr().err
    )


def error_of(work: Callable[..., Any], *arguments: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the tests say which)
        work(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("line", "is_expected"),
    [
        ("raise ValueError('message')", True),
        ("raise TypeError('message') from None", True),
        ("open('/nowhere/file')", True),
        ("int('x')", False),
        ("{}['key']", False),
        ("assert False, 'message'", False),
    ],
)
def test_an_error_in_posedy_is_expected_if_a_raise_statement_raised_it_or_a_file_cannot_be_opened(
    line: str, is_expected: bool
) -> None:
    module = Path(posedy.__file__).with_name("module.py")
    error = error_of(exec, compile(line, module, "exec"))
    if is_expected:
        assert describe_error(error) == str(error)
    else:
        assert re.fullmatch(
            f"{type(error).__name__}: .*{LOCATION.format('module.py', '<module>')}", describe_error(error)
        )


def test_a_wrapped_error_is_expected_and_a_passed_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    wrapped = error_of(load_config, tmp_path / "broken.yaml")
    assert describe_error(wrapped) == str(wrapped)
    passed = error_of(write_json_atomically, tmp_path / "x.json", float("nan"))
    location = LOCATION.format("files.py", "write_json_atomically")
    assert re.fullmatch(f"ValueError: .*JSON.*{location}", describe_error(passed))
    assert not describe_error(passed, debug=True).endswith("traceback")


class Failing(Dataset[Any]):
    """Its sample is the result of a call."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        self.call = functools.partial(work, *arguments)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.call()


def in_a_loader(work: Callable[..., Any], *arguments: Any) -> None:
    list(DataLoader(Failing(work, *arguments), num_workers=1))


def in_a_pool(work: Callable[..., Any], *arguments: Any) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        executor.submit(work, *arguments).result()


@pytest.mark.parametrize("process", [in_a_loader, in_a_pool])
def test_errors_of_worker_processes_are_told_apart_too(process: Callable[..., None], tmp_path: Path) -> None:
    expected = str(error_of(load_config, None, ["train.epoch=1"]))
    assert describe_error(error_of(process, load_config, None, ["train.epoch=1"])) == expected
    described = describe_error(error_of(process, oks_matrix, ["x"], [1], [1]))
    assert re.fullmatch(f"ValueError: .*'x'{LOCATION.format('oks.py', '.*')}", described)
    described = describe_error(error_of(process, look_up))
    assert described.startswith("KeyError: 'absent'")


@pytest.mark.parametrize("words", [["--debug", "check", "some.json"], ["check", "some.json", "--debug"]])
def test_debug_shows_the_traceback_and_debug_messages(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("posedy")
    before = logger.level, list(logger.handlers)

    def log_and_fail(*_: object) -> None:
        logging.getLogger("posedy.data").debug("a debug message")
        raise KeyError("absent")

    monkeypatch.setattr("posedy.data.check.CocoFile.read", log_and_fail)
    assert main(words) == 1
    shown = capsys.readouterr().err
    assert "a debug message" in shown
    assert "Traceback (most recent call last)" in shown
    assert "in log_and_fail" in shown
    assert "--debug" not in shown
    assert (logger.level, logger.handlers) == before
    assert main([word for word in words if word != "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "a debug message" not in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback_of_expected_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nowhere.yaml", "--out", "run", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "posedy train: no configuration at" in shown

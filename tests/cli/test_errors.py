"""Error messages of the command line for expected and unexpected errors."""

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


def fail_to_broadcast(*_: object) -> None:
    np.zeros(3) + np.zeros(4)


def fail_to_look_up(*_: object) -> None:
    {}["absent"]


def raise_multiline_error(*_: object) -> None:
    raise RuntimeError("first line\nsecond line")


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (fail_to_broadcast, r"ValueError: operands could not be broadcast .*"),
        (fail_to_look_up, r"KeyError: 'absent'"),
        (raise_multiline_error, r"RuntimeError: first line"),
    ],
)
def test_unexpected_error_has_its_type_and_location(
    function: Callable[..., None], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("posedy.data.check.CocoFile.read", function)
    assert main(["check", "some.json"]) == 1
    assert re.fullmatch(
        f"posedy check: {line}{LOCATION.format('data/check.py', 'check_coco')}", capsys.readouterr().err
    )


def catch_error(function: Callable[..., Any], *arguments: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  (tests check the error)
        function(*arguments)
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
def test_raised_errors_and_file_errors_of_posedy_are_expected(line: str, is_expected: bool) -> None:
    module = Path(posedy.__file__).with_name("module.py")
    error = catch_error(exec, compile(line, module, "exec"))
    if is_expected:
        assert describe_error(error) == str(error)
    else:
        assert re.fullmatch(
            f"{type(error).__name__}: .*{LOCATION.format('module.py', '<module>')}", describe_error(error)
        )


def test_wrapped_error_is_expected_and_propagated_error_is_not(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    wrapped = catch_error(load_config, tmp_path / "broken.yaml")
    assert describe_error(wrapped) == str(wrapped)
    propagated = catch_error(write_json_atomically, tmp_path / "x.json", float("nan"))
    location = LOCATION.format("files.py", "write_json_atomically")
    assert re.fullmatch(f"ValueError: .*JSON.*{location}", describe_error(propagated))
    assert not describe_error(propagated, debug=True).endswith("traceback")


class CallingDataset(Dataset[Any]):
    """Calls a function to load its sample."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = functools.partial(function, *arguments)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.call()


def run_in_data_loader(function: Callable[..., Any], *arguments: Any) -> None:
    list(DataLoader(CallingDataset(function, *arguments), num_workers=1))


def run_in_process_pool(function: Callable[..., Any], *arguments: Any) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        executor.submit(function, *arguments).result()


@pytest.mark.parametrize("run", [run_in_data_loader, pytest.param(run_in_process_pool, marks=pytest.mark.slow)])
def test_errors_of_worker_processes_are_classified_too(run: Callable[..., None]) -> None:
    expected = str(catch_error(load_config, None, ["train.epoch=1"]))
    assert describe_error(catch_error(run, load_config, None, ["train.epoch=1"])) == expected
    described = describe_error(catch_error(run, oks_matrix, ["x"], [1], [1]))
    assert re.fullmatch(f"ValueError: .*'x'{LOCATION.format('oks.py', '.*')}", described)
    described = describe_error(catch_error(run, fail_to_look_up))
    assert described.startswith("KeyError: 'absent'")


@pytest.mark.parametrize("command", [["--debug", "check", "some.json"], ["check", "some.json", "--debug"]])
def test_debug_shows_the_traceback_and_debug_messages(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("posedy")
    before = logger.level, list(logger.handlers)

    def log_and_fail(*_: object) -> None:
        logging.getLogger("posedy.data").debug("a debug message")
        raise KeyError("absent")

    monkeypatch.setattr("posedy.data.check.CocoFile.read", log_and_fail)
    assert main(command) == 1
    shown = capsys.readouterr().err
    assert "a debug message" in shown
    assert "Traceback (most recent call last)" in shown
    assert "in log_and_fail" in shown
    assert "--debug" not in shown
    assert (logger.level, logger.handlers) == before
    assert main([word for word in command if word != "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "a debug message" not in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback_of_expected_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nowhere.yaml", "--out", "run", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "posedy train: " in shown
    assert "nowhere.yaml" in shown

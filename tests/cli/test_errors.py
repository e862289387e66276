"""Error messages of the command line for expected and unexpected errors."""

import errno
import functools
import gc
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import posedy
from posedy.cli.errors import describe_error
from posedy.cli.main import main
from posedy.config import load_config
from posedy.files import write_json_atomically
from posedy.models.network_file import write_checkpoint
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


@pytest.fixture(scope="module", autouse=True)
def _short_wait_for_failed_workers() -> Iterator[None]:
    """A data loader that has failed waits for its workers for 5 seconds when it is collected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
        yield
        gc.collect()


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


def use_up_memory_of_torch() -> None:
    torch.empty(10**15)


def use_up_memory_of_numpy() -> None:
    np.zeros(10**15)


def use_up_memory_of_opencv() -> None:
    cv2.resize(np.zeros((10, 10), np.uint8), (2_000_000, 2_000_000))


def normalize_one_value() -> None:
    torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))


def be_killed_in_a_worker() -> None:
    run_in_data_loader(os.kill, 0, signal.SIGKILL)


def use_up_memory_in_a_worker() -> None:
    run_in_data_loader(torch.empty, 10**15)


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (use_up_memory_of_torch, "train.accumulation"),
        (use_up_memory_of_numpy, "train.batch_size"),
        (use_up_memory_of_opencv, "smaller images"),
        (normalize_one_value, "train.freeze_batch_norm=true"),
        (be_killed_in_a_worker, "train.workers"),
        (use_up_memory_in_a_worker, "train.accumulation"),
    ],
)
def test_errors_of_libraries_have_a_remedy(
    function: Callable[[], None], remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(process: int, number: int, kill: Callable[[int, int], None] = os.kill) -> None:
        kill(process or os.getpid(), number)

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr("posedy.data.check.CocoFile.read", lambda *_: function())
    assert main(["check", "some.json"]) == 1
    message = capsys.readouterr().err
    assert re.fullmatch(rf"posedy check: .*{remedy}.*\n", message)
    assert "disk" not in message
    assert main(["check", "some.json", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "remedies"),
    [
        (
            RuntimeError(
                "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers "
                "are out of shared memory. Please try to raise your shared memory limit."
            ),
            ["train.workers=0", "--shm-size"],
        ),
        (RuntimeError("unable to write to file </torch_12_34_0>: No space left on device (28)"), ["--shm-size"]),
        (RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), ["12, 13", "train.workers"]),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "), ["12", "train.workers"]),
        (RuntimeError("received 0 items of ancdata"), ["ulimit -n", "train.workers"]),
        (RuntimeError("unable to open shared memory object </torch_1>: Too many open files (24)"), ["ulimit -n"]),
        (RuntimeError("HIP out of memory. Tried to allocate 2 GiB"), ["--device cpu"]),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), ["GPU", "train.accumulation"]),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), ["GPU", "train.batch_size"]),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), ["GPU", "train.accumulation"]),
        (MemoryError(), ["train.batch_size"]),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ["train.workers"]),
        (
            RuntimeError("CUDA error: no kernel image is available for execution"),
            ["CUDA_VISIBLE_DEVICES"],
        ),
        (RuntimeError("The server socket has failed to listen on port 29500. EADDRINUSE"), ["--standalone"]),
        (RuntimeError("operator torchvision::nms does not exist"), ["torchvision", "docs/how_to/installation.md"]),
        (ImportError("/usr/lib/libGL.so.1: file too short"), ["libGL.so.1", "libgl1"]),
        (ImportError("libgthread-2.0.so.0: cannot open shared object file: No such file"), ["libglib2.0-0"]),
        (ImportError("libgomp.so.1: cannot open shared object file: No such file or directory"), ["libgomp.so.1"]),
        (ModuleNotFoundError("No module named 'cv2'"), ["OpenCV"]),
        (AttributeError("module 'cv2' has no attribute 'imread'"), ["OpenCV"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_known_errors_have_a_remedy_in_one_line(error: Exception, remedies: list[str]) -> None:
    described = describe_error(error)
    assert "\n" not in described
    for remedy in remedies:
        assert remedy in described


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(errno.ENOSPC, "No space left on device")],
)
def test_other_errors_have_no_remedy(error: Exception) -> None:
    assert describe_error(error) == f"{type(error).__name__}: {error}"


def test_a_killed_worker_is_no_full_disk(tmp_path: Path) -> None:
    class Killing:
        def __reduce__(self) -> Any:
            raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")

    error = catch_error(write_checkpoint, {"state": Killing()}, tmp_path / "last.pt")
    assert "train.workers" in describe_error(error)
    assert list(tmp_path.iterdir()) == []


# Runs commands, and uses the API, with an OpenCV whose system libraries are missing.
WITHOUT_LIBGL = """
import sys, posedy
from posedy.cli.main import main

for command in (["check", "ann.json"], ["predict", "a.jpg"]):
    print(main(command))
try:
    from posedy import PoseEstimator
except ImportError as error:
    print(f"posedy API: {error}", file=sys.stderr)
"""


@pytest.mark.slow
def test_missing_system_libraries_of_opencv_have_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(posedy.__file__).parents[1])])
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBGL],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ran.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["posedy check", "posedy predict", "posedy API"]
    assert all("apt-get install libgl1 libglib2.0-0" in line and "libGL.so.1" in line for line in lines)


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

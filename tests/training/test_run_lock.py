"""The lock of a run folder: in one process, in several, after a kill and without locks of the system."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import posedy
from posedy.config import Config
from posedy.training import run
from posedy.training.run_lock import LOCK, RunFolderInUseError, lock_run_folder
from posedy.training.trainer import Trainer

# Locks a folder, forks a process that waits for the end of its input as a data loader worker would, and waits, too.
HOLD_LOCK = """
import os, sys
from pathlib import Path
from posedy.training.run_lock import lock_run_folder

with lock_run_folder(Path(sys.argv[1])):
    started, start = os.pipe()
    if os.fork():
        os.read(started, 1)
        print("locked", flush=True)
    else:
        os.write(start, b"1")
    sys.stdin.read()
    os._exit(0)
"""


def test_a_locked_folder_names_its_owner_and_is_free_afterward(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    with lock_run_folder(run):
        with pytest.raises(RunFolderInUseError, match=f"{run}.* {os.getpid()} "), lock_run_folder(run):
            pass
        assert json.loads((run / LOCK).read_text())["pid"] == os.getpid()
        with lock_run_folder(tmp_path / "runs" / "other"):
            pass
    assert list(tmp_path.iterdir()) == []
    with lock_run_folder(run):
        (run / "last.pt").touch()
    assert [path.name for path in run.iterdir()] == ["last.pt"]


def test_an_error_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock_run_folder(tmp_path / "run"):
        raise KeyboardInterrupt
    with lock_run_folder(tmp_path / "run"):
        pass


def test_a_link_to_a_locked_folder_is_locked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with (
        lock_run_folder(tmp_path / "run"),
        pytest.raises(RunFolderInUseError, match="link"),
        lock_run_folder(tmp_path / "link"),
    ):
        pass


def test_the_lock_of_a_killed_process_is_free_although_its_workers_live(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_LOCK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunFolderInUseError, match=str(process.pid)), lock_run_folder(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK).is_file()
        with lock_run_folder(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_an_unfinished_lock_file_is_reported_without_its_owner(tmp_path: Path, content: str) -> None:
    with lock_run_folder(tmp_path):
        (tmp_path / LOCK).write_text(content)
        with pytest.raises(RunFolderInUseError, match=str(tmp_path)), lock_run_folder(tmp_path):
            pass


@pytest.mark.parametrize("has_fcntl", [True, False])
def test_without_locks_of_the_system_a_warning_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, has_fcntl: bool
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if has_fcntl:
        monkeypatch.setattr("fcntl.flock", fail)
    else:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    with lock_run_folder(tmp_path / "run"):
        assert list((tmp_path / "run").iterdir()) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(tmp_path / "run") in caplog.text


def test_a_file_that_its_owner_deletes_is_locked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def delete_and_lock(file: int, operation: int) -> None:
        monkeypatch.setattr("fcntl.flock", flock)
        (tmp_path / LOCK).unlink()
        flock(file, operation)

    monkeypatch.setattr("fcntl.flock", delete_and_lock)
    with lock_run_folder(tmp_path):
        assert (tmp_path / LOCK).is_file()


def test_training_locks_its_folder_and_a_dry_run_does_not(
    experiment: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder(Trainer):
        """Records whether the folder is locked, instead of training."""

        def __init__(self, config: Config, out: Path, **_: Any) -> None:
            is_locked.append((out / LOCK).is_file())
            raise FileNotFoundError("no data")

    is_locked: list[bool] = []
    monkeypatch.setattr(run, "Trainer", Recorder)
    config = experiment()
    for options in ({"dry_run": True}, {}):
        with pytest.raises(FileNotFoundError):
            run.train(config, tmp_path, **options)
    assert is_locked == [False, True]
    with lock_run_folder(tmp_path), pytest.raises(RunFolderInUseError, match=str(os.getpid())):
        posedy.train(config, out=tmp_path)
    assert len(is_locked) == 2

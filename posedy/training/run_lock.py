"""The lock of a run folder, which keeps a second training run out of it."""

import contextlib
import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

LOCK = "run.lock"
_IN_USE = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_LOGGER = logging.getLogger("posedy")
_locked_files: set[int] = set()  # file descriptors


class RunFolderInUseError(OSError):
    """Another training run writes to the run folder; the message names its process."""


@contextmanager
def lock_run_folder(run: Path) -> Iterator[None]:
    """Context manager that locks a run folder, which is created if it is missing.

    The lock is that of the system on the file `run.lock`, which names the process. It ends with the process, also by a
    kill. At the end of the block the file is deleted, and with it the folders that were created and are empty. Where
    the system has no locks, a warning is logged, and nothing is locked.

    Raises:
        RunFolderInUseError: if another process, or another training run of this one, has locked the folder.
        OSError: if the folder or the file cannot be created.
    """
    created = [folder for folder in (run, *run.parents) if not folder.exists()]
    run.mkdir(parents=True, exist_ok=True)
    file = _lock(run / LOCK)
    try:
        yield
    finally:
        if file is not None:
            # while it is locked: afterward another run may have locked it
            (run / LOCK).unlink(missing_ok=True)
            _locked_files.discard(file)
            os.close(file)
        with contextlib.suppress(OSError):  # a folder that is not empty is kept
            for folder in created:
                folder.rmdir()


def _lock(path: Path) -> int | None:
    """Locks a file and returns its descriptor; None if the system has no locks."""
    try:
        import fcntl
    except ImportError:  # on Windows
        _warn(path, "this system has no fcntl")
        return None
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):
                break
            os.close(file)  # the previous owner deleted it before it was locked here
        except OSError as error:
            os.close(file)
            if error.errno in _IN_USE:
                raise RunFolderInUseError(
                    f"{path.parent} is in use by {_describe_owner(path)}: wait until it ends, stop it, or choose "
                    "another --out"
                ) from error
            path.unlink(missing_ok=True)
            _warn(path, str(error))
            return None
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": datetime.now().isoformat(" ", "seconds")}
    os.ftruncate(file, 0)
    os.write(file, json.dumps(owner).encode())
    _locked_files.add(file)
    return file


def _is_at(path: Path, file: int) -> bool:
    """Returns whether a path is that of an open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _warn(path: Path, reason: str) -> None:
    _LOGGER.warning("%s cannot be locked (%s): do not start another training run with this folder", path.parent, reason)


def _describe_owner(path: Path) -> str:
    """Describes the process that has locked a file."""
    try:
        owner = json.loads(path.read_text())
        return f"a training run that was started at {owner['started']} (process {owner['pid']} on {owner['host']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to write or delete the file
        return "another training run"


def _release_in_fork() -> None:
    """Closes the locked files in a forked process, such as a data loader worker, which may outlive a killed run."""
    for file in _locked_files:
        os.close(file)
    _locked_files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_fork)

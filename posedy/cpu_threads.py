"""OpenMP settings for torch's CPU threads, set in the environment before torch is imported."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Idle threads spin before they sleep: GNU's runtime for about 300,000 iterations by default, Intel's and LLVM's for
# 200 ms. This takes CPU time from the computing threads of other processes.
_SHORT_SPIN = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}


def configure_openmp() -> None:
    """Shortens the spinning of idle threads, and limits the number of threads to the CPUs of the cgroup.

    Variables that are already set keep their values; OMP_WAIT_POLICY disables the change of spinning. Nothing is
    changed if POSEDY_KEEP_OMP is 1, or if torch has already been imported.
    """
    if os.environ.get("POSEDY_KEEP_OMP") == "1":
        return
    if "torch" in sys.modules:
        logging.getLogger("posedy").debug(
            "torch was imported before posedy: CPU thread settings are unchanged; import posedy first to set them"
        )
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in _SHORT_SPIN.items():
            os.environ.setdefault(name, value)
    allowed = cgroup_cpus()
    if allowed is not None and allowed < visible_cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(allowed))


def visible_cpus() -> int:
    """Returns the number of CPUs in this process's CPU affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_cpus(root: Path = Path("/")) -> int | None:
    """Returns the cgroup's CPU limit of this process in whole CPUs (at least 1); None without a limit.

    It is the lowest limit of the cgroup and its parents. Both versions of cgroups are supported.

    Args:
        root: the folder of proc/ and sys/.
    """
    limit = min(_cpu_limits(root), default=None)
    return None if limit is None else max(1, int(limit))


def _cpu_limits(root: Path) -> Iterator[float]:
    """Yields the limits of the process's cgroup and its parents in CPUs."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")  # version 2 names no controllers
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):  # some of the folders are missing in a container
            folder = mount.joinpath(*parts[:depth])
            version_1 = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
            quota, _, period = (_read(folder / "cpu.max") or version_1).partition(" ")
            if quota.isdigit() and period.isdigit() and int(period) > 0:  # else "max" or -1: no limit
                yield int(quota) / int(period)


def _read(file: Path) -> str:
    """Reads the stripped text of a file; "" if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
